/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of operations that wraps another one and makes trouble, from a seed.
 *
 * All it does a stack may do (vcl_ops.h): what it takes away it gives back later, as a stack would. An EAGAIN that it made
 * up and a read that it cut short are followed by an event, since edge-triggered sessions hear of nothing else; events
 * may come late or twice, but those of one session never in another order. While it holds any back, its worker's
 * descriptor is readable.
 *
 * One wrapped table per process; `faults_table` starts again from nothing. All calls are made with the GIL, but
 * session_listen.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vcl_ops.h"

enum /* faults/table.py has the names */
{
  SHORT_READ,
  SHORT_WRITE,
  READ_AGAIN,
  WRITE_AGAIN,
  RESET,
  DELAY,
  DUPLICATE,
  CONNECT_FAILS,
  NO_MEMORY,
  NO_DESCRIPTOR,
  ABORTED,
  IN_USE,
  KINDS,
};

#define MAX_WORKERS 128
#define INDEX(handle) ((handle) &0xffffff)

typedef struct
{
  uint64_t data;
  uint32_t epoch; /* of the worker, when it was made */
  uint8_t is_open, is_watched, is_datagram, was_reset;
  uint8_t is_settled; /* has been read empty: from here on an event tells of everything, a FIN included */
} session_t;

typedef struct
{
  struct epoll_event event;
  int polls; /* until it is told */
} held_t;

typedef struct
{
  int fd;   /* an epoll set of the stack's own descriptor and the bell */
  int bell; /* an eventfd, readable while events are held or the stack is lost */
  uint32_t epoch;
  int lost_polls, is_lost;
  session_t *sessions;
  uint32_t n_sessions;
  held_t *held;
  int n_held, room_held;
} worker_t;

static worker_t workers[MAX_WORKERS];
/* Which of them has a handle: a thousand neighbours belong to the same one on either stack. */
static uint8_t owners[1 << 21];
static const vcl_ops *inner;
static vcl_ops table;
static double rates[KINDS];
static uint64_t counts[KINDS];
static uint64_t state;
static int n_open;

/* ---- chance ----------------------------------------------------------------------------------------------------- */

static uint64_t
next_random (void) /* splitmix64 */
{
  uint64_t z = state += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

static uint32_t
below (uint32_t limit)
{
  return (uint32_t) (next_random () % limit);
}

static int
strikes (int kind)
{
  if (rates[kind] <= 0 || (double) (next_random () >> 11) * 0x1p-53 >= rates[kind])
    return 0;
  counts[kind]++;
  return 1;
}

/* ---- what is known of workers and sessions ---------------------------------------------------------------------- */

static worker_t *
worker_of (uint32_t handle)
{
  return &workers[owners[handle >> 10 & ((1 << 21) - 1)]];
}

static session_t *
session_of (uint32_t handle)
{
  static session_t nobody;
  worker_t *w = worker_of (handle);

  if (INDEX (handle) < w->n_sessions && w->sessions[INDEX (handle)].is_open)
    return &w->sessions[INDEX (handle)];
  nobody = (session_t){ .epoch = w->epoch };
  return &nobody;
}

static int
keep (worker_t *w, int handle, int is_datagram)
{
  uint32_t index = INDEX ((uint32_t) handle);

  owners[handle >> 10] = (uint8_t) (w - workers);
  if (index >= w->n_sessions)
    {
      uint32_t room = (index + 1) * 2;
      w->sessions = realloc (w->sessions, room * sizeof (*w->sessions));
      if (!w->sessions)
	abort ();
      memset (w->sessions + w->n_sessions, 0, (room - w->n_sessions) * sizeof (*w->sessions));
      w->n_sessions = room;
    }
  w->sessions[index] = (session_t){ .epoch = w->epoch, .is_open = 1, .is_datagram = (uint8_t) is_datagram };
  n_open++;
  return handle;
}

/* Its stack was lost, now or since: nothing works but closing. */
static int
is_dead (uint32_t handle)
{
  worker_t *w = worker_of (handle);
  return w->is_lost || session_of (handle)->epoch != w->epoch;
}

static void
ring (worker_t *w)
{
  uint64_t one = 1;

  if (!w->bell)
    return;
  if (w->n_held || w->lost_polls || w->is_lost)
    (void) !write (w->bell, &one, sizeof (one));
  else
    (void) !read (w->bell, &one, sizeof (one));
}

static void
hold (worker_t *w, uint64_t data, uint32_t events)
{
  held_t entry = { { .events = events, .data.u64 = data }, 1 + (int) below (6) };
  int i;

  if (w->n_held == w->room_held)
    {
      w->room_held = w->room_held ? 2 * w->room_held : 64;
      w->held = realloc (w->held, (size_t) w->room_held * sizeof (*w->held));
      if (!w->held)
	abort ();
    }
  for (i = 0; i < w->n_held; i++) /* a session's events keep their order */
    if (w->held[i].event.data.u64 == data && w->held[i].polls > entry.polls)
      entry.polls = w->held[i].polls;
  w->held[w->n_held++] = entry;
  ring (w);
}

/* An event for later, if somebody would hear it; who joins the epoll set later is told what holds by then. */
static void
promise (uint32_t handle, uint32_t events)
{
  session_t *s = session_of (handle);

  if (s->is_watched && events)
    hold (worker_of (handle), s->data, events);
}

static int
reset (uint32_t handle)
{
  session_of (handle)->was_reset = 1;
  promise (handle, EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLRDHUP);
  return -ECONNRESET;
}

/* ---- workers and epoll ------------------------------------------------------------------------------------------ */

static void
forget_worker (worker_t *w)
{
  if (w->bell)
    {
      close (w->fd);
      close (w->bell);
    }
  free (w->sessions);
  free (w->held);
  memset (w, 0, sizeof (*w));
}

static int
worker_unregister (int index)
{
  forget_worker (&workers[index]);
  return inner->worker_unregister (index);
}

static int
worker_fd (int index)
{
  worker_t *w = &workers[index];
  struct epoll_event event = { .events = EPOLLIN };
  int fd = inner->worker_fd (index);

  if (fd < 0 || w->bell)
    return fd < 0 ? fd : w->fd;
  w->fd = epoll_create1 (EPOLL_CLOEXEC);
  w->bell = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC);
  epoll_ctl (w->fd, EPOLL_CTL_ADD, w->bell, &event);
  epoll_ctl (w->fd, EPOLL_CTL_ADD, fd, &event);
  return w->fd;
}

