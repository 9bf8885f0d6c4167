/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations filled from the installed libvppcom.
 *
 * The library is loaded at run time, so that one build serves every VPP release from 21.10 on: the functions used here
 * have kept their signatures since then, attribute numbers too, and vppcom_endpt_t its first 24 bytes. Newer
 * functions are optional.
 *
 * This file flattens, forwards and guards. libvppcom takes the process down when it is called in a wrong state; each
 * such state is refused or defused here, and nowhere else:
 *
 *   trap                                              what VCL does           what stands here
 *   a call before attach, after a failed one          SIGSEGV                 enter(): -ENOTCONN
 *   a call on a thread without a worker               SIGSEGV                 enter() sets the handle's worker
 *   a handle of another worker                        wrong session           enter() sets the handle's worker
 *   a second vppcom_app_create                        corrupts its state      attach(): -EALREADY
 *   accept, connect, listen, UDP bind while detached  SIGSEGV                 require_vpp(): -ENETDOWN
 *   accept on a listener that outlived its VPP        SIGSEGV                 session_accept(): -EBADF
 *   accept on an empty queue                          swallows events         session_accept(): -EAGAIN
 *   closing a session after VPP died, then epoll_wait SIGSEGV                 drain_parked()
 *   closing a listener with queued connections        SIGSEGV                 session_close() accepts and closes them
 *   listen or UDP bind soon after closing a listener  SIGSEGV                 settle_closed_listeners()
 *   exit() in a forked child                          deletes parent's worker vppaio_vpp_forked()
 *   exit() with another thread's worker               SIGSEGV                 at_exit()
 *   exit() while app_create waits for a hung VPP      SIGSEGV                 vppaio_vpp_give_up()
 *
 * See "vppcom.c" in the comments below: src/vcl/vppcom.c of VPP 26.06.
 */
#define _GNU_SOURCE
#include "libvppcom.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- libvppcom's side ------------------------------------------------------------------------------------------ */

/* vppcom_endpt_t grew from 32 to 48 bytes over the releases; what we use lies where it always lay, and the rest is to
 * be zero. */
typedef struct
{
  uint8_t unused;
  uint8_t is_ip4;
  uint8_t *ip;
  uint16_t port;
  uint8_t grown[44];
} vppcom_endpt;

enum /* vppcom_attr_op_t; numbers unchanged since 21.10 */
{
  ATTR_GET_NREAD = 0,
  ATTR_GET_LCL_ADDR = 4,
  ATTR_GET_PEER_ADDR = 6,
  ATTR_GET_PROTOCOL = 9,
  ATTR_GET_TX_FIFO_LEN = 12,
  ATTR_GET_RX_FIFO_LEN = 14,
  ATTR_GET_REUSEADDR = 16,
  ATTR_GET_REUSEPORT = 18,
  ATTR_GET_BROADCAST = 20,
  ATTR_GET_V6ONLY = 22,
  ATTR_GET_KEEPALIVE = 24,
  ATTR_GET_TCP_NODELAY = 26,
  ATTR_GET_TCP_KEEPIDLE = 28,
  ATTR_GET_TCP_KEEPINTVL = 30,
};

static struct
{
  int (*app_create) (const char *name);
  int (*worker_register) (void);
  void (*worker_unregister) (void);
  int (*worker_index) (void);
  void (*worker_index_set) (int index);
  int (*worker_mqs_epfd) (void);
  int (*worker_is_detached) (void); /* 23.02 */
  int (*epoll_create) (void);
  int (*epoll_ctl) (uint32_t vep, int op, uint32_t session, struct epoll_event *event);
  int (*epoll_wait) (uint32_t vep, struct epoll_event *events, int max_events, double timeout_ms);
  int (*session_create) (uint8_t proto, uint8_t is_nonblocking);
  int (*session_bind) (uint32_t session, vppcom_endpt *endpoint);
  int (*session_listen) (uint32_t session, uint32_t backlog);
  int (*session_accept) (uint32_t session, vppcom_endpt *peer, uint32_t flags);
  int (*session_connect) (uint32_t session, vppcom_endpt *peer);
  int (*session_get_error) (uint32_t session); /* 22.10 */
  int (*session_read) (uint32_t session, void *buffer, size_t size);
  int (*session_write) (uint32_t session, void *buffer, size_t size);
  int (*session_recvfrom) (uint32_t session, void *buffer, uint32_t size, int flags, vppcom_endpt *from);
  int (*session_sendto) (uint32_t session, void *buffer, uint32_t size, int flags, vppcom_endpt *to);
  int (*session_shutdown) (uint32_t session, int how);
  int (*session_close) (uint32_t session);
  int (*session_attr) (uint32_t session, uint32_t op, void *buffer, uint32_t *size);
} vcl;

