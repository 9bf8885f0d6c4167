/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of a session of the host stack, and questions about it.
 */
#define _GNU_SOURCE
#include "host.h"

#include "host_address.h"
#include "host_table.h"

#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* MSG_DONTWAIT although every socket is non-blocking: that flag belongs to the open file, which anyone holding
 * session_fd, or a child that inherited it, can change. */
#define RECV_FLAGS MSG_DONTWAIT
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

/* Results are ints; the kernel itself stops a page short of that. */
static inline size_t
clamped (size_t size)
{
  return size > INT_MAX ? INT_MAX : size;
}

int
host_session_read (uint32_t handle, void *buffer, size_t size)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != VCL_CONNECTED)
    return vcl_refusal (s->proto == VCL_PROTO_UDP, s->state, VCL_OP_READ);
  return RETRY_ON_EINTR (recv (s->fd, buffer, clamped (size), RECV_FLAGS));
}

int
host_session_write (uint32_t handle, const void *buffer, size_t size)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != VCL_CONNECTED)
    return vcl_refusal (s->proto == VCL_PROTO_UDP, s->state, VCL_OP_WRITE);
  return RETRY_ON_EINTR (send (s->fd, buffer, clamped (size), SEND_FLAGS));
}

int
host_session_writev (uint32_t handle, const struct iovec *pieces, int count)
{
  session *s;
  int rv = find_session (handle, &s);
  if (rv < 0)
    return rv;
  if (s->state != VCL_CONNECTED)
    return vcl_refusal (s->proto == VCL_PROTO_UDP, s->state, VCL_OP_WRITE);
  /* A count that makes no sense, negative ones included, is EMSGSIZE for the kernel. */
  const struct msghdr message = { .msg_iov = (struct iovec *) pieces, .msg_iovlen = (size_t) count };
  return RETRY_ON_EINTR (sendmsg (s->fd, &message, SEND_FLAGS));
}

int
host_session_recvfrom (uint32_t handle, void *buffer, size_t size, vcl_endpoint *from)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session_for (handle, VCL_OP_RECEIVE, &s);
  if (rv < 0)
    return rv;
  rv = RETRY_ON_EINTR (recvfrom (s->fd, buffer, clamped (size), RECV_FLAGS, &a.any, &length));
  if (rv >= 0)
    address_to (&a, from);
  return rv;
}

int
host_session_sendto (uint32_t handle, const void *buffer, size_t size, const vcl_endpoint *to)
{
  session *s;
  address a;
  int rv = find_session_for (handle, to ? VCL_OP_SEND_TO : VCL_OP_SEND, &s);
  if (rv < 0)
    return rv;
  worker *w = owner_of (handle);
  if (!to)
    return RETRY_ON_EINTR (send (s->fd, buffer, clamped (size), SEND_FLAGS));
  int length = address_from (s, to, &a);
  if (length < 0)
    return length;
  rv = RETRY_ON_EINTR (sendto (s->fd, buffer, clamped (size), SEND_FLAGS, &a.any, length));
  if (s->state == VCL_NEW && rv >= 0)
    {
      /* The kernel has chosen a port: answers may come. */
      s->state = VCL_BOUND;
      host_tell_epoll (w, s);
    }
  return rv;
}

/* ---- Questions ------------------------------------------------------------------------------------------------- */

int
host_session_readable (uint32_t handle)
{
  session *s;
  int rv = find_session_for (handle, VCL_OP_ASK, &s);
  if (rv < 0)
    return rv;
  if (s->state == VCL_LISTENING)
    {
      /* The length of the queue is not to be had, but whether it is empty. */
      struct pollfd poll_fd = { .fd = s->fd, .events = POLLIN };
      rv = RETRY_ON_EINTR (poll (&poll_fd, 1, 0));
      return rv < 0 ? rv : !!(poll_fd.revents & POLLIN);
    }
  int bytes = 0;
  return ioctl (s->fd, FIONREAD, &bytes) < 0 ? -errno : bytes;
}

int
host_session_local (uint32_t handle, vcl_endpoint *local)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session_for (handle, VCL_OP_ASK, &s);
  if (rv < 0)
    return rv;
  if (getsockname (s->fd, &a.any, &length) < 0)
    return -errno;
  address_to (&a, local);
  return 0;
}

int
host_session_peer (uint32_t handle, vcl_endpoint *peer)
{
  session *s;
  address a;
  socklen_t length = sizeof (a);
  int rv = find_session_for (handle, VCL_OP_PEER, &s);
  if (rv < 0)
    return rv;
  if (getpeername (s->fd, &a.any, &length) < 0)
    return -errno;
  address_to (&a, peer);
  return 0;
}

int
host_session_get_option (uint32_t handle, int level, int option, int *value)
{
  session *s;
  socklen_t size = sizeof (*value);
  int rv = find_session_for (handle, VCL_OP_ASK, &s);
  if (rv < 0)
    return rv;
  return getsockopt (s->fd, level, option, value, &size) < 0 ? -errno : 0;
}

int
host_session_set_option (uint32_t handle, int level, int option, int value)
{
  session *s;
  int rv = find_session_for (handle, VCL_OP_ASK, &s);
  if (rv < 0)
    return rv;
  return setsockopt (s->fd, level, option, &value, sizeof (value)) < 0 ? -errno : 0;
}

int
host_session_fd (uint32_t handle)
{
  session *s;
  int rv = find_session_for (handle, VCL_OP_ASK, &s);
  return rv < 0 ? rv : s->fd;
}
