/* SPDX-License-Identifier: Apache-2.0
 *
 * VCL's descriptors: how it opens and closes them, and waits for them.
 *
 * Its calls of the kernel for that come here (vpp_hooks.c). What it opens is close-on-exec from birth, none of 0, 1 and 2
 * (which VCL takes for none, or writes its messages to), and out of the reserve where there is no other (vpp_spare.c). Where
 * VCL ends the process if a call fails (vcl_private.c: vcl_worker_detached_start_signal_mq, 26.06), none does.
 */
#define _GNU_SOURCE
#include "vpp_hooks.h"
#include "vpp_spare.h"
#include "vpp_worker.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* By worker, one more than the number; and the same when VCL has closed it, for VCL uses it once more when it takes leave. */
static int app_sockets[MAX_WORKERS], closed_sockets[MAX_WORKERS];

static int
current_worker (void)
{
  int index = vcl.worker_index ();

  return index >= 0 && index < MAX_WORKERS ? index : 0;
}

/* ---- app sockets ------------------------------------------------------------------------------------------------- */

void
vpp_note_app_socket (int fd)
{
  int index = current_worker ();

  app_sockets[index] = fd + 1;
  closed_sockets[index] = 0;
}

int
vpp_is_app_socket (int fd)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (fd >= 0 && app_sockets[i] == fd + 1)
      return 1;
  return 0;
}

static int
has_none (void)
{
  return errno == EMFILE || errno == ENFILE;
}

int
vpp_open_app_socket (int domain, int type, int protocol)
{
  int fd = socket (domain, type | SOCK_CLOEXEC, protocol);

  if (fd < 0 && has_none () && vpp_spare_lend (1))
    fd = socket (domain, type | SOCK_CLOEXEC, protocol);
  fd = vpp_above_standard (fd);
  vpp_spare_refill ();
  vpp_note_app_socket (fd);
  return fd;
}

/* When VPP dies VCL closes the app socket, and counts on the kernel to take it out of the worker's epoll set, which the
 * kernel does with the last descriptor for it. Somebody else may have one, such as a child. */
int
vpp_close (int fd)
{
  int index = current_worker ();

  if (vpp_is_segment_number (fd))
    {
      vpp_segment_close (fd);
      return 0;
    }
  if (fd >= 0 && closed_sockets[index] == fd + 1)
    return 0;
  if (vcl.worker_index () >= 0)
    epoll_ctl (vcl.worker_mqs_epfd (), EPOLL_CTL_DEL, fd, 0);
  if (fd >= 0 && app_sockets[index] == fd + 1)
    {
      vpp_drop_fetched (fd);
      app_sockets[index] = 0;
      closed_sockets[index] = fd + 1;
    }
  vpp_spare_keep (fd);
  return 0;
}

/* ---- the worker's epoll set -------------------------------------------------------------------------------------- */

int
vpp_epoll_create1 (int flags)
{
  int fd = epoll_create1 (flags | EPOLL_CLOEXEC);

  if (fd < 0 && has_none () && vpp_spare_lend (1))
    fd = epoll_create1 (flags | EPOLL_CLOEXEC);
  fd = vpp_above_standard (fd);
  vpp_spare_refill ();
  return fd;
}

/* VCL wants something that is readable while VPP is away. It writes and reads a byte to make it so, which an eventfd refuses,
 * and does not look. One is enough for all workers. */
int
vpp_pipe (int fds[2])
{
  if (vpp_always_readable () < 0)
    return pipe2 (fds, O_CLOEXEC);
  fds[0] = fds[1] = vpp_always_readable ();
  return 0;
}

int
vpp_epoll_ctl_of_vcl (int epfd, int op, int fd, struct epoll_event *event)
{
  struct epoll_event changed;
  int rv;

  if (vpp_hooks_are_whole && op == EPOLL_CTL_ADD && event && !event->events && vpp_is_app_socket (fd))
    {
      changed = *event; /* VCL wants to hear of its end only */
      changed.events = EPOLLIN;
      event = &changed;
    }
  rv = epoll_ctl (epfd, op, fd, event);
  return fd >= 0 && fd == vpp_always_readable () ? 0 : rv;
}

/* VCL takes leave of VPP when it reads of the end of its app socket, and frees the queues. What is named behind it in the same
 * list would be read from freed memory (vppcom.c: vppcom_epoll_wait_eventfd, 26.06). So the end comes alone. */
static int
only_the_end (struct epoll_event *events, int n)
{
  int i;

  for (i = 0; i < n; i++)
    if (events[i].data.u32 == UINT32_MAX)
      {
	events[0] = events[i];
	return 1;
      }
  return n;
}

int
vpp_epoll_wait_of_vcl (int epfd, struct epoll_event *events, int size, int timeout_ms)
{
  int n = epoll_wait (epfd, events, size, timeout_ms);

  if (n > 0 && vpp_hooks_are_whole)
    n = vpp_look_at_socket (app_sockets[current_worker ()] - 1, events, n);
  return n > 0 ? only_the_end (events, n) : n;
}

/* ---- segments and memory ----------------------------------------------------------------------------------------- */

int
vpp_fstat (int fd, struct stat *status)
{
  return vpp_is_segment_number (fd) ? vpp_segment_status (fd, status, sizeof (*status)) : fstat (fd, status);
}

int
vpp_fxstat (int version, int fd, struct stat *status)
{
  (void) version;
  return vpp_fstat (fd, status);
}

void *
vpp_mmap (void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
  return vpp_is_segment_number (fd) ? vpp_segment_map (fd, address, size, flags)
				    : mmap (address, size, protection, flags, fd, offset);
}

int
vpp_munmap (void *address, size_t size)
{
  return vpp_segment_unmap (address, size) ? 0 : munmap (address, size);
}