static const struct
{
  const char *name;
  void *slot;
  int optional;
} symbols[] = {
  { "vppcom_app_create", &vcl.app_create, 0 },
  { "vppcom_worker_register", &vcl.worker_register, 0 },
  { "vppcom_worker_unregister", &vcl.worker_unregister, 0 },
  { "vppcom_worker_index", &vcl.worker_index, 0 },
  { "vppcom_worker_index_set", &vcl.worker_index_set, 0 },
  { "vppcom_worker_mqs_epfd", &vcl.worker_mqs_epfd, 0 },
  { "vppcom_worker_is_detached", &vcl.worker_is_detached, 1 },
  { "vppcom_epoll_create", &vcl.epoll_create, 0 },
  { "vppcom_epoll_ctl", &vcl.epoll_ctl, 0 },
  { "vppcom_epoll_wait", &vcl.epoll_wait, 0 },
  { "vppcom_session_create", &vcl.session_create, 0 },
  { "vppcom_session_bind", &vcl.session_bind, 0 },
  { "vppcom_session_listen", &vcl.session_listen, 0 },
  { "vppcom_session_accept", &vcl.session_accept, 0 },
  { "vppcom_session_connect", &vcl.session_connect, 0 },
  { "vppcom_session_get_error", &vcl.session_get_error, 1 },
  { "vppcom_session_read", &vcl.session_read, 0 },
  { "vppcom_session_write", &vcl.session_write, 0 },
  { "vppcom_session_recvfrom", &vcl.session_recvfrom, 0 },
  { "vppcom_session_sendto", &vcl.session_sendto, 0 },
  { "vppcom_session_shutdown", &vcl.session_shutdown, 0 },
  { "vppcom_session_close", &vcl.session_close, 0 },
  { "vppcom_session_attr", &vcl.session_attr, 0 },
};

/* ---- our side -------------------------------------------------------------------------------------------------- */

#define MAX_WORKERS 128 /* a handle has its worker in the top byte and must stay a positive int */
#define SESSION_INDEX(handle) ((handle) &0xffffff)
#define HANDLE_WORKER(handle) ((int) ((handle) >> 24))

enum
{
  IS_LISTENER = 1,
  IS_DATAGRAM = 2,
};

typedef struct
{
  int registered;
  int busy;       /* session_listen is under way without the GIL */
  uint32_t epoch; /* counts the times VPP was lost */
  int was_detached;
  uint32_t vep;
  int has_vep;
  /* By session index: what VCL does not tell, and the epoch in which a listener began to listen. */
  struct
  {
    uint32_t epoch;
    uint8_t kind;
  } *sessions;
  uint32_t n_sessions;
  /* Listeners whose unlisten VPP has not confirmed yet. */
  uint32_t *closing;
  int n_closing, room_closing;
  /* Events that settle_closed_listeners() had to take out of VCL; epoll_wait hands them out first. */
  struct epoll_event *parked;
  int n_parked, room_parked;
} worker_t;

static worker_t workers[MAX_WORKERS];
static char release[32], library_path[PATH_MAX];
static void *library;
static int attached, tried, forked, given_up, last_signal;
static struct timespec last_accept;
static pid_t owner;
static __thread int current = -1;

/* A handle's worker becomes the calling thread's: VCL finds its worker in a thread-local index and does not look at the
 * handle's worker bits. This is what lets a loop move between threads. */
