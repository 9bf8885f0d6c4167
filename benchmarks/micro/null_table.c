/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of operations with nothing behind it: every session is readable in every turn, a read delivers
 * NULL_MESSAGE bytes and a write takes all it is offered. What is left of a message's cost is vppaio's and Python's.
 */
#define _GNU_SOURCE
#include "vcl_ops.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#define MAX_SESSIONS 4096

static struct
{
  uint64_t data;
  int readable, watched;
} sessions[MAX_SESSIONS];
static int n_sessions = 1, next_session = 1;
static uint64_t n_writes;
static size_t message = 64;

uint64_t null_writes (void) { return n_writes; }
void null_message (size_t size) { message = size; }

static int worker_register (void) { return 0; }
static int worker_unregister (int worker) { (void) worker; return 0; }
static int worker_fd (int worker) { (void) worker; return eventfd (1, EFD_NONBLOCK); } /* level-triggered: always ready */
static int worker_is_detached (int worker) { (void) worker; return 0; }
static int epoll_create_ (int worker) { (void) worker; return 0; }

static int
epoll_ctl_ (uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data)
{
  (void) vep, (void) op, (void) events;
  sessions[session].data = data;
  sessions[session].watched = 1;
  return 0;
}

static int
epoll_wait_ (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms)
{
  int n = 0;
  (void) vep;
  if (timeout_ms == VCL_WAIT_PARKED)
    return 0;
  for (int i = 1; i < n_sessions && n < max_events; i++)
    if (sessions[i].watched)
      {
	sessions[i].readable = 1;
	events[n].events = EPOLLIN;
	events[n++].data.u64 = sessions[i].data;
      }
  return n;
}

static int
session_create (int worker, int proto, int is_ip4)
{
  (void) worker, (void) proto, (void) is_ip4;
  return n_sessions < MAX_SESSIONS ? n_sessions++ : -EMFILE;
}

static int
session_read (uint32_t session, void *buffer, size_t size)
{
  if (!sessions[session].readable)
    return -EAGAIN;
  sessions[session].readable = 0;
  if (size > message)
    size = message;
  memset (buffer, 'x', size);
  return (int) size;
}

static int
session_write (uint32_t session, const void *buffer, size_t size)
{
  (void) session, (void) buffer;
  n_writes++;
  return (int) size;
}

static int
session_writev (uint32_t session, const struct iovec *pieces, int count)
{
  int total = 0;
  for (int i = 0; i < count; i++)
    total += session_write (session, pieces[i].iov_base, pieces[i].iov_len);
  return total;
}

static int shut (uint32_t session, int how) { (void) session, (void) how; return 0; }
static int session_close (uint32_t session) { sessions[session].watched = 0; return 0; }
static int session_fd (uint32_t session) { (void) session; return -1; }
static int endpoint (uint32_t session, vcl_endpoint *e) { (void) session; memset (e, 0, sizeof (*e)); return 0; }

static const vcl_ops ops = {
  .name = "null",
  .traps = VCL_TRAP_FIN_EXPIRES,
  .worker_register = worker_register,
  .worker_unregister = worker_unregister,
  .worker_fd = worker_fd,
  .worker_is_detached = worker_is_detached,
  .epoll_create = epoll_create_,
  .epoll_ctl = epoll_ctl_,
  .epoll_wait = epoll_wait_,
  .session_create = session_create,
  .session_read = session_read,
  .session_write = session_write,
  .session_writev = session_writev,
  .session_shutdown = shut,
  .session_close = session_close,
  .session_fd = session_fd,
  .session_local = endpoint,
  .session_peer = endpoint,
};

const vcl_ops *null_ops (void) { return &ops; }
