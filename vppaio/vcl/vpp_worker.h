/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker of VCL's and what we remember of it, and the check before every call: which worker, may VCL be called now?
 */
#ifndef VPPAIO_VPP_WORKER_H
#define VPPAIO_VPP_WORKER_H

#include "vcl_ops.h"
#include "vpp_library.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define MAX_WORKERS 128 /* a handle has its worker in the top byte and must stay a positive int */
#define SESSION_INDEX(handle) ((handle) &0xffffff)
#define HANDLE_WORKER(handle) ((int) ((handle) >> 24))

enum
{
  IS_LISTENER = 1,
  IS_DATAGRAM = 2,
  IS_ENDING = 4, /* closed, but VCL has not freed it yet */
  IS_WILDCARD = 8, /* a datagram session, bound to 0.0.0.0 or :: and not known to have heard anything */
  IS_CONNECTED = 16, /* a datagram session, or about to be */
};

typedef struct
{
  int registered;
  int busy;       /* session_listen or session_bind is under way without the GIL */
  uint32_t epoch; /* counts the times VPP was lost */
  int was_detached;
  int untold;    /* lost, and the layers above have not asked yet */
  int rings;     /* its descriptor is readable for that reason */
  uint32_t heard; /* of so many losses */
  int has_remains; /* of a VPP that died, see vpp_remains.c */
  uint32_t vep;
  int has_vep;
  /* By session index: what VCL does not tell, and the epoch in which a listener began to listen. */
  struct
  {
    uint32_t epoch;
    uint8_t kind;
  } *sessions;
  uint32_t n_sessions;
  int n_datagrams; /* open datagram sessions */
  /* Listeners whose unlisten VPP has not confirmed yet. */
  uint32_t *closing;
  int n_closing, room_closing;
  /* Events that were taken out of VCL and not asked for yet; epoll_wait hands them out first. */
  struct epoll_event *parked;
  int n_parked, room_parked;
  int heap_low; /* connections are refused */
  /* See vpp_heap.c: free slots in our own hands, and sessions whose slots will be free when VPP has confirmed their end. */
  int keeps_slots;
  int has_refused; /* connections, and nobody knows yet */
  uint32_t *spare, *ending;
  int n_spare, room_spare, n_ending, room_ending;
} worker_t;

extern worker_t vpp_workers[MAX_WORKERS];
extern __thread int vpp_current; /* the worker VCL believes this thread to be */
/* Of the process, see vpp_process.c. */
extern int vpp_attached, vpp_forked, vpp_leaving;
extern struct timespec vpp_last_accept;
/* A thread asks VPP without the GIL, and: a loop's look may attach to the next VPP. 0 if the other of the two is under way. */
int vpp_begin_asking (void);
void vpp_end_asking (void);
int vpp_begin_attaching_again (void);
void vpp_end_attaching_again (void);

/* Notes what a new handle is; -ENOMEM. */
int vpp_remember (uint32_t session, uint8_t kind);
/* Let VCL take all that VPP has sent, and keep the events for the next epoll_wait. 1 if there were any. */
int vpp_take_events (int index);
/* Wait, 0.4 s at most, until VPP has confirmed the end of closed listeners. */
void vpp_settle_closed_listeners (int index);
/* `session`, a listener, is closed, and VPP has not confirmed it yet. */
void vpp_remember_closing (uint32_t session);
/* An array with room for `wanted` items; -ENOMEM. */
int vpp_grow (void **array, int *room, int wanted, size_t item);

/* Whether VPP is away: VCL crashes on some calls then. Looks, and notes what it finds; see vpp_loss.c for these. */
int vpp_detached (int index);
/* Whether it has hung up on VCL's current worker, which VCL may not have noticed yet; and on any of the workers. */
int vpp_hung_up (void);
int vpp_is_lost (void);
/* A new worker knows of no loss that was before it. */
void vpp_begin_hearing (int index);
/* Whether the FIFOs of the worker's `session` were those of a VPP that is gone: VCL has unmapped them, and yet follows pointers into
 * them in calls that ask nothing of VPP. */
int vpp_outlived (int index, uint32_t session);
/* `listener` shall not listen again when VCL attaches: VPP will refuse, and it can be closed like any other session. */
void vpp_bind_nowhere (uint32_t listener);
/* Take the other workers along, before and after one attaches again; 0 if another cannot come yet. These, and the next,
 * leave any of the workers VCL's. */
int vpp_all_have_heard (void);
void vpp_let_all_attach (void);
/* Let go of what a VPP that died left behind, if no worker has another VPP, or anything in it. */
void vpp_drop_remains (void);
/* The current worker's descriptors are not for programs that this one starts, nor, called in a forked child, for that. */
void vpp_keep_from_children (void);
void vpp_leave_to_parent (void);

/* Whether the pool of sessions can no longer grow; asks. */
int vpp_heap_is_low (int index);
/* Whether there is room for one more session, which is to be made at once. */
int vpp_take_slot (int index);
/* `session` was closed. */
void vpp_note_end (uint32_t session);
/* Accept and reset what waits at the worker's listeners, unless there is room for it. */
void vpp_refuse_connections (int index);
/* The same for one connection of one listener; 0 if there is none, or no slot for it. */
int vpp_refuse_one (uint32_t listener);

int vpp_worker_register (void);
int vpp_worker_unregister (int index);
int vpp_worker_fd (int index);
int vpp_worker_is_detached (int index);
int vpp_epoll_create (int index);
int vpp_epoll_ctl (uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data);
int vpp_epoll_wait (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms);

/* A handle's worker becomes the calling thread's: VCL finds its worker in a thread-local index and does not look at the
 * handle's worker bits. This is what lets a loop move between threads. */
static inline int
enter (int index)
{
  if (index < 0 || index >= MAX_WORKERS)
    return -EBADF;
  if (!vpp_attached || !vpp_workers[index].registered)
    return vpp_forked ? -EOWNERDEAD : -ENOTCONN;
  if (vpp_workers[index].busy)
    return -EBUSY;
  if (vpp_current != index)
    {
      vcl.worker_index_set (index);
      vpp_current = index;
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

/* A worker that has lost VPP, and whose loop does not know yet, may have another one already. */
#define REQUIRE_VPP(index)                                                                                            \
  do                                                                                                                  \
    {                                                                                                                 \
      if (vpp_detached (index) || vpp_workers[index].untold)                                                          \
	return -ENETDOWN;                                                                                             \
    }                                                                                                                 \
  while (0)

static inline uint8_t
kind_of (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  return SESSION_INDEX (session) < w->n_sessions ? w->sessions[SESSION_INDEX (session)].kind : 0;
}

static inline void
vpp_note_kind (uint32_t session, uint8_t more)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];

  if (SESSION_INDEX (session) < w->n_sessions)
    w->sessions[SESSION_INDEX (session)].kind |= more;
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

#endif