static inline int
enter (int index)
{
  if (!attached || index < 0 || index >= MAX_WORKERS || !workers[index].registered)
    return forked ? -EOWNERDEAD : -ENOTCONN;
  if (workers[index].busy)
    return -EBUSY;
  if (current != index)
    {
      vcl.worker_index_set (index);
      current = index;
    }
  return 0;
}

#define ENTER(index)                                                                                                  \
  do                                                                                                                  \
    {                                                                                                                 \
      int entered = enter (index);                                                                                    \
      if (entered)                                                                                                    \
	return entered;                                                                                               \
    }                                                                                                                 \
  while (0)

/* VCL says EBADFD ("file descriptor in bad state"); asyncio and its users test for EBADF. */
static inline int
result (int rv)
{
  return rv == -EBADFD ? -EBADF : rv;
}

static int
detached (int index)
{
  worker_t *w = &workers[index];
  int now = vcl.worker_is_detached && vcl.worker_is_detached () == 1;

  if (now && !w->was_detached)
    w->epoch++;
  w->was_detached = now;
  return now;
}

#define REQUIRE_VPP(index)                                                                                            \
  do                                                                                                                  \
    {                                                                                                                 \
      if (detached (index))                                                                                           \
	return -ENETDOWN;                                                                                             \
    }                                                                                                                 \
  while (0)

static int
grow (void **array, int *room, int wanted, size_t item)
{
  int larger = *room ? *room : 64;
  void *moved;

  if (wanted <= *room)
    return 0;
  while (larger < wanted)
    larger *= 2;
  moved = realloc (*array, larger * item);
  if (!moved)
    return -ENOMEM;
  *array = moved;
  *room = larger;
  return 0;
}

/* Notes what a new handle is. A handle on the closing list that VCL gives out again was freed meanwhile. */
static int
remember (uint32_t session, uint8_t kind)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];
  uint32_t index = SESSION_INDEX (session);
  int i, room = (int) w->n_sessions;

  if (grow ((void **) &w->sessions, &room, (int) index + 1, sizeof (*w->sessions)))
    return -ENOMEM;
  w->n_sessions = (uint32_t) room;
  w->sessions[index].kind = kind;
  w->sessions[index].epoch = w->epoch;
  for (i = 0; i < w->n_closing; i++)
    if (w->closing[i] == session)
      w->closing[i] = w->closing[--w->n_closing];
  return 0;
}

static inline uint8_t
kind_of (uint32_t session)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];
  return SESSION_INDEX (session) < w->n_sessions ? w->sessions[SESSION_INDEX (session)].kind : 0;
}

static inline void
to_vppcom (vppcom_endpt *to, const vcl_endpoint *from)
{
  memset (to, 0, sizeof (*to));
  to->is_ip4 = from->is_ip4;
  to->ip = (uint8_t *) from->ip;
  to->port = from->port;
}

/* `to` lends its address bytes to VCL, which writes through the pointer. */
static inline void
lend (vppcom_endpt *ep, vcl_endpoint *to)
{
  memset (to, 0, sizeof (*to));
  memset (ep, 0, sizeof (*ep));
  ep->ip = to->ip;
}

static inline void
take_back (const vppcom_endpt *ep, vcl_endpoint *to)
{
  to->is_ip4 = ep->is_ip4;
  to->port = ep->port;
}

/* ---- workers and epoll ------------------------------------------------------------------------------------------ */

static int
worker_register (void)
{
  int index;

  if (!attached)
    return forked ? -EOWNERDEAD : -ENOTCONN;
  vcl.worker_index_set (-1); /* VCL registers only a thread that has none */
  current = -1;
  /* EEXIST stands for every failure: max-workers reached, or VPP refused. */
  if (vcl.worker_register () < 0)
    {
      vcl.worker_index_set (-1);
      return -ENOBUFS;
    }
  index = vcl.worker_index ();
  if (index < 0 || index >= MAX_WORKERS)
    {
      vcl.worker_unregister ();
      return -ENOBUFS;
    }
  current = index;
  memset (&workers[index], 0, sizeof (workers[index]));
  workers[index].registered = 1;
  return index;
}

