/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations filled by kernel sockets.
 *
 * Nearly every call is a look into the table of sessions and a system call. What the kernel does differently from VCL
 * is made equal here:
 *
 *   the kernel                                             what stands here
 *   a fresh TCP socket tells epoll OUT|HUP, and a fresh    the kernel's epoll hears of a session only once it listens,
 *   UDP socket OUT                                         connects, is connected or (UDP) bound: tell_epoll()
 *   connect may fail or succeed at once                    -EINPROGRESS; telling epoll after the connect raises the
 *                                                          event, so nothing is ever parked in user space
 *   sends and receives answer EAGAIN or EPIPE before the   -ENOTCONN until session_connect_result has said 0
 *   connection stands
 *   :: may serve IPv4 too, with mapped addresses           IPV6_V6ONLY on every IPv6 socket
 *   Nagle's algorithm                                      off: VPP has none, and asyncio switches it off anyway;
 *                                                          accepted sockets inherit it, one system call saved on each
 *   accept(2) reports errors of the new connection         -ECONNABORTED
 *   a write to a closed connection raises SIGPIPE          MSG_NOSIGNAL
 *
 * A worker's epoll instance is its worker_fd: the kernel keeps an epoll descriptor readable, level-triggered, while
 * edge-triggered events wait in it.
 */
#define _GNU_SOURCE
#include "vcl_ops.h"

#include "host_table.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* MSG_DONTWAIT although every socket is non-blocking: that flag belongs to the open file, which anyone holding
 * session_fd, or a child that inherited it, can change. */
#define RECV_FLAGS MSG_DONTWAIT
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

#define RETRY_ON_EINTR(call)                                                                                           \
  ({                                                                                                                   \
    ssize_t rv_;                                                                                                       \
    do                                                                                                                 \
      rv_ = (call);                                                                                                    \
    while (__builtin_expect (rv_ < 0 && errno == EINTR, 0));                                                           \
    rv_ < 0 ? -errno : (int) rv_;                                                                                      \
  })

/* ---- Addresses ------------------------------------------------------------------------------------------------- */

typedef union
{
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} address;

/* Length, or -errno. */
static int
address_from (const session *s, const vcl_endpoint *endpoint, address *a)
{
  if (!endpoint)
    return -EFAULT;
  if (!endpoint->is_ip4 != !s->is_ip4)
    return -EAFNOSUPPORT;
  if (endpoint->is_ip4)
    {
      a->v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = endpoint->port };
      memcpy (&a->v4.sin_addr, endpoint->ip, sizeof (a->v4.sin_addr));
      return sizeof (a->v4);
    }
  a->v6 = (struct sockaddr_in6){
    .sin6_family = AF_INET6,
    .sin6_port = endpoint->port,
    .sin6_scope_id = endpoint->scope_id,
  };
  memcpy (&a->v6.sin6_addr, endpoint->ip, sizeof (a->v6.sin6_addr));
  return sizeof (a->v6);
}

static void
address_to (const address *a, vcl_endpoint *endpoint)
{
  if (!endpoint)
    return;
  *endpoint = (vcl_endpoint){ 0 };
  if (a->any.sa_family == AF_INET)
    {
      endpoint->is_ip4 = 1;
      endpoint->port = a->v4.sin_port;
      memcpy (endpoint->ip, &a->v4.sin_addr, sizeof (a->v4.sin_addr));
    }
  else if (a->any.sa_family == AF_INET6)
    {
      endpoint->port = a->v6.sin6_port;
      endpoint->scope_id = a->v6.sin6_scope_id;
      memcpy (endpoint->ip, &a->v6.sin6_addr, sizeof (a->v6.sin6_addr));
    }
}

/* ---- Workers --------------------------------------------------------------------------------------------------- */

static int
host_worker_register (void)
{
  for (int index = 0; index < MAX_WORKERS; index++)
    {
      worker *w = worker_at (index);
      if (!w)
	return -ENOMEM;
      /* Workers are per thread and threads may start at once; on a free-threaded Python no GIL is in between. */
      if (atomic_exchange (&w->taken, true))
	continue;
      int fd = epoll_create1 (EPOLL_CLOEXEC);
      if (fd < 0)
	{
	  int error = errno;
	  atomic_store (&w->taken, false);
	  return -error;
	}
      w->epoll_fd = fd;
      return index;
    }
  return -EMFILE;
}

