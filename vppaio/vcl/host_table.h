/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers and sessions of the host stack: a handle in, a slot out, or an errno.
 *
 * Slots live in chunks that never move and are given back only with their worker: a pointer to a slot stays good while
 * another thread makes sessions, so a call that slips in before session_listen has marked its worker meets stale state
 * at worst, never freed memory. The way through the chunk directory costs one load from a line that is hot anyway.
 *
 * Included by host.c only.
 */
#ifndef VPPAIO_HOST_TABLE_H
#define VPPAIO_HOST_TABLE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* The worker is the top byte of a handle, and handles are returned as ints: the sign bit stays clear. */
#define MAX_WORKERS 128
#define MAX_SESSIONS (1 << 24)
#define CHUNK_SESSIONS 1024 /* 32 KiB: a few connections cost little, a million need a thousand mallocs */
#define NO_SLOT UINT32_MAX

enum session_state
{
  FREE = 0,
  EPOLL_SET,
  NEW,        /* neither bound nor connected: says nothing to epoll */
  BOUND,      /* TCP: still silent; UDP: receives */
  LISTENING,
  CONNECTING,
  CONNECTED,
  FAILED,     /* connect is over; `error` says why */
};

enum membership
{
  NOT_MEMBER = 0,
  WAITING, /* added by the caller, not yet told to the kernel; see host.c */
  MEMBER,
};

typedef struct session
{
  int fd;
  uint8_t state;
  uint8_t membership;
  uint8_t proto;
  uint8_t is_ip4;
  uint32_t next_free;
  int error;       /* of a connect, positive; meaningful in CONNECTING and FAILED */
  uint32_t events; /* what the caller asked of epoll */
  uint64_t data;
} session;

typedef struct worker
{
  int epoll_fd;
  uint32_t used;       /* slots that have ever been handed out: the bounds check */
  uint32_t first_free; /* the most recently freed slot: its line is the likeliest to be cached */
  atomic_bool taken;
  atomic_bool busy;    /* a session_listen is under way */
  bool has_epoll_set;
  session *chunks[MAX_SESSIONS / CHUNK_SESSIONS];
} worker;

/* Allocated at first use and never freed, only reused: a worker handle of any age can be looked at safely. */
static _Atomic (worker *) workers[MAX_WORKERS];

/* The worker with this number, taken or not; NULL without memory. */
static worker *
worker_at (int index)
{
  worker *w = atomic_load (&workers[index]);
  if (w)
    return w;
  worker *fresh = calloc (1, sizeof (*fresh));
  if (!fresh)
    return NULL;
  fresh->first_free = NO_SLOT;
  if (atomic_compare_exchange_strong (&workers[index], &w, fresh))
    return fresh;
  free (fresh); /* another thread was first, and `w` is now its worker */
  return w;
}

static inline int
handle_of (int worker_index, int index)
{
  return worker_index << 24 | index;
}

static inline session *
slot (worker *w, uint32_t index)
{
  return &w->chunks[index / CHUNK_SESSIONS][index % CHUNK_SESSIONS];
}

static inline int
find_worker (int index, worker **found)
{
  if ((unsigned) index >= MAX_WORKERS)
    return -EBADF;
  worker *w = atomic_load_explicit (&workers[index], memory_order_acquire);
  if (!w || !atomic_load_explicit (&w->taken, memory_order_acquire))
    return -EBADF;
  if (atomic_load_explicit (&w->busy, memory_order_acquire))
    return -EBUSY;
  *found = w;
  return 0;
}

static inline worker *
owner_of (uint32_t handle)
{
  return atomic_load_explicit (&workers[handle / MAX_SESSIONS], memory_order_acquire);
}

/* The check on every data call: a few compares and no write. A worker without sessions has `used` 0, so `taken` need not
 * be asked. */
static inline int
find_session (uint32_t handle, session **found)
{
  uint32_t index = handle % MAX_SESSIONS;
  if (handle / MAX_SESSIONS >= MAX_WORKERS)
    return -EBADF;
  worker *w = owner_of (handle);
  if (__builtin_expect (!w || index >= w->used, 0))
    return -EBADF;
  if (__builtin_expect (atomic_load_explicit (&w->busy, memory_order_acquire), 0))
    return -EBUSY;
  session *s = slot (w, index);
  if (__builtin_expect (s->state == FREE, 0))
    return -EBADF;
  *found = s;
  return 0;
}

/* Index of a slot that the caller fills or gives back, or -errno. */
static int
take_slot (worker *w)
{
  if (w->first_free != NO_SLOT)
    {
      uint32_t index = w->first_free;
      w->first_free = slot (w, index)->next_free;
      return index;
    }
  if (w->used == MAX_SESSIONS)
    return -EMFILE;
  session **chunk = &w->chunks[w->used / CHUNK_SESSIONS];
  if (!*chunk && !(*chunk = calloc (CHUNK_SESSIONS, sizeof (session))))
    return -ENOMEM;
  return w->used++;
}

static void
give_back_slot (worker *w, uint32_t index)
{
  session *s = slot (w, index);
  s->state = FREE;
  s->next_free = w->first_free;
  w->first_free = index;
}

static void
free_slots (worker *w)
{
  uint32_t chunks = (w->used + CHUNK_SESSIONS - 1) / CHUNK_SESSIONS;
  w->used = 0;
  w->first_free = NO_SLOT;
  w->has_epoll_set = false;
  for (uint32_t i = 0; i < chunks; i++)
    {
      free (w->chunks[i]);
      w->chunks[i] = NULL;
    }
}

#endif