static int
worker_unregister (int index)
{
  worker_t *w = &workers[index];

  ENTER (index);
  vcl.worker_unregister ();
  current = -1;
  free (w->sessions);
  free (w->closing);
  free (w->parked);
  memset (w, 0, sizeof (*w));
  return 0;
}

static int
worker_fd (int index)
{
  ENTER (index);
  return vcl.worker_mqs_epfd ();
}

static int
worker_is_detached (int index)
{
  ENTER (index);
  return detached (index);
}

static int
epoll_create_ (int index)
{
  int rv;

  ENTER (index);
  rv = vcl.epoll_create ();
  if (rv >= 0)
    {
      workers[index].vep = (uint32_t) rv;
      workers[index].has_vep = 1;
      workers[index].n_parked = 0; /* the former set's */
    }
  return result (rv);
}

static int
epoll_ctl_ (uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data)
{
  struct epoll_event event = { .events = events, .data.u64 = data };

  ENTER (HANDLE_WORKER (vep));
  return result (vcl.epoll_ctl (vep, op, session, &event));
}

/* When VPP dies, VCL parks a disconnect for every open session. Closing such a session frees it at once, and the parked
 * event is then looked up without a test for NULL (vppcom.c: vcl_epoll_wait_handle_mq_event, DISCONNECTED). So take them
 * out before anybody can close anything; the layers above tell all sessions anyway. */
static void
drain_parked (uint32_t vep)
{
  struct epoll_event scratch[64];

  while (vcl.epoll_wait (vep, scratch, 64, VCL_WAIT_PARKED) > 0)
    ;
}

static int
epoll_wait_ (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms)
{
  worker_t *w = &workers[HANDLE_WORKER (vep)];
  int n = 0, rv;

  ENTER (HANDLE_WORKER (vep));
  if (timeout_ms != VCL_WAIT_PARKED && timeout_ms != VCL_WAIT_NOW)
    return -EINVAL;
  if (w->n_parked)
    {
      n = w->n_parked < max_events ? w->n_parked : max_events;
      memcpy (events, w->parked, n * sizeof (*events));
      w->n_parked -= n;
      memmove (w->parked, w->parked + n, w->n_parked * sizeof (*events));
      if (n == max_events)
	return n;
    }
  rv = vcl.epoll_wait (vep, events + n, max_events - n, timeout_ms);
  if (timeout_ms == VCL_WAIT_NOW && !w->was_detached && detached (HANDLE_WORKER (vep)))
    drain_parked (vep);
  if (rv < 0)
    return n ? n : result (rv);
  return n + rv;
}

/* Let VCL take all that VPP has sent, and keep the events for the next epoll_wait. 1 if there were any. */
static int
take_events (int index)
{
  worker_t *w = &workers[index];
  int n, before = w->n_parked;

  do
    {
      if (!w->has_vep || grow ((void **) &w->parked, &w->room_parked, w->n_parked + 1024, sizeof (*w->parked)))
	break;
      n = vcl.epoll_wait (w->vep, w->parked + w->n_parked, 1024, VCL_WAIT_NOW);
      if (n > 0)
	w->n_parked += n;
    }
  while (n > 0);
  if (w->has_vep && !w->was_detached && detached (index))
    drain_parked (w->vep);
  return w->n_parked > before;
}

/* VPP may still announce connections of a listener that was just closed. Where VCL flushes its queue itself (inside
 * listen and UDP bind) such a message makes it look up a session that is gone, and crash (vppcom.c:
 * vcl_handle_mq_event, ACCEPTED). epoll_wait survives it. So let epoll_wait take everything until VPP has
 * confirmed, which frees the handle, and keep the events for later. */