static int
worker_is_detached (int index)
{
  return workers[index].is_lost || inner->worker_is_detached (index) == 1;
}

static int
epoll_create_ (int index)
{
  int vep = inner->epoll_create (index);

  if (vep >= 0)
    owners[vep >> 10] = (uint8_t) index;
  return vep;
}

static int
epoll_ctl_ (uint32_t vep, int op, uint32_t handle, uint32_t events, uint64_t data)
{
  session_t *s = session_of (handle);
  int rv;

  if (op == EPOLL_CTL_ADD && strikes (NO_MEMORY))
    return -ENOMEM;
  rv = inner->epoll_ctl (vep, op, handle, events, data);
  if (rv >= 0)
    {
      s->is_watched = op != EPOLL_CTL_DEL;
      s->data = data;
    }
  return rv;
}

/* The stack is gone for some polls: nobody hears of it but through worker_is_detached, and what its sessions had to say
 * is lost with them. */
static int
wait_for_stack (worker_t *w, uint32_t vep)
{
  struct epoll_event scratch[64];

  while (inner->epoll_wait (vep, scratch, 64, VCL_WAIT_NOW) > 0)
    ;
  if (!w->is_lost)
    {
      w->is_lost = 1;
      w->epoch++;
      w->n_held = 0;
    }
  else if (--w->lost_polls <= 0)
    w->is_lost = w->lost_polls = 0;
  ring (w);
  return 0;
}

static int
is_held (worker_t *w, uint64_t data)
{
  int i;

  for (i = 0; i < w->n_held; i++)
    if (w->held[i].event.data.u64 == data)
      return 1;
  return 0;
}

static int
take_due (worker_t *w, struct epoll_event *events, int max_events)
{
  int i, kept = 0, n = 0;

  for (i = 0; i < w->n_held; i++)
    if (--w->held[i].polls <= 0 && n < max_events)
      events[n++] = w->held[i].event;
    else
      w->held[kept++] = w->held[i];
  w->n_held = kept;
  ring (w);
  return n;
}