static int
host_worker_unregister (int index)
{
  worker *w;
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  for (uint32_t i = 0; i < w->used; i++)
    if (slot (w, i)->state != FREE && slot (w, i)->state != EPOLL_SET)
      close (slot (w, i)->fd);
  close (w->epoll_fd);
  free_slots (w);
  atomic_store (&w->taken, false);
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
static int
control_epoll (worker *w, session *s, int op)
{
  struct epoll_event event = { .events = s->events | EPOLLET, .data.u64 = s->data };
  return epoll_ctl (w->epoll_fd, op, s->fd, &event) < 0 ? -errno : 0;
}

/* Called when the session has begun to say true things to epoll. For one that has long been there (a bound UDP session
 * that connects) MOD makes the kernel report again what holds now. */
static int
tell_epoll (worker *w, session *s)
{
  if (s->membership == NOT_MEMBER)
    return 0;
  int rv = control_epoll (w, s, s->membership == MEMBER ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
  if (rv == 0)
    s->membership = MEMBER;
  return rv;
}

static bool
is_silent (const session *s)
{
  return s->state == NEW || (s->state == BOUND && s->proto == VCL_PROTO_TCP);
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
  rv = take_slot (w);
  if (rv < 0)
    return rv;
  *slot (w, rv) = (session){ .fd = -1, .state = EPOLL_SET };
  w->has_epoll_set = true;
  return handle_of (index, rv);
}

static int
host_epoll_ctl (uint32_t vep, int op, uint32_t handle, uint32_t events, uint64_t data)
{
  session *set, *s;
  int rv = find_session (vep, &set);
  if (rv < 0 || (rv = find_session (handle, &s)) < 0)
    return rv;
  worker *w = owner_of (vep);
  if (set->state != EPOLL_SET || s->state == EPOLL_SET || owner_of (handle) != w)
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
      rv = s->membership == MEMBER ? control_epoll (w, s, EPOLL_CTL_DEL) : 0;
      s->membership = NOT_MEMBER;
      return rv;
    default:
      return -EINVAL;
    }
  s->events = events;
  s->data = data;
  if (!was_member)
    s->membership = WAITING;
  rv = is_silent (s) ? 0 : tell_epoll (w, s);
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
  if (set->state != EPOLL_SET || max_events <= 0)
    return -EINVAL;
  if (timeout_ms == VCL_WAIT_PARKED)
    return 0;
  if (timeout_ms != VCL_WAIT_NOW)
    return -EINVAL;
  return RETRY_ON_EINTR (epoll_wait (owner_of (vep)->epoll_fd, events, max_events, 0));
}

/* ---- Life of a session ----------------------------------------------------------------------------------------- */

static int
host_session_create (int index, int proto, int is_ip4)
{
  worker *w;
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  if (proto != VCL_PROTO_TCP && proto != VCL_PROTO_UDP)
    return -EPROTONOSUPPORT;
  int slot_index = take_slot (w);
  if (slot_index < 0)
    return slot_index;

  int type = (proto == VCL_PROTO_TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int fd = socket (is_ip4 ? AF_INET : AF_INET6, type, 0);
  if (fd < 0)
    {
      rv = -errno;
      give_back_slot (w, slot_index);
      return rv;
    }
  const int one = 1;
  if (!is_ip4)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof (one));
  if (proto == VCL_PROTO_TCP)
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof (one));
  *slot (w, slot_index) = (session){ .fd = fd, .state = NEW, .proto = proto, .is_ip4 = !!is_ip4 };
  return handle_of (index, slot_index);
}

static int
host_session_bind (uint32_t handle, const vcl_endpoint *local)
{
  session *s;
  address a;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->state != NEW)
    return -EINVAL;
  int length = address_from (s, local, &a);
  if (length < 0)
    return length;
  if (bind (s->fd, &a.any, length) < 0)
    return -errno;
  s->state = BOUND;
  return is_silent (s) ? 0 : tell_epoll (w, s);
}

static int
host_session_listen (uint32_t handle, int backlog)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (atomic_exchange (&w->busy, true))
    return -EBUSY;
  if (s->state != NEW && s->state != BOUND && s->state != LISTENING)
    rv = -EINVAL;
  else if (listen (s->fd, backlog) < 0)
    rv = -errno;
  else
    {
      s->state = LISTENING;
      rv = tell_epoll (w, s);
    }
  atomic_store_explicit (&w->busy, false, memory_order_release);
  return rv;
}

/* accept(2): errors that are the new connection's own and not the listener's. */
static bool
is_lost_connection (int error)
{
  switch (error)
    {
    case ECONNABORTED:
    case EPERM: /* a firewall rule forbids it */
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
      return true;
    default:
      return false;
    }
}

