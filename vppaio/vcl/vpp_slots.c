/* SPDX-License-Identifier: Apache-2.0
 *
 * What handles stand for: slots of our own, which have a session of VCL's while there is something for VPP to know.
 *
 * 1. A slot gets its session with the first listen, connect or bind of a datagram session, and a fresh one for each listen.
 *    VCL has one state, CLOSED, for sessions that nothing was done with and for those that were closed; it never frees the
 *    first, and when VPP dies it frees both, epoll set or not (vcl_private.c: vcl_worker_detach_sessions, 26.06). What it
 *    freed in the set breaks the set: no session can join it any more, and closing it never ends.
 *
 * 2. What VPP owes an answer for is not freed before. VPP answers with the index of the session, and VCL takes what it finds
 *    there (vppcom.c: vcl_session_bound_handler crashes without a session, and makes a listener of any; the same in
 *    vcl_session_connected_handler). So a session that is closed while it connects, or whose listen was given up, goes to
 *    the list of those owed. With a look at what VPP has sent, vpp_collect_owed closes those whose answer has come.
 *      CONNECTED     the session can be read, or has an error
 *      BOUND         the session counts connections, or has an error
 *      UNLISTEN, CLEANUP   VCL keeps the session itself until then
 *
 * 3. When VPP dies, vpp_lose_sessions leaves nothing in VCL that it could take up again by itself: listeners, which it would
 *    let listen again, and bound datagram sessions are closed, and so is what is owed. Connections stay until they are
 *    closed from above, for their names. VCL has freed the session of a listen under way: it is no longer there to be closed.
 *
 * The layers above hear of none of this. A stream that was made or bound while VPP died is as it was.
 */
#define _GNU_SOURCE
#include "vpp_worker.h"

#include <stdlib.h>

#define GONE(session) (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) == -EBADFD)

int
vpp_new_slot (worker_t *w)
{
  uint32_t index = w->free_slot - 1;

  if (w->free_slot)
    w->free_slot = w->slots[index].next_free;
  else
    {
      index = w->n_slots;
      if (index == MAX_SESSIONS)
	return -EMFILE;
      if (vpp_grow ((void **) &w->slots, &w->room_slots, (int) index + 1, sizeof (*w->slots)))
	return -ENOMEM;
      w->n_slots++;
    }
  w->slots[index] = (slot_t){ .vcl = NO_SESSION };
  return (int) index;
}

void
vpp_free_slot (worker_t *w, uint32_t index)
{
  w->slots[index].state = VCL_FREE;
  w->slots[index].next_free = w->free_slot;
  w->free_slot = index + 1;
}

int
vpp_make_session (int index, slot_t *s)
{
  vppcom_endpt ep;
  int rv;

  if (!vpp_take_slot (index))
    return -ENOMEM;
  rv = vcl.session_create (s->is_datagram ? VCL_PROTO_UDP : VCL_PROTO_TCP, 1);
  if (rv < 0)
    return result (rv);
  if (vpp_remember ((uint32_t) rv))
    {
      vcl.session_close ((uint32_t) rv);
      return -ENOMEM;
    }
  s->vcl = (uint32_t) rv;
  if (s->state == VCL_BOUND && !s->is_datagram)
    {
      to_vppcom (&ep, &s->local);
      vcl.session_bind (s->vcl, &ep);
    }
  return 0;
}

int
vpp_tell_epoll (worker_t *w, slot_t *s)
{
  struct epoll_event event = { .events = s->events, .data.u64 = s->data };
  int rv;

  if (s->membership != WAITING)
    return 0;
  rv = result (vcl.epoll_ctl (w->vep, EPOLL_CTL_ADD, s->vcl, &event));
  if (rv >= 0)
    s->membership = MEMBER;
  return rv;
}

/* Nobody has `session` any more. Without memory to remember it VCL gets it at once, and keeps its 256 bytes if the answer is
 * an error. */
static void
owe (worker_t *w, uint32_t session, enum owed_kind kind)
{
  if (!vpp_grow ((void **) &w->owed, &w->room_owed, w->n_owed + 1, sizeof (*w->owed)))
    w->owed[w->n_owed++] = (owed_t){ session, kind };
  else if (kind == OWED_SESSION)
    vcl.session_close (session);
}

/* A listener with connections that nobody has accepted. */
static int
has_queue (uint32_t session)
{
  return vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) > 0;
}

/* It shall not listen again when VCL attaches: VPP will refuse, and then it can be closed like any other session. */
static void
bind_nowhere (uint32_t listener)
{
  uint8_t ip[16] = { 255, 255, 255, 255 };
  vppcom_endpt nowhere = { .is_ip4 = 1, .ip = ip, .port = 1 };

  vcl.session_bind (listener, &nowhere);
}

/* Close what is there of a session of a VPP that is gone. Queued connections cannot be closed then: the listener waits for
 * the refusal. */
static void
close_lost (worker_t *w, uint32_t session)
{
  if (GONE (session))
    return;
  if (has_queue (session))
    {
      if (w->has_vep)
	vcl.epoll_ctl (w->vep, EPOLL_CTL_DEL, session, 0);
      bind_nowhere (session);
      owe (w, session, OWED_REFUSAL);
    }
  else
    vcl.session_close (session);
}

