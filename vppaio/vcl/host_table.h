/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers and sessions of the host stack: a handle in, a slot out, or an errno.
 *
 * Slots live in chunks that never move and are given back only with their worker: a pointer to a slot stays good while
 * another thread makes sessions, so a call that slips in before session_listen has marked its worker meets stale state
 * at worst, never freed memory. The way through the chunk directory costs one load from a line that is hot anyway.
 */
#ifndef VPPAIO_HOST_TABLE_H
#define VPPAIO_HOST_TABLE_H

#include "vcl_ops.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>

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
extern _Atomic (worker *) host_workers[MAX_WORKERS];

/* The worker with this number, taken or not; NULL without memory. */
worker *host_worker_at (int index);
/* Index of a slot that the caller fills or gives back, or -errno. */
int host_take_slot (worker *w);
void host_give_back_slot (worker *w, uint32_t index);
void host_free_slots (worker *w);
/* The session has begun to say true things to epoll, or a new one: tell the kernel's epoll set. 0 or -errno. */
int host_tell_epoll (worker *w, session *s);
/* 0 or -errno. */
int host_control_epoll (worker *w, session *s, int op);

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
  worker *w = atomic_load_explicit (&host_workers[index], memory_order_acquire);
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
  return atomic_load_explicit (&host_workers[handle / MAX_SESSIONS], memory_order_acquire);
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

/* Says nothing to epoll yet. */
static inline bool
is_silent (const session *s)
{
  return s->state == NEW || (s->state == BOUND && s->proto == VCL_PROTO_TCP);
}

#endif