static void
settle_closed_listeners (int index)
{
  worker_t *w = &workers[index];
  struct timespec pause = { 0, 200 * 1000 };
  int i, round;

  for (round = 0; w->n_closing && round < 2000; round++) /* 0.4 s; VPP needs 0.1 s at most */
    {
      for (i = 0; i < w->n_closing;)
	if (vcl.session_attr (w->closing[i], ATTR_GET_NREAD, 0, 0) == -EBADFD)
	  w->closing[i] = w->closing[--w->n_closing];
	else
	  i++;
      if (w->n_closing && !take_events (index))
	nanosleep (&pause, 0);
      if (detached (index))
	break;
    }
  w->n_closing = 0;
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static int
session_create (int index, int proto, int is_ip4)
{
  int rv;

  (void) is_ip4; /* VCL learns the family from the first address */
  ENTER (index);
  if (proto != VCL_PROTO_TCP && proto != VCL_PROTO_UDP)
    return -EPROTONOSUPPORT;
  REQUIRE_VPP (index);
  rv = vcl.session_create ((uint8_t) proto, 1);
  if (rv >= 0 && remember ((uint32_t) rv, proto == VCL_PROTO_UDP ? IS_DATAGRAM : 0))
    return -ENOMEM;
  return result (rv);
}

static int
session_bind (uint32_t session, const vcl_endpoint *local)
{
  vppcom_endpt ep;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  to_vppcom (&ep, local);
  if (!(kind_of (session) & IS_DATAGRAM))
    return result (vcl.session_bind (session, &ep));
  /* A datagram bind is a listen, with listen's errors. */
  settle_closed_listeners (HANDLE_WORKER (session));
  rv = result (vcl.session_bind (session, &ep));
  return rv == -ECONNREFUSED ? -EADDRNOTAVAIL : rv;
}

static int
session_listen (uint32_t session, int backlog)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  w->busy = 1;
  settle_closed_listeners (HANDLE_WORKER (session));
  rv = result (vcl.session_listen (session, (uint32_t) backlog));
  w->busy = 0;
  if (rv >= 0 && SESSION_INDEX (session) < w->n_sessions)
    {
      w->sessions[SESSION_INDEX (session)].kind |= IS_LISTENER;
      w->sessions[SESSION_INDEX (session)].epoch = w->epoch;
    }
  /* VCL says "refused" for all but a port in use; of a TCP listen what remains is an address that is not VPP's. */
  return rv == -ECONNREFUSED ? -EADDRNOTAVAIL : rv;
}

static int
session_accept (uint32_t session, vcl_endpoint *peer)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];
  vppcom_endpt ep;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  if (!(kind_of (session) & IS_LISTENER) || w->sessions[SESSION_INDEX (session)].epoch != w->epoch)
    return -EBADF;
  /* With nothing queued VCL would flush its message queue into a place that does not wake us. */
  rv = vcl.session_attr (session, ATTR_GET_NREAD, 0, 0);
  if (rv <= 0)
    return rv < 0 ? result (rv) : -EAGAIN;
  lend (&ep, peer);
  rv = result (vcl.session_accept (session, &ep, 04000 /* O_NONBLOCK */));
  if (rv < 0)
    return rv;
  take_back (&ep, peer);
  clock_gettime (CLOCK_MONOTONIC_COARSE, &last_accept);
  return remember ((uint32_t) rv, 0) ? -ENOMEM : rv;
}

static int
session_connect (uint32_t session, const vcl_endpoint *peer)
{
  vppcom_endpt ep;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  to_vppcom (&ep, peer);
  return result (vcl.session_connect (session, &ep));
}

static int
session_connect_result (uint32_t session, uint32_t events)
{
  int rv = 0;

  ENTER (HANDLE_WORKER (session));
  if (!(events & (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP)))
    return -EINPROGRESS;
  if (vcl.session_get_error)
    rv = vcl.session_get_error (session);
  if (rv < 0)
    return result (rv);
  /* A failed connect is OUT|HUP and nothing else; a session that connected and was closed says RDHUP too. */
  if ((events & EPOLLHUP) && !(events & (EPOLLRDHUP | EPOLLERR)))
    return -EFAULT;
  return 0;
}

static int
session_read (uint32_t session, void *buffer, size_t size)
{
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_read (session, buffer, size > INT_MAX ? INT_MAX : size));
}

static int
session_write (uint32_t session, const void *buffer, size_t size)
{
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_write (session, (void *) buffer, size > INT_MAX ? INT_MAX : size));
}

/* vppcom_session_write_segments is all or nothing and copies as well, so pieces are written one by one: VPP is told
 * about the first only, as long as it has not looked. */