/* Connections nobody accepted are accepted and closed first (vppcom.c: vppcom_session_unbind refuses them through a
 * queue that a listener does not have), those that VCL has not heard of yet included: announced to a listener that is
 * gone they would stay open in VPP, and their peers wait. (One whose handshake ends between this and VPP's unlisten still
 * does: VCL drops the announcement, and with it the only handle. Its peer hears of it when the process ends.) */
static void
close_listener (int index, uint32_t session)
{
  worker_t *w = &vpp_workers[index];
  struct timespec pause = { 0, 200 * 1000 };
  uint32_t epoch = w->epoch;
  int round = 0;

  while (!vpp_leaving && w->epoch == epoch && has_queue (session) && round < 2000)
    if (vpp_take_slot (index))
      {
	uint8_t ip[16];
	vppcom_endpt peer = { .ip = ip };
	int rv = vcl.session_accept (session, &peer, 04000 /* O_NONBLOCK */);

	if (rv < 0)
	  {
	    round += rv != -ECONNABORTED;
	    continue;
	  }
	clock_gettime (CLOCK_MONOTONIC_COARSE, &vpp_last_accept);
	if (vpp_remember ((uint32_t) rv) == 0)
	  vpp_note_end ((uint32_t) rv);
	vcl.session_close ((uint32_t) rv);
      }
    else if (!vpp_refuse_one (session))
      {
	round++;
	vpp_take_events (index); /* confirmations of what was refused so far */
	nanosleep (&pause, 0);
      }
  if (w->epoch != epoch)
    close_lost (w, session);
  else if (has_queue (session))
    owe (w, session, OWED_LISTENER);
  else
    {
      vcl.session_close (session);
      vpp_note_end (session);
      vpp_remember_closing (session);
    }
}

void
vpp_drop_session (int index, slot_t *s)
{
  worker_t *w = &vpp_workers[index];
  uint32_t session;

  if (s->state == VCL_LISTENING && !vpp_detached (index))
    vpp_take_events (index); /* may find that VPP is gone, and this session then */
  session = s->vcl;
  if (session == NO_SESSION)
    return;
  s->vcl = NO_SESSION;
  if (s->membership == MEMBER)
    vcl.epoll_ctl (w->vep, EPOLL_CTL_DEL, session, 0);
  s->membership = s->membership ? WAITING : NOT_MEMBER;
  if (s->state == VCL_LISTENING)
    close_listener (index, session);
  else if (s->has_asked)
    owe (w, session, s->is_datagram ? OWED_SESSION : OWED_LISTENER);
  else if (s->state == VCL_CONNECTING && !s->error)
    owe (w, session, OWED_SESSION);
  else
    {
      vcl.session_close (session);
      vpp_note_end (session);
    }
}

/* Whether VPP's answer is there. */
static int
is_settled (const owed_t *one)
{
  int n = vcl.session_attr (one->vcl, ATTR_GET_NREAD, 0, 0);

  if (n >= 0)
    return one->kind != OWED_REFUSAL;
  return n != -ENOTCONN || !vcl.session_get_error || vcl.session_get_error (one->vcl) < 0;
}

void
vpp_collect_owed (int index)
{
  worker_t *w = &vpp_workers[index];
  int i, n = w->n_owed;

  for (i = 0; i < w->n_owed && n-- > 0;)
    {
      owed_t one = w->owed[i];

      if (!is_settled (&one))
	{
	  i++;
	  continue;
	}
      w->owed[i] = w->owed[--w->n_owed];
      if (GONE (one.vcl))
	continue;
      if (one.kind == OWED_LISTENER && vcl.session_attr (one.vcl, ATTR_GET_NREAD, 0, 0) >= 0)
	close_listener (index, one.vcl); /* which may put it on the list again */
      else
	{
	  vcl.session_close (one.vcl);
	  vpp_note_end (one.vcl);
	}
    }
}

void
vpp_lose_sessions (int index)
{
  worker_t *w = &vpp_workers[index];
  uint32_t i;
  int k, n = w->n_owed;

  for (k = 0; k < w->n_closing; k++)
    if (!GONE (w->closing[k]))
      vcl.session_close (w->closing[k]);
  w->n_closing = 0;
  while (n-- > 0)
    {
      uint32_t session = w->owed[0].vcl;

      memmove (w->owed, w->owed + 1, --w->n_owed * sizeof (*w->owed));
      close_lost (w, session);
    }
  for (i = 0; i < w->n_slots; i++)
    {
      slot_t *s = &w->slots[i];

      if (s->state == VCL_EPOLL_SET || s->state == VCL_FREE || s->vcl == NO_SESSION)
	continue;
      if (s->state == VCL_LISTENING || s->has_asked || (s->is_datagram && s->state == VCL_BOUND))
	{
	  close_lost (w, s->vcl);
	  s->vcl = NO_SESSION;
	  s->membership = s->membership ? WAITING : NOT_MEMBER;
	}
      if (!s->has_asked)
	s->state = VCL_LOST;
    }
}