static int
host_session_accept (uint32_t handle, vcl_endpoint *peer)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->state != LISTENING)
    return -EINVAL;
  /* First the slot: once accepted, a connection could only be dropped for want of one. */
  int index = take_slot (w);
  if (index < 0)
    return index;
  int fd = RETRY_ON_EINTR (accept4 (s->fd, &a.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd < 0)
    {
      give_back_slot (w, index);
      return is_lost_connection (-fd) ? -ECONNABORTED : fd;
    }
  *slot (w, index) = (session){ .fd = fd, .state = CONNECTED, .proto = VCL_PROTO_TCP, .is_ip4 = s->is_ip4 };
  address_to (&a, peer);
  return handle_of (handle / MAX_SESSIONS, index);
}

/* What connect(2) could not even begin is told like what it could not finish. A TCP socket reports OUT|HUP by itself
 * then, a UDP socket once it is shut down (Linux allows that unconnected: inet_shutdown in net/ipv4/af_inet.c). */
static int
fail_connect (worker *w, session *s, int error)
{
  s->state = FAILED;
  s->error = error;
  if (s->proto == VCL_PROTO_UDP)
    shutdown (s->fd, SHUT_RDWR);
  int rv = tell_epoll (w, s);
  return rv < 0 ? rv : -EINPROGRESS;
}

static int
host_session_connect (uint32_t handle, const vcl_endpoint *peer)
{
  session *s;
  address a;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->state == CONNECTING)
    return -EALREADY;
  if (s->state == CONNECTED)
    return -EISCONN;
  if (s->state != NEW && s->state != BOUND)
    return -EINVAL;
  int length = address_from (s, peer, &a);
  if (length < 0)
    return length;
  /* Interrupted, a connect goes on by itself (connect(2)); repeated, it would say EALREADY. */
  if (connect (s->fd, &a.any, length) < 0 && errno != EINPROGRESS && errno != EINTR)
    return fail_connect (w, s, errno);
  s->state = CONNECTING;
  rv = tell_epoll (w, s);
  return rv < 0 ? rv : -EINPROGRESS;
}

static int
host_session_connect_result (uint32_t handle, uint32_t events)
{
  session *s;
  address a;
  socklen_t length = sizeof (a), error_size = sizeof (int);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state == CONNECTED)
    return 0;
  if (s->state == FAILED)
    return -s->error;
  if (s->state != CONNECTING)
    return -ENOTCONN;
  if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
    return -EINPROGRESS;

  int error = 0;
  if (getsockopt (s->fd, SOL_SOCKET, SO_ERROR, &error, &error_size) < 0)
    error = errno;
  else if (error == 0 && getpeername (s->fd, &a.any, &length) < 0)
    {
      /* No peer: still under way, and the event was another session's that had this handle before; or it is over and
       * someone has fetched SO_ERROR already. The kernel tells HUP only in the second case. */
      if (!(events & EPOLLHUP))
	return -EINPROGRESS;
      error = EFAULT;
    }
  s->error = error;
  s->state = error ? FAILED : CONNECTED;
  return -error;
}

static int
host_session_shutdown (uint32_t handle, int how)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  return shutdown (s->fd, how) < 0 ? -errno : 0;
}

static int
host_session_close (uint32_t handle)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->state == EPOLL_SET)
    w->has_epoll_set = false;
  else
    {
      /* close(2) leaves the epoll set only with the last copy of the descriptor, and a forked child may hold one: the
       * set would report the dead session for good. */
      if (s->membership == MEMBER)
	control_epoll (w, s, EPOLL_CTL_DEL);
      close (s->fd);
    }
  give_back_slot (w, handle % MAX_SESSIONS);
  return 0;
}

/* ---- Bytes ----------------------------------------------------------------------------------------------------- */

/* Results are ints; the kernel itself stops a page short of that. */
static inline size_t
clamped (size_t size)
{
  return size > INT_MAX ? INT_MAX : size;
}

static int
host_session_read (uint32_t handle, void *buffer, size_t size)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != CONNECTED)
    return -ENOTCONN;
  return RETRY_ON_EINTR (recv (s->fd, buffer, clamped (size), RECV_FLAGS));
}

static int
host_session_write (uint32_t handle, const void *buffer, size_t size)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != CONNECTED)
    return -ENOTCONN;
  return RETRY_ON_EINTR (send (s->fd, buffer, clamped (size), SEND_FLAGS));
}

