/* SPDX-License-Identifier: Apache-2.0
 *
 * What load.c and echo.c share: a table of operations, its one worker, and how to wait on it. Both programs see
 * sessions only, so the same code runs on the kernel and on VPP.
 */
#ifndef BENCHMARKS_STACK_H
#define BENCHMARKS_STACK_H

#define _GNU_SOURCE
#include "libvppcom.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 1024
#define EVENTS_OF_A_STREAM (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define HANG_UP (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

const vcl_ops *vppaio_host_ops (void);

typedef struct
{
  const vcl_ops *ops;
  int is_host;
  int worker;
  int fd;
  uint32_t vep;
} stack;

static void __attribute__ ((noreturn, format (printf, 1, 2)))
give_up (const char *format, ...)
{
  va_list arguments;
  va_start (arguments, format);
  vfprintf (stderr, format, arguments);
  fputc ('\n', stderr);
  exit (1);
}

static int
checked (int rv, const char *call)
{
  if (rv < 0)
    give_up ("%s: %s", call, strerror (-rv));
  return rv;
}

static uint64_t
clock_ns (clockid_t clock)
{
  struct timespec now;
  return clock_gettime (clock, &now) < 0 ? 0 : (uint64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t
now_ns (void)
{
  return clock_ns (CLOCK_MONOTONIC);
}

static void
pin (int cpu)
{
  cpu_set_t set;
  if (cpu < 0)
    return;
  CPU_ZERO (&set);
  CPU_SET (cpu, &set);
  if (sched_setaffinity (0, sizeof (set), &set) < 0)
    give_up ("cannot pin to CPU %d: %m", cpu);
}

/* `library` is libvppcom's file; VCL reads the vcl.conf that VCL_CONFIG names. */
static void
open_stack (stack *s, const char *name, const char *library, const char *application)
{
  const char *config = getenv ("VCL_CONFIG");
  char message[1024], variable[4200];
  s->is_host = strcmp (name, "host") == 0;
  if (s->is_host)
    {
      s->ops = vppaio_host_ops ();
      s->worker = checked (s->ops->worker_register (), "worker_register");
    }
  else
    {
      if (vppaio_vpp_open (library, message, sizeof (message)) < 0)
	give_up ("%s", message);
      /* VCL sees what it is given, not the environment (vpp_settings.c). */
      snprintf (variable, sizeof (variable), "VCL_CONFIG=%s", config ? config : "");
      checked (vppaio_vpp_settings (variable, strlen (variable) + 1), "settings");
      checked (vppaio_vpp_attach (application), "attach");
      s->ops = vppaio_vpp_ops ();
      s->worker = 0;
    }
  s->fd = checked (s->ops->worker_fd (s->worker), "worker_fd");
  s->vep = checked (s->ops->epoll_create (s->worker), "epoll_create");
}

/* Events, after a sleep of at most `timeout_ms` if there are none yet. */
static int
wait_events (stack *s, struct epoll_event *events, int timeout_ms)
{
  int n;
  struct pollfd sleeper = { .fd = s->fd, .events = POLLIN };
  if (s->is_host)
    {
      /* The host stack's descriptor is the epoll instance itself: one system call, as a C program would have it. */
      n = epoll_wait (s->fd, events, MAX_EVENTS, timeout_ms);
      return n < 0 ? 0 : n;
    }
  n = s->ops->epoll_wait (s->vep, events, MAX_EVENTS, VCL_WAIT_PARKED);
  if (n != 0 || poll (&sleeper, 1, timeout_ms) <= 0)
    return n < 0 ? 0 : n;
  n = s->ops->epoll_wait (s->vep, events, MAX_EVENTS, VCL_WAIT_NOW);
  return n < 0 ? 0 : n;
}

static vcl_endpoint
endpoint_of (const char *address, int port)
{
  vcl_endpoint endpoint = { .port = htons (port), .is_ip4 = !strchr (address, ':') };
  if (inet_pton (endpoint.is_ip4 ? AF_INET : AF_INET6, address, endpoint.ip) != 1)
    give_up ("not an IP address: %s", address);
  return endpoint;
}

#endif