static int
epoll_wait_ (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms)
{
  worker_t *w = worker_of (vep);
  struct epoll_event came[1024];
  int i, n, rv;

  if (max_events > 0 && (w->is_lost || w->lost_polls))
    return timeout_ms == VCL_WAIT_NOW ? wait_for_stack (w, vep) : 0;
  n = max_events > 0 ? take_due (w, events, max_events) : 0;
  rv = inner->epoll_wait (vep, came, max_events - n < 1024 ? max_events - n : 1024, timeout_ms);
  if (rv < 0)
    return n ? n : rv;
  for (i = 0; i < rv; i++)
    if (is_held (w, came[i].data.u64) || strikes (DELAY))
      hold (w, came[i].data.u64, came[i].events);
    else
      {
	events[n++] = came[i];
	if (strikes (DUPLICATE))
	  hold (w, came[i].data.u64, came[i].events);
      }
  return n;
}

/* ---- life of a session ------------------------------------------------------------------------------------------ */

static int
session_create (int index, int proto, int is_ip4)
{
  int rv;

  if (workers[index].is_lost)
    return -ENETDOWN;
  if (strikes (NO_MEMORY))
    return -ENOMEM;
  rv = inner->session_create (index, proto, is_ip4);
  return rv < 0 ? rv : keep (&workers[index], rv, proto == VCL_PROTO_UDP);
}

static int
session_bind (uint32_t handle, const vcl_endpoint *local)
{
  return is_dead (handle) ? -ENETDOWN : inner->session_bind (handle, local);
}

static int
session_listen (uint32_t handle, int backlog)
{
  if (is_dead (handle))
    return -ENETDOWN;
  return strikes (IN_USE) ? -EADDRINUSE : inner->session_listen (handle, backlog);
}

static int
session_accept (uint32_t handle, vcl_endpoint *peer)
{
  static const int shortages[] = { -EMFILE, -ENFILE, -ENOBUFS };
  int rv;

  if (is_dead (handle))
    return -EBADF;
  if (strikes (NO_DESCRIPTOR))
    return shortages[below (3)];
  if (strikes (READ_AGAIN))
    {
      promise (handle, EPOLLIN);
      return -EAGAIN;
    }
  rv = inner->session_accept (handle, peer);
  if (rv < 0)
    return rv;
  if (strikes (ABORTED))
    {
      inner->session_close ((uint32_t) rv);
      return -ECONNABORTED;
    }
  return keep (worker_of (handle), rv, 0);
}

/* A connect that is to fail goes to a port where nobody listens. */
static int
session_connect (uint32_t handle, const vcl_endpoint *peer)
{
  vcl_endpoint elsewhere = *peer;

  if (is_dead (handle))
    return -ENETDOWN;
  if (!session_of (handle)->is_datagram && strikes (CONNECT_FAILS))
    elsewhere.port = 0x0100; /* 1 */
  return inner->session_connect (handle, &elsewhere);
}

static int
session_connect_result (uint32_t handle, uint32_t events)
{
  return is_dead (handle) ? -ENOTCONN : inner->session_connect_result (handle, events);
}

static int
session_shutdown (uint32_t handle, int how)
{
  session_t *s = session_of (handle);
  return is_dead (handle) || s->was_reset ? -ENOTCONN : inner->session_shutdown (handle, how);
}

static int
session_close (uint32_t handle)
{
  session_t *s = session_of (handle);
  struct linger at_once = { 1, 0 };
  int fd = s->was_reset ? inner->session_fd (handle) : -1;

  if (fd >= 0) /* the kernel's peers are to see a reset too */
    setsockopt (fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof (at_once));
  n_open -= s->is_open;
  s->is_open = 0;
  return inner->session_close (handle);
}

