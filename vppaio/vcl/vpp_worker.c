/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers, and the epoll set of each.
 */
#define _GNU_SOURCE
#include "vpp_worker.h"

#include "vpp_asking.h"
#include "vpp_hooks.h"
#include "vpp_spare.h"

#include <stdlib.h>
#include <time.h>

worker_t vpp_workers[MAX_WORKERS];
__thread int vpp_current = -1;
/* More than one look can bring: the queue's events, and those of its ring for connections. */
static int most_events = 65536 * 17 / 16;

void
vppaio_vpp_event_queue (int size)
{
  if (size * 17LL / 16 > most_events && size < 1 << 26)
    most_events = size / 16 * 17;
}

int
vpp_grow (void **array, int *room, int wanted, size_t item)
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

int
vpp_remember (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  uint32_t index = SESSION_INDEX (session);
  int i, room = (int) w->n_sessions;

  if (vpp_grow ((void **) &w->is_ending, &room, (int) index + 1, sizeof (*w->is_ending)))
    return -ENOMEM;
  if ((uint32_t) room > w->n_sessions)
    memset (w->is_ending + w->n_sessions, 0, (uint32_t) room - w->n_sessions);
  w->n_sessions = (uint32_t) room;
  w->is_ending[index] = 0;
  for (i = 0; i < w->n_closing; i++)
    if (w->closing[i] == session) /* it was freed meanwhile */
      w->closing[i--] = w->closing[--w->n_closing];
  return 0;
}

/* Ask VCL to register the calling thread. EEXIST stands for every failure: max-workers reached, VPP refused, or did not
 * answer. A worker that VPP did not give VCL keeps, and counts it when it attaches to the next VPP, so it is given back. */
static int
ask_for_worker (void)
{
  struct timespec begin, end;

  clock_gettime (CLOCK_MONOTONIC, &begin);
  vcl.worker_index_set (-1); /* VCL registers only a thread that has none */
  vpp_current = -1;
  if (vcl.worker_register () >= 0)
    return 0;
  clock_gettime (CLOCK_MONOTONIC, &end);
  if (vcl.worker_index () >= 0)
    {
      vpp_ask_quietly (1);
      vcl.worker_unregister ();
      vpp_ask_quietly (0);
    }
  vcl.worker_index_set (-1);
  return end.tv_sec - begin.tv_sec >= VPP_ASK_LIMIT_S - 1 ? -ETIMEDOUT : -ENOBUFS;
}

int
vpp_worker_register (void)
{
  int rv, index;

  if (!vpp_attached)
    return vpp_forked ? -EOWNERDEAD : -ENOTCONN;
  rv = vpp_can_register ();
  if (rv < 0)
    return rv;
  if (!vpp_begin_asking ())
    return -ENETDOWN;
  /* VCL would ask for it in the name of an application that VPP no longer knows, or knows as another's. */
  rv = vpp_is_lost () ? -ENETDOWN : ask_for_worker ();
  vpp_end_asking ();
  if (rv < 0)
    return rv;
  index = vcl.worker_index ();
  if (index < 0 || index >= MAX_WORKERS)
    {
      vcl.worker_unregister ();
      return -ENOBUFS;
    }
  vpp_current = index;
  memset (&vpp_workers[index], 0, sizeof (vpp_workers[index]));
  vpp_begin_hearing (index);
  vpp_keep_from_children ();
  vpp_workers[index].registered = 1;
  vpp_spare_settle ();
  return index;
}

int
vpp_worker_unregister (int index)
{
  worker_t *w = &vpp_workers[index];

  ENTER (index);
  vcl.worker_unregister ();
  vpp_current = -1;
  free (w->slots);
  free (w->owed);
  free (w->is_ending);
  free (w->closing);
  free (w->parked);
  free (w->spare);
  free (w->ending);
  memset (w, 0, sizeof (*w));
  vpp_spare_settle ();
  return 0;
}

int
vpp_worker_fd (int index)
{
  ENTER (index);
  return vcl.worker_mqs_epfd ();
}

