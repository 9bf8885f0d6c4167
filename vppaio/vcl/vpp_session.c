/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a session of VPP's: made, bound, listening, accepted, connected, closed.
 */
#define _GNU_SOURCE
#include "vpp_session.h"

#include "vpp_asking.h"
#include "vpp_spare.h"
#include "vpp_worker.h"

#include <time.h>

int
vpp_session_create (int index, int proto, int is_ip4)
{
  worker_t *w = &vpp_workers[index < 0 ? 0 : index];
  int rv;

  ENTER (index);
  if (proto != VCL_PROTO_TCP && proto != VCL_PROTO_UDP)
    return -EPROTONOSUPPORT;
  REQUIRE_VPP (index);
  rv = vpp_new_slot (w);
  if (rv < 0)
    return rv;
  w->slots[rv].state = VCL_NEW;
  w->slots[rv].is_datagram = proto == VCL_PROTO_UDP;
  w->slots[rv].is_ip4 = !!is_ip4;
  return index << 24 | rv;
}

/* A listen waits for VPP's answer by VCL's own clock, which may run thousands of times too fast: VCL measures the
 * processor's frequency for one millisecond, and does not notice if it was off the processor meanwhile (vppinfra/time.c:
 * estimate_clock_frequency). So wait on by the kernel's clock. `rv` is what the listen that began at `begin` returned.
 * If VPP goes meanwhile, so does the session. */
static int
wait_for_answer (int index, slot_t *s, int rv, const struct timespec *begin)
{
  struct timespec now, pause = { 0, 200 * 1000 };

  clock_gettime (CLOCK_MONOTONIC, &now);
  while (rv == -ETIMEDOUT && now.tv_sec - begin->tv_sec < VPP_ASK_LIMIT_S && s->vcl != NO_SESSION)
    {
      vpp_take_events (index);
      if (s->vcl == NO_SESSION)
	break;
      if (vcl.session_attr (s->vcl, ATTR_GET_NREAD, 0, 0) >= 0)
	return 0;
      if (vcl.session_get_error && vcl.session_get_error (s->vcl) < 0)
	return result (vcl.session_get_error (s->vcl)) == -EADDRINUSE ? -EADDRINUSE : -ECONNREFUSED;
      nanosleep (&pause, 0);
      clock_gettime (CLOCK_MONOTONIC, &now);
    }
  return s->vcl == NO_SESSION ? -ENETDOWN : rv;
}

/* Make a session that listens on `local`: a stream's, or a datagram session's, whose bind is a listen. `s` keeps its state
 * if that fails. */
static int
listen_on (int index, slot_t *s, const vcl_endpoint *local, int backlog)
{
  worker_t *w = &vpp_workers[index];
  vppcom_endpt ep;
  struct timespec begin;
  int rv;

  if ((rv = vpp_can_grow (index)))
    return rv;
  w->busy = 1;
  rv = vpp_settle_closed_listeners (index);
  if (rv == 0)
    rv = vpp_make_session (index, s);
  if (rv == 0)
    {
      to_vppcom (&ep, local);
      s->has_asked = 1;
      clock_gettime (CLOCK_MONOTONIC, &begin);
      rv = s->is_datagram ? vcl.session_bind (s->vcl, &ep) : vcl.session_listen (s->vcl, (uint32_t) backlog);
      rv = wait_for_answer (index, s, result (rv), &begin);
      if (rv < 0 && rv != -ETIMEDOUT)
	s->has_asked = 0; /* it has been answered, or nobody will */
      if (rv < 0)
	vpp_drop_session (index, s);
      s->has_asked = 0;
    }
  w->busy = 0;
  /* VCL says "refused" for all but a port in use; what remains is an address that is not VPP's. */
  return rv == -ECONNREFUSED ? -EADDRNOTAVAIL : rv;
}

static int
is_wildcard (const vcl_endpoint *address)
{
  static const uint8_t wildcard[16];

  return !memcmp (address->ip, wildcard, address->is_ip4 ? 4 : 16);
}

int
vpp_session_bind (uint32_t session, const vcl_endpoint *local)
{
  int index = HANDLE_WORKER (session), rv;
  FIND (session, VCL_OP_BIND);

  if (!local->is_ip4 && s->is_ip4) /* the other way round it may be a mapped address, see vpp_mapped.c */
    return -EAFNOSUPPORT;
  if (s->is_datagram)
    {
      REQUIRE_VPP (index);
      rv = listen_on (index, s, local, 0);
      if (rv < 0)
	return rv;
      s->is_wildcard = (uint8_t) is_wildcard (local);
    }
  s->local = *local;
  s->state = VCL_BOUND;
  return s->is_datagram ? vpp_tell_epoll (&vpp_workers[index], s) : 0;
}

