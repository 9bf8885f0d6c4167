/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations filled by kernel sockets.
 *
 * Nearly every call is a look into the table of sessions and a system call. What the kernel does differently from VCL
 * is made equal here:
 *
 *   the kernel                                             what stands here
 *   a fresh TCP socket tells epoll OUT|HUP, and a fresh    the kernel's epoll hears of a session only once it listens,
 *   UDP socket OUT                                         connects, is connected or (UDP) bound: host_tell_epoll()
 *   connect may fail or succeed at once                    -EINPROGRESS; telling epoll after the connect raises the
 *                                                          event, so nothing is ever parked in user space
 *   sends and receives answer EAGAIN or EPIPE before the   -ENOTCONN until session_connect_result has said 0
 *   connection stands
 *   :: may serve IPv4 too, with mapped addresses           IPV6_V6ONLY on every IPv6 socket, until one is given a
 *                                                          mapped address
 *   Nagle's algorithm                                      off: VPP has none, and asyncio switches it off anyway;
 *                                                          accepted sockets inherit it, one system call saved on each
 *   accept(2) reports errors of the new connection         -ECONNABORTED
 *   a write to a closed connection raises SIGPIPE          MSG_NOSIGNAL
 *
 * A worker's epoll instance is its worker_fd: the kernel keeps an epoll descriptor readable, level-triggered, while
 * edge-triggered events wait in it.
 */
#define _GNU_SOURCE
#include "host.h"

#include "host_table.h"

#include <unistd.h>

/* ---- Workers --------------------------------------------------------------------------------------------------- */

static int
host_worker_register (void)
{
  int fd = epoll_create1 (EPOLL_CLOEXEC);
  if (fd < 0)
    return -errno;
  int index = host_take_worker ();
  if (index < 0)
    close (fd);
  else
    host_chunks[index]->self.epoll_fd = fd;
  return index;
}

static int
host_worker_unregister (int index)
{
  worker *w;
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  for (chunk *c = w->newest; c; c = c->older)
    for (int i = 0; i < CHUNK_SESSIONS; i++)
      if (c->sessions[i].state != VCL_FREE && c->sessions[i].state != VCL_EPOLL_SET)
	close (c->sessions[i].fd);
  close (w->epoll_fd);
  host_give_back_worker (w);
  return 0;
}

static int
host_worker_fd (int index)
{
  worker *w;
  int rv = find_worker (index, &w);
  return rv < 0 ? rv : w->epoll_fd;
}

static int
host_worker_is_detached (int index)
{
  worker *w;
  return find_worker (index, &w);
}

/* ---- Readiness ------------------------------------------------------------------------------------------------- */

/* The caller's `data` and `events` go into the kernel as they are, so that epoll_wait has nothing to translate. */
int
host_control_epoll (worker *w, session *s, int op)
{
  struct epoll_event event = { .events = s->events | EPOLLET, .data.u64 = s->data };
  return epoll_ctl (w->epoll_fd, op, s->fd, &event) < 0 ? -errno : 0;
}

/* Called when the session has begun to say true things to epoll. For one that has long been there (a bound UDP session
 * that connects) MOD makes the kernel report again what holds now. */
int
host_tell_epoll (worker *w, session *s)
{
  if (s->membership == NOT_MEMBER)
    return 0;
  int rv = host_control_epoll (w, s, s->membership == MEMBER ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
  if (rv == 0)
    s->membership = MEMBER;
  return rv;
}

static int
host_epoll_create (int index)
{
  worker *w;
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  if (w->has_epoll_set)
    return -EEXIST;
  rv = host_take_slot (w);
  if (rv < 0)
    return rv;
  *slot (rv) = (session){ .fd = -1, .state = VCL_EPOLL_SET };
  w->has_epoll_set = true;
  return rv;
}

static int
host_epoll_ctl (uint32_t vep, int op, uint32_t handle, uint32_t events, uint64_t data)
{
  session *set, *s;
  int rv = find_session (vep, &set);
  if (rv < 0 || (rv = find_session (handle, &s)) < 0)
    return rv;
  worker *w = owner_of (vep);
  if (set->state != VCL_EPOLL_SET || s->state == VCL_EPOLL_SET || owner_of (handle) != w)
    return -EINVAL;

  bool was_member = s->membership != NOT_MEMBER;
  switch (op)
    {
    case EPOLL_CTL_ADD:
      if (was_member)
	return -EEXIST;
      break;
    case EPOLL_CTL_MOD:
      if (!was_member)
	return -ENOENT;
      break;
    case EPOLL_CTL_DEL:
      if (!was_member)
	return -ENOENT;
      rv = s->membership == MEMBER ? host_control_epoll (w, s, EPOLL_CTL_DEL) : 0;
      s->membership = NOT_MEMBER;
      return rv;
    default:
      return -EINVAL;
    }
  s->events = events;
  s->data = data;
  if (!was_member)
    s->membership = WAITING;
  rv = is_silent (s) ? 0 : host_tell_epoll (w, s);
  if (rv < 0 && !was_member)
    s->membership = NOT_MEMBER;
  return rv;
}

static int
host_epoll_wait (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms)
{
  session *set;
  int rv = find_session (vep, &set);
  if (rv < 0)
    return rv;
  if (set->state != VCL_EPOLL_SET || max_events <= 0)
    return -EINVAL;
  if (timeout_ms == VCL_WAIT_PARKED)
    return 0;
  if (timeout_ms != VCL_WAIT_NOW)
    return -EINVAL;
  return RETRY_ON_EINTR (epoll_wait (owner_of (vep)->epoll_fd, events, max_events, 0));
}

static const vcl_ops host_ops = {
  .name = "host",
  .traps = 0,
  .worker_register = host_worker_register,
  .worker_unregister = host_worker_unregister,
  .worker_fd = host_worker_fd,
  .worker_is_detached = host_worker_is_detached,
  .epoll_create = host_epoll_create,
  .epoll_ctl = host_epoll_ctl,
  .epoll_wait = host_epoll_wait,
  .session_create = host_session_create,
  .session_bind = host_session_bind,
  .session_listen = host_session_listen,
  .session_accept = host_session_accept,
  .session_connect = host_session_connect,
  .session_connect_result = host_session_connect_result,
  .session_read = host_session_read,
  .session_write = host_session_write,
  .session_writev = host_session_writev,
  .session_recvfrom = host_session_recvfrom,
  .session_sendto = host_session_sendto,
  .session_shutdown = host_session_shutdown,
  .session_close = host_session_close,
  .session_readable = host_session_readable,
  .session_local = host_session_local,
  .session_peer = host_session_peer,
  .session_get_option = host_session_get_option,
  .session_set_option = host_session_set_option,
  .session_fd = host_session_fd,
  .session_adopt = host_session_adopt,
  .session_forget = host_session_forget,
};

const vcl_ops *
vppaio_host_ops (void)
{
  return &host_ops;
}