static int
host_session_writev (uint32_t handle, const struct iovec *pieces, int count)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != CONNECTED)
    return -ENOTCONN;
  /* A count that makes no sense, negative ones included, is EMSGSIZE for the kernel. */
  const struct msghdr message = { .msg_iov = (struct iovec *) pieces, .msg_iovlen = (size_t) count };
  return RETRY_ON_EINTR (sendmsg (s->fd, &message, SEND_FLAGS));
}

static int
host_session_recvfrom (uint32_t handle, void *buffer, size_t size, vcl_endpoint *from)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->proto != VCL_PROTO_UDP || s->state == EPOLL_SET)
    return -EOPNOTSUPP;
  rv = RETRY_ON_EINTR (recvfrom (s->fd, buffer, clamped (size), RECV_FLAGS, &a.any, &length));
  if (rv >= 0)
    address_to (&a, from);
  return rv;
}

static int
host_session_sendto (uint32_t handle, const void *buffer, size_t size, const vcl_endpoint *to)
{
  session *s;
  address a;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->proto != VCL_PROTO_UDP || s->state == EPOLL_SET)
    return -EOPNOTSUPP;
  if (!to)
    return RETRY_ON_EINTR (send (s->fd, buffer, clamped (size), SEND_FLAGS));
  if (s->state == CONNECTED || s->state == CONNECTING)
    return -EISCONN;
  int length = address_from (s, to, &a);
  if (length < 0)
    return length;
  rv = RETRY_ON_EINTR (sendto (s->fd, buffer, clamped (size), SEND_FLAGS, &a.any, length));
  if (s->state == NEW && rv >= 0)
    {
      /* The kernel has chosen a port: answers may come. */
      s->state = BOUND;
      tell_epoll (w, s);
    }
  return rv;
}

/* ---- Questions ------------------------------------------------------------------------------------------------- */

static int
host_session_readable (uint32_t handle)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state == LISTENING)
    {
      /* The length of the queue is not to be had, but whether it is empty. */
      struct pollfd poll_fd = { .fd = s->fd, .events = POLLIN };
      rv = RETRY_ON_EINTR (poll (&poll_fd, 1, 0));
      return rv < 0 ? rv : !!(poll_fd.revents & POLLIN);
    }
  int bytes = 0;
  return ioctl (s->fd, FIONREAD, &bytes) < 0 ? -errno : bytes;
}

static int
host_session_local (uint32_t handle, vcl_endpoint *local)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (getsockname (s->fd, &a.any, &length) < 0)
    return -errno;
  address_to (&a, local);
  return 0;
}

static int
host_session_peer (uint32_t handle, vcl_endpoint *peer)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (getpeername (s->fd, &a.any, &length) < 0)
    return -errno;
  address_to (&a, peer);
  return 0;
}

static int
host_session_get_option (uint32_t handle, int level, int option, int *value)
{
  session *s;
  socklen_t size = sizeof (*value);
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  return getsockopt (s->fd, level, option, value, &size) < 0 ? -errno : 0;
}

static int
host_session_set_option (uint32_t handle, int level, int option, int value)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  return setsockopt (s->fd, level, option, &value, sizeof (value)) < 0 ? -errno : 0;
}

static int
host_session_fd (uint32_t handle)
{
  session *s;
  int rv = find_session (handle, &s);
  return rv < 0 ? rv : s->fd;
}

static int
host_session_adopt (int index, int fd)
{
  worker *w;
  int family, type, listening = 0;
  socklen_t size = sizeof (int);
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  if (getsockopt (fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0
      || getsockopt (fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0
      || getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
    return -errno;
  if (family != AF_INET && family != AF_INET6)
    return -EAFNOSUPPORT;
  if (type != SOCK_STREAM && type != SOCK_DGRAM)
    return -EPROTONOSUPPORT;
  int flags = fcntl (fd, F_GETFL);
  if (flags < 0 || fcntl (fd, F_SETFL, flags | O_NONBLOCK) < 0)
    return -errno;
  int slot_index = take_slot (w);
  if (slot_index < 0)
    return slot_index;

  /* A stream without a peer counts as connected too: its peer may have reset it on the way here, and read says so. */
  address a;
  size = sizeof (a);
  bool connected = type == SOCK_STREAM || getpeername (fd, &a.any, &size) == 0;
  *slot (w, slot_index) = (session){
    .fd = fd,
    .state = listening ? LISTENING : connected ? CONNECTED : BOUND,
    .proto = type == SOCK_STREAM ? VCL_PROTO_TCP : VCL_PROTO_UDP,
    .is_ip4 = family == AF_INET,
  };
  return handle_of (index, slot_index);
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
};

const vcl_ops *
vppaio_host_ops (void)
{
  return &host_ops;
}