int
vpp_session_listen (uint32_t session, int backlog)
{
  int index = HANDLE_WORKER (session), rv;
  FIND (session, VCL_OP_LISTEN);

  REQUIRE_VPP (index);
  if (s->state == VCL_LISTENING)
    return 0;
  if (s->state == VCL_NEW)
    return -EDESTADDRREQ; /* VCL_TRAP_PORT_ZERO: nobody chooses a port for it */
  rv = listen_on (index, s, &s->local, backlog);
  if (rv < 0)
    return rv;
  s->state = VCL_LISTENING;
  return vpp_tell_epoll (&vpp_workers[index], s);
}

int
vpp_session_accept (uint32_t session, vcl_endpoint *peer)
{
  int index = HANDLE_WORKER (session), slot, rv;
  worker_t *w = &vpp_workers[index];
  vppcom_endpt ep;
  FIND (session, VCL_OP_ACCEPT);

  REQUIRE_VPP (index);
  /* With nothing queued VCL would flush its message queue into a place that does not wake us. */
  rv = vcl.session_attr (s->vcl, ATTR_GET_NREAD, 0, 0);
  if (rv < 0)
    return result (rv);
  if (w->has_refused)
    {
      w->has_refused = 0;
      return -ENOMEM; /* once for all that epoll_wait has refused meanwhile */
    }
  if (rv == 0 && vpp_shortage (index))
    return -vpp_shortage (index);
  if (rv == 0 || vpp_leaving)
    return -EAGAIN;
  if (!vpp_take_slot (index))
    {
      vpp_refuse_one (s->vcl);
      return -ENOMEM;
    }
  slot = vpp_new_slot (w);
  if (slot < 0)
    return slot;
  s = slot_of (session); /* they may have moved */
  lend (&ep, peer);
  rv = result (vcl.session_accept (s->vcl, &ep, 04000 /* O_NONBLOCK */));
  if (rv < 0)
    {
      vpp_free_slot (w, (uint32_t) slot);
      return rv;
    }
  take_back (&ep, peer);
  clock_gettime (CLOCK_MONOTONIC_COARSE, &vpp_last_accept);
  w->slots[slot].vcl = (uint32_t) rv;
  w->slots[slot].state = VCL_CONNECTED;
  w->slots[slot].is_ip4 = peer->is_ip4;
  if (vpp_remember ((uint32_t) rv) == 0)
    return index << 24 | slot;
  vpp_drop_session (index, &w->slots[slot]);
  vpp_free_slot (w, (uint32_t) slot);
  return -ENOMEM;
}

int
vpp_session_connect (uint32_t session, const vcl_endpoint *peer)
{
  int index = HANDLE_WORKER (session), rv = 0;
  vppcom_endpt ep;
  FIND (session, VCL_OP_CONNECT);

  if (!peer->is_ip4 && s->is_ip4)
    return -EAFNOSUPPORT;
  REQUIRE_VPP (index);
  if ((rv = vpp_can_grow (index)))
    return rv;
  if (s->vcl == NO_SESSION)
    rv = vpp_make_session (index, s);
  if (rv < 0)
    return rv;
  to_vppcom (&ep, peer);
  rv = result (vcl.session_connect (s->vcl, &ep));
  if (rv < 0 && rv != -EINPROGRESS)
    {
      vpp_drop_session (index, s);
      s->state = VCL_NEW;
      return rv;
    }
  s->state = VCL_CONNECTING;
  s->is_wildcard = 0;
  rv = vpp_tell_epoll (&vpp_workers[index], s);
  return rv < 0 ? rv : -EINPROGRESS;
}

int
vpp_session_connect_result (uint32_t session, uint32_t events)
{
  int rv = 0;
  FIND (session, VCL_OP_RESULT);

  if (s->state == VCL_CONNECTED || s->state == VCL_FAILED)
    return -s->error;
  if (!(events & (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP)))
    return -EINPROGRESS;
  if (vcl.session_get_error)
    rv = result (vcl.session_get_error (s->vcl));
  /* A failed connect is OUT|HUP and nothing else; a session that connected and was closed says RDHUP too. */
  if (rv >= 0 && (events & EPOLLHUP) && !(events & (EPOLLRDHUP | EPOLLERR)))
    rv = -EFAULT;
  s->state = rv < 0 ? VCL_FAILED : VCL_CONNECTED;
  s->error = rv < 0 ? -rv : 0;
  return rv < 0 ? rv : 0;
}

int
vpp_session_shutdown (uint32_t session, int how)
{
  FIND (session, VCL_OP_SHUTDOWN);
  return result (vcl.session_shutdown (s->vcl, how));
}

int
vpp_session_close (uint32_t session)
{
  int index = HANDLE_WORKER (session);
  worker_t *w = &vpp_workers[index];
  uint32_t i;
  FIND (session, VCL_OP_CLOSE);

  if (s->state == VCL_EPOLL_SET)
    {
      w->has_vep = 0;
      for (i = 0; i < w->n_slots; i++)
	w->slots[i].membership = NOT_MEMBER;
      vcl.session_close (s->vcl);
    }
  else
    vpp_drop_session (index, s);
  vpp_free_slot (w, SESSION_INDEX (session));
  return 0;
}
