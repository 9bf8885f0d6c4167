/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker of VCL's and its slots, and the check before every call: which worker, may VCL be called now?
 */
#ifndef VPPAIO_VPP_WORKER_H
#define VPPAIO_VPP_WORKER_H

#include "vcl_ops.h"
#include "vcl_states.h"
#include "vpp_library.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define MAX_WORKERS 128 /* a handle has its worker in the top byte and must stay a positive int */
#define MAX_SESSIONS (1 << 24)
#define SESSION_INDEX(handle) ((handle) & (MAX_SESSIONS - 1)) /* of our handles, and of VCL's */
#define HANDLE_WORKER(handle) ((int) ((handle) >> 24))
#define NO_SESSION UINT32_MAX

enum membership
{
  NOT_MEMBER = 0,
  WAITING, /* of the epoll set; VCL hears of it when it has the session */
  MEMBER,
};

/* What a handle of ours stands for; see vpp_slots.c. */
typedef struct
{
  uint32_t vcl;		/* VCL's session, or NO_SESSION: there is none yet, or none any more */
  uint8_t state;	/* enum vcl_state */
  uint8_t is_datagram;
  uint8_t is_ip4;
  uint8_t membership;
  uint8_t is_wildcard;	/* a datagram session that is bound to 0.0.0.0 or ::, and not known to have heard anything */
  uint8_t has_asked;	/* VPP to listen, and has no answer yet */
  uint8_t flags;	/* options that are on or off, by their place in vpp_names.c */
  uint16_t idle, interval; /* TCP_KEEPIDLE, TCP_KEEPINTVL */
  uint32_t events;	/* as epoll_ctl has them */
  union
  {
    uint64_t data;
    uint32_t next_free;
  };
  int error;		/* of a connect, positive */
  vcl_endpoint local;	/* as bound */
} slot_t;

/* A session of VCL's that nobody has any more, and that VPP owes an answer for; see vpp_slots.c. */
typedef struct
{
  uint32_t vcl;
  enum owed_kind
  {
    OWED_SESSION,
    OWED_LISTENER, /* or may become one with the answer */
    OWED_REFUSAL,  /* a listener of a VPP that is gone */
  } kind;
} owed_t;

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
  uint32_t vep; /* VCL's handle */
  int has_vep;
  slot_t *slots;
  uint32_t n_slots; /* that have ever been used */
  int room_slots;
  uint32_t free_slot; /* the last one freed, and one more; 0: there is none */
  owed_t *owed;
  int n_owed, room_owed;
  /* By VCL's index: closed, but VCL has not freed it yet. Its length is about that of VCL's pool. */
  uint8_t *is_ending;
  uint32_t n_sessions;
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

/* VCL has given out `session`, which may have been another's; -ENOMEM. */
int vpp_remember (uint32_t session);
/* Let VCL take all that VPP has sent, and keep the events for the next epoll_wait. 1 if there were any. */
int vpp_take_events (int index);
/* Wait until VPP has confirmed the end of closed listeners; 0, or -ETIMEDOUT. */
int vpp_settle_closed_listeners (int index);
/* `session`, a listener of VCL's, is closed, and VPP has not confirmed it yet. */
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
/* `session`, one of VCL's, was closed. */
void vpp_note_end (uint32_t session);
/* Accept and reset what waits at the worker's listeners, unless there is room for it. */
void vpp_refuse_connections (int index);
/* The same for one connection of one listener; 0 if there is none, or no slot for it. */
int vpp_refuse_one (uint32_t listener); /* VCL's */

/* Index of a slot that the caller fills or gives back; -ENOMEM, -EMFILE. See vpp_slots.c for these. */
int vpp_new_slot (worker_t *w);
void vpp_free_slot (worker_t *w, uint32_t slot);
/* Let the slot have a session of VCL's, bound if it is a stream that is; 0 or -errno. */
int vpp_make_session (int index, slot_t *s);
/* The slot's session is closed, at once or when VPP has answered. */
void vpp_drop_session (int index, slot_t *s);
/* What was owed and has come; and all that is left when the worker has lost VPP. */
void vpp_collect_owed (int index);
void vpp_lose_sessions (int index);
/* VCL has the session: let it join the epoll set, if it was to. */
int vpp_tell_epoll (worker_t *w, slot_t *s);

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

/* The slot of a handle of a worker that was entered. */
static inline slot_t *
slot_of (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  return SESSION_INDEX (session) < w->n_slots ? &w->slots[SESSION_INDEX (session)] : 0;
}

/* Declares `s`, the slot of a handle, after all checks. */
#define FIND(session, operation)                                                                                       \
  slot_t *s;                                                                                                           \
  ENTER (HANDLE_WORKER (session));                                                                                     \
  s = slot_of (session);                                                                                               \
  if (!s)                                                                                                              \
    return -EBADF;                                                                                                     \
  do                                                                                                                   \
    {                                                                                                                  \
      int refusal = vcl_refusal (s->is_datagram, s->state, operation);                                                 \
      if (refusal)                                                                                                     \
	return refusal;                                                                                                \
    }                                                                                                                  \
  while (0)

/* The same for bytes, which go to connected sessions only. */
#define FIND_CONNECTED(session, operation)                                                                             \
  slot_t *s;                                                                                                           \
  ENTER (HANDLE_WORKER (session));                                                                                     \
  s = slot_of (session);                                                                                               \
  if (__builtin_expect (!s || s->state != VCL_CONNECTED, 0))                                                           \
    return s ? vcl_refusal (s->is_datagram, s->state, operation) : -EBADF

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