static int
session_writev (uint32_t session, const struct iovec *pieces, int count)
{
  int i, rv, total = 0;

  ENTER (HANDLE_WORKER (session));
  for (i = 0; i < count && total < INT_MAX / 2; i++)
    {
      size_t size = pieces[i].iov_len > INT_MAX / 2 ? INT_MAX / 2 : pieces[i].iov_len;
      rv = vcl.session_write (session, pieces[i].iov_base, size);
      if (rv < 0)
	return total ? total : result (rv);
      total += rv;
      if ((size_t) rv < pieces[i].iov_len)
	break;
    }
  return total;
}

static int
session_recvfrom (uint32_t session, void *buffer, size_t size, vcl_endpoint *from)
{
  vppcom_endpt ep;
  int rv;

  ENTER (HANDLE_WORKER (session));
  lend (&ep, from);
  rv = result (vcl.session_recvfrom (session, buffer, (uint32_t) size, 0, &ep));
  take_back (&ep, from);
  return rv;
}

static int
session_sendto (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to)
{
  vppcom_endpt ep;

  ENTER (HANDLE_WORKER (session));
  if (size > 65507)
    return -EMSGSIZE;
  if (to)
    to_vppcom (&ep, to);
  return result (vcl.session_sendto (session, (void *) buffer, (uint32_t) size, 0, to ? &ep : 0));
}

static int
session_shutdown (uint32_t session, int how)
{
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_shutdown (session, how));
}

/* Connections nobody accepted are accepted and closed first (vppcom.c: vppcom_session_unbind refuses them through a
 * queue that a listener does not have), those that VCL has not heard of yet included: announced to a listener that is
 * gone they would stay open in VPP, and their peers wait. (One whose handshake ends between this and VPP's unlisten still
 * does: VCL drops the announcement, and with it the only handle. Its peer hears of it when the process ends.)
 * While VPP is away they cannot be, so the listener stays: 256 bytes against a crash. */
static int
close_listener (uint32_t session)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];
  vcl_endpoint peer;
  int rv;

  if (!detached (HANDLE_WORKER (session)))
    take_events (HANDLE_WORKER (session));
  while ((rv = session_accept (session, &peer)) >= 0 || rv == -ECONNABORTED)
    if (rv >= 0)
      vcl.session_close ((uint32_t) rv);
  if (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) > 0)
    {
      vcl.epoll_ctl (w->vep, EPOLL_CTL_DEL, session, 0);
      return 0;
    }
  rv = result (vcl.session_close (session));
  if (rv >= 0 && !grow ((void **) &w->closing, &w->room_closing, w->n_closing + 1, sizeof (*w->closing)))
    w->closing[w->n_closing++] = session;
  return rv;
}

static int
session_close (uint32_t session)
{
  worker_t *w = &workers[HANDLE_WORKER (session)];

  ENTER (HANDLE_WORKER (session));
  if (w->has_vep && w->vep == session)
    w->has_vep = 0;
  return kind_of (session) & IS_LISTENER ? close_listener (session) : result (vcl.session_close (session));
}

static int
session_readable (uint32_t session)
{
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0));
}

static int
address (uint32_t session, uint32_t attribute, vcl_endpoint *to)
{
  vppcom_endpt ep;
  uint32_t size = sizeof (ep);
  int rv;

  ENTER (HANDLE_WORKER (session));
  lend (&ep, to);
  rv = result (vcl.session_attr (session, attribute, &ep, &size));
  take_back (&ep, to);
  return rv;
}

static int
session_local (uint32_t session, vcl_endpoint *local)
{
  return address (session, ATTR_GET_LCL_ADDR, local);
}

static int
session_peer (uint32_t session, vcl_endpoint *peer)
{
  int rv = address (session, ATTR_GET_PEER_ADDR, peer);

  /* VCL gives the empty address of a session that has no peer; so it does for a cut-through one, which has. */
  if (rv >= 0 && !peer->port && vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) == -ENOTCONN)
    return -ENOTCONN;
  return rv;
}

/* The getter's attribute number; the setter's is one higher. VCL stores these and VPP acts on none of them: its TCP has
 * neither Nagle's delay nor keepalive. */