int
vpp_epoll_create (int index)
{
  worker_t *w = &vpp_workers[index < 0 ? 0 : index];
  int slot, rv;

  ENTER (index);
  if (w->has_vep)
    return -EEXIST;
  slot = vpp_new_slot (w);
  if (slot < 0)
    return slot;
  rv = vpp_take_slot (index) ? vcl.epoll_create () : -ENOMEM;
  if (rv < 0 || vpp_remember ((uint32_t) rv))
    {
      if (rv >= 0)
	vcl.session_close ((uint32_t) rv);
      vpp_free_slot (w, (uint32_t) slot);
      return rv < 0 ? result (rv) : -ENOMEM;
    }
  w->slots[slot].state = VCL_EPOLL_SET;
  w->slots[slot].vcl = w->vep = (uint32_t) rv;
  w->has_vep = 1;
  w->n_parked = 0; /* the former set's */
  return index << 24 | slot;
}

/* VCL sets flags in the session's FIFOs when it joins the set or asks for other events, unmapped or not: not of one that was
 * lost, then. */
int
vpp_epoll_ctl (uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (vep) & (MAX_WORKERS - 1)];
  struct epoll_event event = { .events = events, .data.u64 = data };
  slot_t *set, *s;
  int refusal, was;

  ENTER (HANDLE_WORKER (vep));
  set = slot_of (vep);
  s = HANDLE_WORKER (session) == HANDLE_WORKER (vep) ? slot_of (session) : 0;
  if (!set || set->state == VCL_FREE || !s)
    return -EBADF;
  refusal = vcl_refusal (s->is_datagram, s->state, op == EPOLL_CTL_DEL ? VCL_OP_CLOSE : VCL_OP_WATCH);
  if (refusal)
    return refusal;
  if (set->state != VCL_EPOLL_SET || s->state == VCL_EPOLL_SET)
    return -EINVAL;
  was = s->membership;
  if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL)
    return -EINVAL;
  if (op == EPOLL_CTL_ADD ? was != NOT_MEMBER : was == NOT_MEMBER)
    return was ? -EEXIST : -ENOENT;
  if (op == EPOLL_CTL_DEL)
    {
      s->membership = NOT_MEMBER;
      return was == MEMBER ? result (vcl.epoll_ctl (set->vcl, op, s->vcl, &event)) : 0;
    }
  s->events = events;
  s->data = data;
  if (op == EPOLL_CTL_MOD)
    return was == MEMBER ? result (vcl.epoll_ctl (set->vcl, op, s->vcl, &event)) : 0;
  s->membership = WAITING;
  refusal = s->vcl == NO_SESSION ? 0 : vpp_tell_epoll (w, s);
  if (refusal < 0)
    s->membership = NOT_MEMBER;
  return refusal;
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

/* Take all that VPP has sent; returns how many events that were, or VCL's error. There is room for all of them: what does
 * not fit VCL parks, and if the same look finds that VPP died, it unmaps the FIFOs and then looks into them for the parked
 * events (the same place, RX and CONNECTED). */
static int
look (int index, uint32_t vep)
{
  worker_t *w = &vpp_workers[index];
  int n, was_detached = w->was_detached;

  if (vpp_grow ((void **) &w->parked, &w->room_parked, w->n_parked + most_events, sizeof (*w->parked)))
    return -ENOMEM;
  n = vcl.epoll_wait (vep, w->parked + w->n_parked, w->room_parked - w->n_parked, VCL_WAIT_NOW);
  if (n > 0)
    w->n_parked += n;
  if (vpp_detached (index) && !was_detached)
    {
      drain_parked (vep);
      w->n_parked = 0;
      vpp_lose_sessions (index);
    }
  if (was_detached && !w->was_detached)
    vpp_keep_from_children ();
  if (vpp_shortage (index))
    vpp_ask_sessions (index);
  if ((n > 0 || w->heap_low) && vpp_heap_is_low (index))
    vpp_refuse_connections (index);
  return n;
}

