/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking VPP over the app socket: for the application, for a worker, for a segment's descriptor. Each question has a limit.
 *
 * VCL connects, sends and waits for the answer, for ever if VPP hangs (vcl_sapi.c, vppinfra/socket.c, 26.06). Its calls of
 * the kernel are ours here (vpp_hooks.c), so that
 *
 * - each of them ends after VPP_ASK_LIMIT_S, with an error that VCL hands on. Attaching and registering are asked without the
 *   GIL; what a loop asks on its way (a new segment's descriptor, which VPP sends before it tells of it) is there already.
 * - attaching to the next VPP, which a loop does by itself and with the GIL (vpp_loss.c), takes ATTACH_AGAIN_MS at most: the
 *   connection with the question on its way is kept, VCL is told that there was no answer, and is not let near VPP until the
 *   answer has come. Then VCL asks again, finds the connection made and the question sent, and reads the answer.
 * - a worker that VPP did not give is given back without telling VPP, which would take it for worker 0.
 * - connect's EAGAIN, which is how a time limit shows, becomes ETIMEDOUT: VCL would repeat it without end.
 */
#define _GNU_SOURCE
#include "vpp_asking.h"

#include "vpp_hooks.h"
#include "vpp_spare.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/time.h>
#include <unistd.h>

#define ATTACH_AGAIN_MS 20
#define ATTACH 1 /* app_sapi_msg_type_e, a byte; the same in all releases */

static __thread int is_quiet, is_on_loop;
/* Of attaching again, which one thread does at a time, with the GIL: the connection with a question on its way, and whether
 * VCL has it now. */
static int kept = -1, kept_is_out, attaching;

void
vpp_ask_on_loop (int on)
{
  is_on_loop = on;
}

void
vpp_ask_quietly (int on)
{
  is_quiet = on;
}

int
vpp_is_answered (void)
{
  struct pollfd answer = { .fd = kept, .events = POLLIN };

  return kept < 0 || poll (&answer, 1, 0) > 0;
}

static void
limit (int fd, int limit_ms)
{
  struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };

  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof (limit));
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof (limit));
}

int
vpp_socket (int domain, int type, int protocol)
{
  int fd;

  if (domain != AF_UNIX)
    return socket (domain, type, protocol);
  if (is_on_loop && kept >= 0)
    {
      kept_is_out = 1;
      vpp_note_app_socket (kept);
      return kept;
    }
  fd = vpp_open_app_socket (domain, type, protocol);
  if (fd >= 0)
    limit (fd, is_on_loop ? ATTACH_AGAIN_MS : VPP_ASK_LIMIT_S * 1000);
  return fd;
}

int
vpp_connect (int fd, const struct sockaddr *address, socklen_t size)
{
  int rv;

  if (is_on_loop && kept_is_out && fd == kept)
    return 0;
  rv = connect (fd, address, size);
  if (rv < 0 && errno == EAGAIN)
    errno = ETIMEDOUT;
  return rv;
}

ssize_t
vpp_sendmsg (int fd, const struct msghdr *message, int flags)
{
  if (is_on_loop)
    attaching = *(const uint8_t *) message->msg_iov->iov_base == ATTACH;
  if (is_quiet || (is_on_loop && kept_is_out && fd == kept))
    return (ssize_t) message->msg_iov->iov_len; /* VCL's messages are one piece */
  if (!vpp_is_app_socket (fd))
    {
      errno = ENOTCONN; /* VCL has closed it: a farewell is not for whoever has the number now */
      return -1;
    }
  return sendmsg (fd, message, flags | MSG_NOSIGNAL);
}

ssize_t
vpp_recvmsg (int fd, struct msghdr *message, int flags)
{
  struct pollfd answer = { .fd = fd, .events = POLLIN };
  ssize_t size;

  if (!is_on_loop)
    return vpp_receive (fd, message, flags);
  limit (fd, VPP_ASK_LIMIT_S * 1000);
  if (!attaching)
    return vpp_receive (fd, message, flags);
  attaching = kept_is_out = 0;
  kept = poll (&answer, 1, ATTACH_AGAIN_MS) > 0 ? -1 : fd;
  if (kept >= 0)
    {
      errno = ETIMEDOUT;
      return -1;
    }
  size = vpp_receive (fd, message, flags);
  if (size < 0 && (errno == EMFILE || errno == ENOMEM))
    kept = fd; /* the answer waits in it */
  else if (size <= 0)
    vpp_close (fd); /* VCL makes a new one, and forgets this */
  return size;
}