static int
option_attribute (int level, int option)
{
  if (level == SOL_SOCKET)
    switch (option)
      {
      case SO_REUSEADDR:
	return ATTR_GET_REUSEADDR;
      case SO_REUSEPORT:
	return ATTR_GET_REUSEPORT;
      case SO_BROADCAST:
	return ATTR_GET_BROADCAST;
      case SO_KEEPALIVE:
	return ATTR_GET_KEEPALIVE;
      }
  if (level == IPPROTO_TCP)
    switch (option)
      {
      case TCP_NODELAY:
	return ATTR_GET_TCP_NODELAY;
      case TCP_KEEPIDLE:
	return ATTR_GET_TCP_KEEPIDLE;
      case TCP_KEEPINTVL:
	return ATTR_GET_TCP_KEEPINTVL;
      }
  if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY)
    return ATTR_GET_V6ONLY;
  return -ENOPROTOOPT;
}

static int
session_get_option (uint32_t session, int level, int option, int *value)
{
  uint32_t size = sizeof (*value);
  int attribute;

  ENTER (HANDLE_WORKER (session));
  *value = 0;
  if (level == SOL_SOCKET && option == SO_TYPE)
    *value = kind_of (session) & IS_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
  else if (level == SOL_SOCKET && option == SO_ACCEPTCONN)
    *value = !!(kind_of (session) & IS_LISTENER);
  else if (level == SOL_SOCKET && option == SO_ERROR)
    *value = 0; /* errors come with the call that meets them */
  else
    {
      if (level == SOL_SOCKET && (option == SO_RCVBUF || option == SO_SNDBUF))
	attribute = option == SO_RCVBUF ? ATTR_GET_RX_FIFO_LEN : ATTR_GET_TX_FIFO_LEN;
      else
	attribute = option_attribute (level, option);
      if (attribute < 0)
	return attribute;
      return result (vcl.session_attr (session, (uint32_t) attribute, value, &size));
    }
  return result (vcl.session_attr (session, ATTR_GET_PROTOCOL, &(int){ 0 }, &size)); /* does it exist? */
}

static int
session_set_option (uint32_t session, int level, int option, int value)
{
  uint32_t size = sizeof (value);
  int attribute = option_attribute (level, option);

  ENTER (HANDLE_WORKER (session));
  if (attribute < 0)
    return attribute;
  return result (vcl.session_attr (session, (uint32_t) attribute + 1, &value, &size));
}

static int
session_fd (uint32_t session)
{
  (void) session;
  return -1;
}

static int
session_adopt (int index, int fd)
{
  (void) index, (void) fd;
  return -EOPNOTSUPP;
}

static const vcl_ops ops = {
  .name = "vpp",
  .traps = VCL_TRAP_FIN_EXPIRES | VCL_TRAP_CONNECT_LEAKS | VCL_TRAP_PORT_ZERO | VCL_TRAP_DATAGRAM_EVENTS |
	   VCL_TRAP_DATAGRAM_SPLIT | VCL_TRAP_DATAGRAM_DIES,
  .worker_register = worker_register,
  .worker_unregister = worker_unregister,
  .worker_fd = worker_fd,
  .worker_is_detached = worker_is_detached,
  .epoll_create = epoll_create_,
  .epoll_ctl = epoll_ctl_,
  .epoll_wait = epoll_wait_,
  .session_create = session_create,
  .session_bind = session_bind,
  .session_listen = session_listen,
  .session_accept = session_accept,
  .session_connect = session_connect,
  .session_connect_result = session_connect_result,
  .session_read = session_read,
  .session_write = session_write,
  .session_writev = session_writev,
  .session_recvfrom = session_recvfrom,
  .session_sendto = session_sendto,
  .session_shutdown = session_shutdown,
  .session_close = session_close,
  .session_readable = session_readable,
  .session_local = session_local,
  .session_peer = session_peer,
  .session_get_option = session_get_option,
  .session_set_option = session_set_option,
  .session_fd = session_fd,
  .session_adopt = session_adopt,
};

const vcl_ops *
vppaio_vpp_ops (void)
{
  return &ops;
}

/* ---- the process ------------------------------------------------------------------------------------------------ */