/* A look that may attach to the next VPP; none if it is not the time to. See vpp_loss.c and vpp_asking.c. */
static int
attach_again (int index)
{
  int rv;

  if (!vpp_all_have_heard () || !vpp_is_answered () || !vpp_begin_attaching_again ())
    return 0;
  if (vpp_workers[index].has_remains)
    vpp_drop_remains ();
  rv = enter (index); /* these were with the others */
  if (!rv && vpp_can_attach ())
    {
      vpp_ask_on_loop (1);
      rv = look (index, vpp_workers[index].vep);
      vpp_ask_on_loop (0);
      if (!vpp_detached (index))
	{
	  vpp_let_all_attach ();
	  vpp_spare_settle ();
	}
    }
  vpp_end_attaching_again ();
  return rv;
}

int
vpp_epoll_wait (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms)
{
  int index = HANDLE_WORKER (vep);
  worker_t *w = &vpp_workers[index];
  slot_t *set;
  int n, rv = 0;

  ENTER (index);
  set = slot_of (vep);
  if (!set || set->state == VCL_FREE)
    return -EBADF;
  if (set->state != VCL_EPOLL_SET || max_events <= 0 || (timeout_ms != VCL_WAIT_PARKED && timeout_ms != VCL_WAIT_NOW))
    return -EINVAL;
  if (timeout_ms == VCL_WAIT_NOW && w->n_parked < max_events && !w->untold)
    {
      rv = w->was_detached ? attach_again (index) : look (index, w->vep);
      ENTER (index); /* it may have been with the others */
      if (w->n_owed && !vpp_detached (index))
	vpp_collect_owed (index);
    }
  n = w->n_parked < max_events ? w->n_parked : max_events;
  if (n)
    {
      memcpy (events, w->parked, n * sizeof (*events));
      w->n_parked -= n;
      memmove (w->parked, w->parked + n, w->n_parked * sizeof (*events));
    }
  if (timeout_ms == VCL_WAIT_PARKED && n < max_events)
    {
      rv = vcl.epoll_wait (w->vep, events + n, max_events - n, VCL_WAIT_PARKED);
      n += rv > 0 ? rv : 0;
    }
  return rv < 0 && !n ? result (rv) : n;
}

int
vpp_take_events (int index)
{
  worker_t *w = &vpp_workers[index];
  int n, before = w->n_parked;

  if (w->rings)
    return 0;
  do
    n = w->has_vep ? look (index, w->vep) : 0;
  while (n > 0 && !vpp_detached (index)); /* or the next look might attach again, and nobody had heard of the loss */
  return w->n_parked > before;
}

/* VPP may still announce connections of a listener that was just closed. Where VCL flushes its queue itself (inside
 * listen and UDP bind) such a message makes it look up a session that is gone, and crash (vppcom.c:
 * vcl_handle_mq_event, ACCEPTED). epoll_wait survives it. So let epoll_wait take everything until VPP has
 * confirmed, which frees the handle, and keep the events for later. */
int
vpp_settle_closed_listeners (int index)
{
  worker_t *w = &vpp_workers[index];
  struct timespec pause = { 0, 200 * 1000 };
  int i, round;

  for (round = 0; w->n_closing && round < 25000; round++) /* 5 s; a VPP that runs needs 0.1 s at most */
    {
      for (i = 0; i < w->n_closing;)
	if (vcl.session_attr (w->closing[i], ATTR_GET_NREAD, 0, 0) == -EBADFD)
	  w->closing[i] = w->closing[--w->n_closing];
	else
	  i++;
      if (w->n_closing && !vpp_take_events (index))
	nanosleep (&pause, 0);
    }
  return w->n_closing ? -ETIMEDOUT : vpp_detached (index) ? -ENETDOWN : 0;
}

void
vpp_remember_closing (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];

  if (!vpp_grow ((void **) &w->closing, &w->room_closing, w->n_closing + 1, sizeof (*w->closing)))
    w->closing[w->n_closing++] = session;
}
