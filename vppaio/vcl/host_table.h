/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers and sessions of the host stack: a handle in, a slot out, or an errno.
 *
 * A handle is a slot's number in one table for the whole process. The table is a directory of chunks, and each chunk
 * belongs to one worker. So neither the number of workers nor that of a worker's sessions has a limit of its own; what
 * ends first is the kernel's, descriptors and memory. A worker lives in its first chunk, and its index is that chunk's
 * number.
 *
 * Chunks never move, and are given back only with their worker; its first one is never freed, only reused. So a pointer
 * to a slot stays good while another thread makes sessions, and a call that slips in before session_listen has marked
 * its worker meets stale state at worst, never freed memory.
 */
#ifndef VPPAIO_HOST_TABLE_H
#define VPPAIO_HOST_TABLE_H

#include "vcl_ops.h"
#include "vcl_states.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define CHUNK_SESSIONS 1024 /* 32 KiB: a few connections cost little, a million need a thousand mallocs */
/* Handles are returned as ints. 16 MiB of address space; only what is used becomes memory. */
#define MAX_CHUNKS (1 << 21)
#define NO_SLOT UINT32_MAX

enum membership
{
  NOT_MEMBER = 0,
  WAITING, /* added by the caller, not yet told to the kernel; see host.c */
  MEMBER,
};

typedef struct session
{
  int fd;
  uint8_t state;   /* enum vcl_state; VCL_LOST is none of the kernel's */
  uint8_t membership;
  uint8_t proto;
  uint8_t is_ip4;
  uint32_t next_free;
  int error;       /* of a connect, positive; meaningful in VCL_CONNECTING and VCL_FAILED */
  uint32_t events; /* what the caller asked of epoll */
  uint64_t data;
} session;

typedef struct chunk chunk;

typedef struct worker
{
  int epoll_fd;
  uint32_t first_free; /* the most recently freed slot: its line is the likeliest to be cached */
  uint32_t used;       /* slots of the newest chunk that have ever been handed out */
  atomic_bool taken;
  atomic_bool busy;    /* a session_listen is under way */
  bool has_epoll_set;
  chunk *newest;
  _Atomic (struct worker *) next; /* of all that were ever made, the oldest first */
} worker;

struct chunk
{
  worker *owner;
  chunk *older; /* of the same worker; NULL: it is the first, and the worker is in it */
  uint32_t number;
  worker self;
  session sessions[CHUNK_SESSIONS];
};

extern _Atomic (chunk *) host_chunks[MAX_CHUNKS];

/* A worker that nobody has, taken for the caller, who gives it its epoll set: its index, or -errno. */
int host_take_worker (void);
void host_give_back_worker (worker *w);
/* Handle of a slot that the caller fills or gives back, or -errno. */
int host_take_slot (worker *w);
void host_give_back_slot (worker *w, uint32_t handle);
/* The session has begun to say true things to epoll, or a new one: tell the kernel's epoll set. 0 or -errno. */
int host_tell_epoll (worker *w, session *s);
/* 0 or -errno. */
int host_control_epoll (worker *w, session *s, int op);

static inline chunk *
chunk_of (uint32_t handle)
{
  return atomic_load_explicit (&host_chunks[handle / CHUNK_SESSIONS], memory_order_acquire);
}

/* The slot of a handle that is known to be good. */
static inline session *
slot (uint32_t handle)
{
  return &chunk_of (handle)->sessions[handle % CHUNK_SESSIONS];
}

static inline worker *
owner_of (uint32_t handle)
{
  return chunk_of (handle)->owner;
}

static inline int
find_worker (int index, worker **found)
{
  if ((unsigned) index >= MAX_CHUNKS)
    return -EBADF;
  chunk *c = atomic_load_explicit (&host_chunks[index], memory_order_acquire);
  if (!c || c->older || !atomic_load_explicit (&c->self.taken, memory_order_acquire))
    return -EBADF;
  if (atomic_load_explicit (&c->self.busy, memory_order_acquire))
    return -EBUSY;
  *found = &c->self;
  return 0;
}

/* The check on every data call: a few compares and no write. A worker that nobody has has no open slot, so `taken` need
 * not be asked. */
static inline int
find_session (uint32_t handle, session **found)
{
  if (handle / CHUNK_SESSIONS >= MAX_CHUNKS)
    return -EBADF;
  chunk *c = chunk_of (handle);
  if (__builtin_expect (!c, 0))
    return -EBADF;
  if (__builtin_expect (atomic_load_explicit (&c->owner->busy, memory_order_acquire), 0))
    return -EBUSY;
  session *s = &c->sessions[handle % CHUNK_SESSIONS];
  if (__builtin_expect (s->state == VCL_FREE, 0))
    return -EBADF;
  *found = s;
  return 0;
}

/* Also whether the session's state allows `operation`. */
static inline int
find_session_for (uint32_t handle, int operation, session **found)
{
  int rv = find_session (handle, found);
  return rv < 0 ? rv : vcl_refusal ((*found)->proto == VCL_PROTO_UDP, (*found)->state, operation);
}

/* Says nothing to epoll yet. */
static inline bool
is_silent (const session *s)
{
  return s->state == VCL_NEW || (s->state == VCL_BOUND && s->proto == VCL_PROTO_TCP);
}

#endif