static int
refuse (int code, char *message, size_t size, const char *format, const char *argument)
{
  snprintf (message, size, format, argument);
  return code;
}

int
vppaio_vpp_open (const char *name, char *message, size_t size)
{
  unsigned year = 0, month = 0;
  Dl_info info;
  const char *dot;
  size_t i;

  if (library)
    return 0;
  /* RTLD_NODELETE: its exit handler stays registered, so its code must stay mapped. */
  void *handle = dlopen (name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle)
    return refuse (-ENOENT, message, size, "%s", dlerror ());
  for (i = 0; i < sizeof (symbols) / sizeof (symbols[0]); i++)
    {
      void *address = dlsym (handle, symbols[i].name);
      if (!address && !symbols[i].optional)
	return refuse (-ENOSYS, message, size, "libvppcom has no %s: releases from 21.10 on do", symbols[i].name);
      *(void **) symbols[i].slot = address;
    }
  if (!dladdr ((void *) vcl.app_create, &info) || !realpath (info.dli_fname, library_path))
    snprintf (library_path, sizeof (library_path), "%s", name);
  dot = strstr (library_path, ".so.");
  snprintf (release, sizeof (release), "%s", dot ? dot + 4 : "");
  if (sscanf (release, "%u.%u", &year, &month) == 2 && year * 100 + month < 2110)
    return refuse (-ENOTSUP, message, size, "libvppcom %s is older than 21.10", release);
  library = handle;
  return 0;
}

const char *
vppaio_vpp_release (void)
{
  return release;
}

const char *
vppaio_vpp_library (void)
{
  return library_path;
}

/* Runs before VCL's own exit handler, which takes leave of the calling thread's worker and crashes if it has none. That
 * handler is our farewell: it speaks through the app socket, as VPP hears the end of the other workers. vppcom_app_destroy
 * would say so a second time, through the message queue. VPP acts on the socket at once and frees its handle, and on the
 * queue up to 0.1 s later; an application that has attached meanwhile, such as this service restarted, has got the same
 * handle and is detached in our place: its listen hangs (session_node.c: session_mq_detach_handler, 26.06). */
static void
at_exit (int status, void *unused)
{
  int i, busy = 0;

  (void) unused;
  for (i = 0; i < MAX_WORKERS; i++)
    busy |= workers[i].registered && workers[i].busy; /* another thread is inside listen */
  attached = 0;
  if (last_signal && !forked)
    {
      fflush (NULL);
      signal (last_signal, SIG_DFL);
      raise (last_signal);
    }
  if (forked || given_up || busy || getpid () != owner)
    {
      fflush (NULL);
      _exit (status);
    }
  vcl.worker_index_set (0);
}

void
vppaio_vpp_end_by_signal (int number)
{
  last_signal = number;
}

int
vppaio_vpp_attach (const char *app_name)
{
  int rv;

  if (!library)
    return -ENOENT;
  if (tried)
    return attached ? -EALREADY : -ENOTRECOVERABLE;
  tried = 1;
  owner = getpid ();
  rv = vcl.app_create (app_name);
  if (given_up)
    return -ETIMEDOUT;
  if (rv < 0)
    return rv;
  on_exit (at_exit, 0);
  workers[0].registered = 1;
  attached = 1;
  vcl.worker_index_set (-1);
  return 0;
}

void
vppaio_vpp_give_up (void)
{
  given_up = 1;
  on_exit (at_exit, 0);
}

double
vppaio_vpp_since_accept (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &now);
  return (double) (now.tv_sec - last_accept.tv_sec) + 1e-9 * (double) (now.tv_nsec - last_accept.tv_nsec);
}

void
vppaio_vpp_poll_all (void)
{
  struct epoll_event events[64];
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (workers[i].has_vep && !enter (i) && !detached (i))
      vcl.epoll_wait (workers[i].vep, events, 64, VCL_WAIT_NOW);
}

void
vppaio_vpp_detach (void)
{
  attached = 0;
}

void
vppaio_vpp_forked (void)
{
  if (!attached || forked)
    return;
  forked = 1;
  attached = 0;
  on_exit (at_exit, 0);
}