static int
session_adopt (int index, int fd)
{
  int rv;

  if (workers[index].is_lost)
    return -ENETDOWN;
  rv = inner->session_adopt (index, fd);
  return rv < 0 ? rv : keep (&workers[index], rv, 0);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

/* 0: go on. */
static int
trouble (uint32_t handle, int again, uint32_t event)
{
  session_t *s = session_of (handle);

  if (s->epoch != worker_of (handle)->epoch || worker_of (handle)->is_lost)
    return -ENOTCONN;
  if (s->was_reset)
    return -ECONNRESET;
  if (!s->is_datagram && strikes (RESET))
    return reset (handle);
  if ((s->is_settled || again != READ_AGAIN) && strikes (again))
    {
      promise (handle, event);
      return -EAGAIN;
    }
  return 0;
}

static int
session_read (uint32_t handle, void *buffer, size_t size)
{
  int rv = trouble (handle, READ_AGAIN, EPOLLIN);
  size_t asked = size;

  if (rv)
    return rv;
  if (size > 1 && strikes (SHORT_READ))
    asked = 1 + below (size > 5000 ? 5000 : (uint32_t) size - 1);
  rv = inner->session_read (handle, buffer, asked);
  if (rv > 0 && asked < size && (size_t) rv == asked)
    promise (handle, EPOLLIN); /* as if the rest had arrived just now */
  else if (rv == -EAGAIN)
    session_of (handle)->is_settled = session_of (handle)->is_watched;
  return rv;
}

static int
session_write (uint32_t handle, const void *buffer, size_t size)
{
  int rv = trouble (handle, WRITE_AGAIN, EPOLLOUT);

  if (rv)
    return rv;
  if (size > 1 && strikes (SHORT_WRITE))
    size = 1 + below (size > 5000 ? 5000 : (uint32_t) size - 1);
  return inner->session_write (handle, buffer, size);
}

static int
session_writev (uint32_t handle, const struct iovec *pieces, int count)
{
  struct iovec fewer[64];
  int rv = trouble (handle, WRITE_AGAIN, EPOLLOUT);

  if (rv)
    return rv;
  if (count < 1 || count > 64 || !strikes (SHORT_WRITE))
    return inner->session_writev (handle, pieces, count);
  count = 1 + (int) below ((uint32_t) count);
  memcpy (fewer, pieces, (size_t) count * sizeof (*fewer));
  if (fewer[count - 1].iov_len > 1)
    fewer[count - 1].iov_len = 1 + below ((uint32_t) fewer[count - 1].iov_len);
  return inner->session_writev (handle, fewer, count);
}

static int
session_recvfrom (uint32_t handle, void *buffer, size_t size, vcl_endpoint *from)
{
  int rv = trouble (handle, READ_AGAIN, EPOLLIN);

  if (rv)
    return rv;
  rv = inner->session_recvfrom (handle, buffer, size, from);
  if (rv == -EAGAIN)
    session_of (handle)->is_settled = session_of (handle)->is_watched;
  return rv;
}

static int
session_sendto (uint32_t handle, const void *buffer, size_t size, const vcl_endpoint *to)
{
  /* VPP never tells that there is room again: the caller has to ask. */
  int rv = trouble (handle, WRITE_AGAIN, inner->traps & VCL_TRAP_DATAGRAM_EVENTS ? 0 : EPOLLOUT);
  return rv ? rv : inner->session_sendto (handle, buffer, size, to);
}

static int
session_readable (uint32_t handle)
{
  return is_dead (handle) ? -ENOTCONN : session_of (handle)->was_reset ? -ECONNRESET : inner->session_readable (handle);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* Wrap `wrapped`; `chances` has a probability for each kind. */
const vcl_ops *
faults_table (const vcl_ops *wrapped, uint64_t seed, const double *chances)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    forget_worker (&workers[i]);
  inner = wrapped;
  state = seed;
  n_open = 0;
  memset (counts, 0, sizeof (counts));
  memcpy (rates, chances, sizeof (rates));
  table = *wrapped; /* what is not replaced below is the stack's own */
  table.worker_unregister = worker_unregister;
  table.worker_fd = worker_fd;
  table.worker_is_detached = worker_is_detached;
  table.epoll_create = epoll_create_;
  table.epoll_ctl = epoll_ctl_;
  table.epoll_wait = epoll_wait_;
  table.session_create = session_create;
  table.session_bind = session_bind;
  table.session_listen = session_listen;
  table.session_accept = session_accept;
  table.session_connect = session_connect;
  table.session_connect_result = session_connect_result;
  table.session_read = session_read;
  table.session_write = session_write;
  table.session_writev = session_writev;
  table.session_recvfrom = session_recvfrom;
  table.session_sendto = session_sendto;
  table.session_shutdown = session_shutdown;
  table.session_close = session_close;
  table.session_readable = session_readable;
  table.session_adopt = session_adopt;
  return &table;
}

/* No more trouble from here on, but what is promised comes. */
void
faults_end (void)
{
  memset (rates, 0, sizeof (rates));
}

/* The stack goes away for `polls` looks at it. */
void
faults_lose (int polls)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (workers[i].bell)
      {
	workers[i].lost_polls = polls;
	ring (&workers[i]);
      }
}

uint64_t
faults_count (int kind)
{
  return counts[kind];
}

/* Sessions that nobody has closed. */
int
faults_open (void)
{
  return n_open;
}
