/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a session of the host stack: from socket, accept or a descriptor given to us, to close.
 */
#define _GNU_SOURCE
#include "host.h"

#include "host_address.h"
#include "host_table.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

int
host_session_create (int index, int proto, int is_ip4)
{
  worker *w;
  int rv = find_worker (index, &w);
  if (rv < 0)
    return rv;
  if (proto != VCL_PROTO_TCP && proto != VCL_PROTO_UDP)
    return -EPROTONOSUPPORT;
  int handle = host_take_slot (w);
  if (handle < 0)
    return handle;

  int type = (proto == VCL_PROTO_TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int fd = socket (is_ip4 ? AF_INET : AF_INET6, type, 0);
  if (fd < 0)
    {
      rv = -errno;
      host_give_back_slot (w, handle);
      return rv;
    }
  const int one = 1;
  if (!is_ip4)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof (one));
  if (proto == VCL_PROTO_TCP)
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof (one));
  *slot (handle) = (session){ .fd = fd, .state = VCL_NEW, .proto = proto, .is_ip4 = !!is_ip4 };
  return handle;
}

/* The kernel takes IPv4-mapped addresses on sockets without IPV6_V6ONLY, and it can be taken off until they are bound. */
static void
speak_ip4_if_mapped (const session *s, const address *a)
{
  if (!s->is_ip4 && IN6_IS_ADDR_V4MAPPED (&a->v6.sin6_addr))
    setsockopt (s->fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 0 }, sizeof (int));
}

int
host_session_bind (uint32_t handle, const vcl_endpoint *local)
{
  session *s;
  address a;
  int rv = find_session_for (handle, VCL_OP_BIND, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  int length = address_from (s, local, &a);
  if (length < 0)
    return length;
  speak_ip4_if_mapped (s, &a);
  if (bind (s->fd, &a.any, length) < 0)
    return -errno;
  s->state = VCL_BOUND;
  return is_silent (s) ? 0 : host_tell_epoll (w, s);
}

int
host_session_listen (uint32_t handle, int backlog)
{
  session *s;
  int rv = find_session_for (handle, VCL_OP_LISTEN, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (atomic_exchange (&w->busy, true))
    return -EBUSY;
  if (listen (s->fd, backlog) < 0)
    rv = -errno;
  else
    {
      s->state = VCL_LISTENING;
      rv = host_tell_epoll (w, s);
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

int
host_session_accept (uint32_t handle, vcl_endpoint *peer)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session_for (handle, VCL_OP_ACCEPT, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  /* First the slot: once accepted, a connection could only be dropped for want of one. */
  int accepted = host_take_slot (w);
  if (accepted < 0)
    return accepted;
  int fd = RETRY_ON_EINTR (accept4 (s->fd, &a.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd < 0)
    {
      host_give_back_slot (w, accepted);
      return is_lost_connection (-fd) ? -ECONNABORTED : fd;
    }
  *slot (accepted) = (session){ .fd = fd, .state = VCL_CONNECTED, .proto = VCL_PROTO_TCP, .is_ip4 = s->is_ip4 };
  address_to (&a, peer);
  return accepted;
}

/* What connect(2) could not even begin is told like what it could not finish. A TCP socket reports OUT|HUP by itself
 * then, a UDP socket once it is shut down (Linux allows that unconnected: inet_shutdown in net/ipv4/af_inet.c). */
static int
fail_connect (worker *w, session *s, int error)
{
  s->state = VCL_FAILED;
  s->error = error;
  if (s->proto == VCL_PROTO_UDP)
    shutdown (s->fd, SHUT_RDWR);
  int rv = host_tell_epoll (w, s);
  return rv < 0 ? rv : -EINPROGRESS;
}

int
host_session_connect (uint32_t handle, const vcl_endpoint *peer)
{
  session *s;
  address a;
  int rv = find_session_for (handle, VCL_OP_CONNECT, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  int length = address_from (s, peer, &a);
  if (length < 0)
    return length;
  if (s->state == VCL_NEW)
    speak_ip4_if_mapped (s, &a);
  /* Interrupted, a connect goes on by itself (connect(2)); repeated, it would say EALREADY. */
  if (connect (s->fd, &a.any, length) < 0 && errno != EINPROGRESS && errno != EINTR)
    return fail_connect (w, s, errno);
  s->state = VCL_CONNECTING;
  rv = host_tell_epoll (w, s);
  return rv < 0 ? rv : -EINPROGRESS;
}

int
host_session_connect_result (uint32_t handle, uint32_t events)
{
  session *s;
  address a;
  socklen_t length = sizeof (a), error_size = sizeof (int);
  int rv = find_session_for (handle, VCL_OP_RESULT, &s);
  if (rv < 0)
    return rv;
  if (s->state == VCL_CONNECTED)
    return 0;
  if (s->state == VCL_FAILED)
    return -s->error;
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
  s->state = error ? VCL_FAILED : VCL_CONNECTED;
  return -error;
}

int
host_session_shutdown (uint32_t handle, int how)
{
  session *s;
  int rv = find_session_for (handle, VCL_OP_SHUTDOWN, &s);
  if (rv < 0)
    return rv;
  return shutdown (s->fd, how) < 0 ? -errno : 0;
}

int
host_session_close (uint32_t handle)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (s->state == VCL_EPOLL_SET)
    w->has_epoll_set = false;
  else
    {
      /* close(2) leaves the epoll set only with the last copy of the descriptor, and a forked child may hold one: the
       * set would report the dead session for good. */
      if (s->membership == MEMBER)
	host_control_epoll (w, s, EPOLL_CTL_DEL);
      close (s->fd);
    }
  host_give_back_slot (w, handle);
  return 0;
}

int
host_session_forget (uint32_t handle)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  host_give_back_slot (owner_of (handle), handle);
  return 0;
}

int
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
  int handle = host_take_slot (w);
  if (handle < 0)
    return handle;

  /* A stream without a peer counts as connected too: its peer may have reset it on the way here, and read says so. */
  address a;
  size = sizeof (a);
  bool connected = type == SOCK_STREAM || getpeername (fd, &a.any, &size) == 0;
  *slot (handle) = (session){
    .fd = fd,
    .state = listening ? VCL_LISTENING : connected ? VCL_CONNECTED : VCL_BOUND,
    .proto = type == SOCK_STREAM ? VCL_PROTO_TCP : VCL_PROTO_UDP,
    .is_ip4 = family == AF_INET,
  };
  return handle;
}
