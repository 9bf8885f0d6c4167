/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations filled from the installed libvppcom.
 *
 * It flattens, forwards and guards. libvppcom takes the process down when it is called in a wrong state; each such state
 * is refused or defused in the files vpp_*.c and here, and nowhere else:
 *
 *   trap                                              what VCL does           what stands here
 *   a call before attach, after a failed one          SIGSEGV                 vpp_worker.h, enter(): -ENOTCONN
 *   a call on a thread without a worker               SIGSEGV                 enter() sets the handle's worker
 *   a handle of another worker                        wrong session           enter() sets the handle's worker
 *   a second vppcom_app_create                        corrupts its state      vpp_process.c, attach: -EALREADY
 *   accept, connect, listen, UDP bind while detached  SIGSEGV                 REQUIRE_VPP: -ENETDOWN
 *   accept on a listener that outlived its VPP        SIGSEGV                 session_accept(): -EBADF
 *   accept on an empty queue                          swallows events         session_accept(): -EAGAIN
 *   listen, UDP bind with a clock that runs fast      ETIMEDOUT at once       wait_for_answer()
 *   closing a session after VPP died, then epoll_wait SIGSEGV                 vpp_worker.c, drain_parked()
 *   more events than epoll_wait takes, and VPP died   SIGSEGV                 vpp_worker.c, look()
 *   epoll_ctl, FIFO sizes of a session of a dead VPP  SIGSEGV                 vpp_outlived(): -ECONNRESET
 *   attaching before all workers have noticed         SIGSEGV                 vpp_loss.c, vpp_all_have_heard()
 *   VPP dying before all workers have attached        exit(1)                 vpp_loss.c, vpp_let_all_attach()
 *   registering a worker with a VPP that is back      exit(1), two deaths on  vpp_loss.c, vpp_is_lost(): -ENETDOWN
 *   VPP dying                                         keeps its memory        vpp_remains.c, vpp_drop_remains()
 *   closing a listener with queued connections        SIGSEGV                 close_listener() accepts and closes them
 *   the same while detached                           SIGSEGV                 vpp_loss.c, vpp_bind_nowhere()
 *   listen or UDP bind soon after closing a listener  SIGSEGV                 vpp_settle_closed_listeners()
 *   VCL's heap is used up                             abort()                 vpp_heap.c: -ENOMEM
 *   VPP's queue is full, and VPP has not looked yet   waits for ever          vpp_queue.c, wait_for_room()
 *   the same while VPP hangs                          waits, with the GIL     vpp_overflow.c, vpp_overflow()
 *   asking a VPP that hangs for anything              waits for ever          vpp_asking.c: -ETIMEDOUT
 *   attaching to the next VPP while that hangs        waits, with the GIL     vpp_asking.c, vpp_is_answered()
 *   exit() while a thread asks a VPP that hangs       spins for ever          vpp_process.c, at_exit()
 *   a worker that VPP did not give                    counts: exit(1) later   vpp_worker.c, ask_for_worker()
 *   VPP dying                                         sleeps 1 s a worker     vpp_loss.c, vpp_sleep()
 *   reading settings while another thread sets some   SIGSEGV                 vpp_settings.c, vpp_getenv()
 *   FIFO memory is used up                            EAGAIN without an event refused_write(): -ENOBUFS
 *   sending from the wildcard address                 the packet is lost      has_source(): -EADDRNOTAVAIL
 *   sending an empty datagram                         nothing, and says 0     session_sendto(): -EOPNOTSUPP
 *   a child that has the app socket when VPP dies     loses VPP ever again    vpp_remains.c, vpp_leave_to_parent()
 *   exit() in a forked child                          deletes parent's worker vpp_process.c, vppaio_vpp_forked()
 *   exit() with another thread's worker               SIGSEGV                 vpp_process.c, at_exit()
 *   exit() while app_create waits for a hung VPP      SIGSEGV                 vpp_process.c, vppaio_vpp_give_up()
 *   exit() while VPP is away                          writes into a stranger  vpp_asking.c, vpp_sendmsg()
 *   attaching without descriptors, or address space   SIGSEGV                 room.py, vpp_segments.c, vpp_fetch()
 *   the same when VPP is back                         stdin's file, SIGSEGV   vpp_shortage.c, vpp_can_attach()
 *   a new segment without a descriptor, or memory     SIGSEGV                 vpp_shortage.c, vpp_look_at_socket()
 *   VPP dying without descriptors                     exit(1)                 vpp_descriptors.c, vpp_pipe()
 *   exec                                              keeps all descriptors   vpp_descriptors.c, vpp_segments.c
 *
 * See "vppcom.c" in the comments below: src/vcl/vppcom.c of VPP 26.06.
 */
#define _GNU_SOURCE
#include "libvppcom.h"

#include "vpp_asking.h"
#include "vpp_mapped.h"
#include "vpp_names.h"
#include "vpp_spare.h"
#include "vpp_worker.h"

#include <limits.h>
#include <sys/socket.h>
#include <time.h>

static int
session_create (int index, int proto, int is_ip4)
{
  int rv;

  (void) is_ip4; /* VCL learns the family from the first address */
  ENTER (index);
  if (proto != VCL_PROTO_TCP && proto != VCL_PROTO_UDP)
    return -EPROTONOSUPPORT;
  REQUIRE_VPP (index);
  if (!vpp_take_slot (index))
    return -ENOMEM;
  rv = vcl.session_create ((uint8_t) proto, 1);
  if (rv >= 0 && vpp_remember ((uint32_t) rv, proto == VCL_PROTO_UDP ? IS_DATAGRAM : 0))
    return -ENOMEM;
  if (rv >= 0 && proto == VCL_PROTO_UDP)
    vpp_workers[index].n_datagrams++;
  return result (rv);
}

/* A listen waits for VPP's answer by VCL's own clock, which may run thousands of times too fast: VCL measures the
 * processor's frequency for one millisecond, and does not notice if it was off the processor meanwhile (vppinfra/time.c:
 * estimate_clock_frequency). So wait on by the kernel's clock. `rv` is what the listen that began at `begin` returned. */
static int
wait_for_answer (uint32_t session, int rv, const struct timespec *begin)
{
  struct timespec now, pause = { 0, 200 * 1000 };

  clock_gettime (CLOCK_MONOTONIC, &now);
  while (rv == -ETIMEDOUT && now.tv_sec - begin->tv_sec < VPP_ASK_LIMIT_S && !vpp_detached (HANDLE_WORKER (session)))
    {
      vpp_take_events (HANDLE_WORKER (session));
      if (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) >= 0)
	return 0;
      if (vcl.session_get_error && vcl.session_get_error (session) < 0)
	return -ECONNREFUSED; /* VCL's line on stderr knows more */
      nanosleep (&pause, 0);
      clock_gettime (CLOCK_MONOTONIC, &now);
    }
  return rv;
}

static int
is_wildcard (const vcl_endpoint *address)
{
  static const uint8_t wildcard[16];

  return !memcmp (address->ip, wildcard, address->is_ip4 ? 4 : 16);
}

static int
session_bind (uint32_t session, const vcl_endpoint *local)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  vppcom_endpt ep;
  struct timespec begin;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  if (kind_of (session) & IS_DATAGRAM && (rv = vpp_can_grow (HANDLE_WORKER (session))))
    return rv;
  to_vppcom (&ep, local);
  w->busy = 1;
  if (kind_of (session) & IS_DATAGRAM)
    {
      /* It is a listen, with listen's errors. */
      vpp_settle_closed_listeners (HANDLE_WORKER (session));
      clock_gettime (CLOCK_MONOTONIC, &begin);
      rv = wait_for_answer (session, result (vcl.session_bind (session, &ep)), &begin);
      rv = rv == -ECONNREFUSED ? -EADDRNOTAVAIL : rv;
      if (rv >= 0 && is_wildcard (local))
	vpp_note_kind (session, IS_WILDCARD);
    }
  else
    rv = result (vcl.session_bind (session, &ep));
  w->busy = 0;
  return rv;
}

static int
session_listen (uint32_t session, int backlog)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  struct timespec begin;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  if ((rv = vpp_can_grow (HANDLE_WORKER (session))))
    return rv;
  w->busy = 1;
  vpp_settle_closed_listeners (HANDLE_WORKER (session));
  clock_gettime (CLOCK_MONOTONIC, &begin);
  rv = wait_for_answer (session, result (vcl.session_listen (session, (uint32_t) backlog)), &begin);
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
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  vppcom_endpt ep;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  if (!(kind_of (session) & IS_LISTENER) || w->sessions[SESSION_INDEX (session)].epoch != w->epoch)
    return -EBADF;
  /* With nothing queued VCL would flush its message queue into a place that does not wake us. */
  rv = vcl.session_attr (session, ATTR_GET_NREAD, 0, 0);
  if (rv < 0)
    return result (rv);
  if (w->has_refused)
    {
      w->has_refused = 0;
      return -ENOMEM; /* once for all that epoll_wait has refused meanwhile */
    }
  if (rv == 0 && vpp_shortage (HANDLE_WORKER (session)))
    return -vpp_shortage (HANDLE_WORKER (session));
  if (rv == 0 || vpp_leaving)
    return -EAGAIN;
  if (!vpp_take_slot (HANDLE_WORKER (session)))
    {
      vpp_refuse_one (session);
      return -ENOMEM;
    }
  lend (&ep, peer);
  rv = result (vcl.session_accept (session, &ep, 04000 /* O_NONBLOCK */));
  if (rv < 0)
    return rv;
  take_back (&ep, peer);
  clock_gettime (CLOCK_MONOTONIC_COARSE, &vpp_last_accept);
  return vpp_remember ((uint32_t) rv, 0) ? -ENOMEM : rv;
}

static int
session_connect (uint32_t session, const vcl_endpoint *peer)
{
  vppcom_endpt ep;
  int rv;

  ENTER (HANDLE_WORKER (session));
  REQUIRE_VPP (HANDLE_WORKER (session));
  if ((rv = vpp_can_grow (HANDLE_WORKER (session))))
    return rv;
  to_vppcom (&ep, peer);
  if (kind_of (session) & IS_DATAGRAM)
    vpp_note_kind (session, IS_CONNECTED);
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

/* "Try again" has two meanings: the FIFO is full, and VPP will tell when it is not; or its segment has no memory left for it
 * to grow (vppcom.c: vppcom_session_write_inline, `n_write < 0`), which other sessions may give back, and VPP says nothing. */
static int
refused_write (uint32_t session, int rv)
{
  return rv == -EAGAIN && vcl.session_attr (session, ATTR_GET_NWRITE, 0, 0) > 0 ? -ENOBUFS : result (rv);
}

static int
session_write (uint32_t session, const void *buffer, size_t size)
{
  int rv;

  ENTER (HANDLE_WORKER (session));
  rv = vcl.session_write (session, (void *) buffer, size > INT_MAX ? INT_MAX : size);
  return rv < 0 ? refused_write (session, rv) : rv;
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
	return total ? total : refused_write (session, rv);
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

/* VPP chooses no source address for a datagram: one from a session that is bound to the wildcard address leaves with
 * that as its source, and is lost. With each datagram received VCL overwrites the session's own address with the one
 * that the datagram was sent to (application_interface.h: app_recv_dgram_raw), and that is a source. */
static int
has_source (uint32_t session)
{
  vcl_endpoint local;

  if (!(kind_of (session) & IS_WILDCARD))
    return 1;
  if (vpp_session_local (session, &local) < 0 || is_wildcard (&local))
    return 0;
  vpp_workers[HANDLE_WORKER (session)].sessions[SESSION_INDEX (session)].kind &= (uint8_t) ~IS_WILDCARD;
  return 1;
}

static int
session_sendto (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to)
{
  vppcom_endpt ep;

  ENTER (HANDLE_WORKER (session));
  if (size > 65507)
    return -EMSGSIZE;
  if (!size)
    return -EOPNOTSUPP;
  if (to)
    {
      to_vppcom (&ep, to);
      if (!has_source (session))
	return -EADDRNOTAVAIL;
    }
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
 * While VPP is away they cannot be, so the listener stays, without its address: 256 bytes against a crash. */
static int
close_listener (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  vcl_endpoint peer;
  struct timespec pause = { 0, 200 * 1000 };
  int rv, round = 0;

  if (!vpp_detached (HANDLE_WORKER (session)))
    vpp_take_events (HANDLE_WORKER (session));
  while ((rv = session_accept (session, &peer)) >= 0 || rv == -ECONNABORTED || (rv == -ENOMEM && round++ < 2000))
    if (rv >= 0)
      vcl.session_close ((uint32_t) rv);
    else if (rv == -ENOMEM)
      {
	vpp_take_events (HANDLE_WORKER (session)); /* confirmations of what was refused so far */
	nanosleep (&pause, 0);
      }
  if (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) > 0)
    {
      vcl.epoll_ctl (w->vep, EPOLL_CTL_DEL, session, 0);
      vpp_bind_nowhere (session);
      w->sessions[SESSION_INDEX (session)].kind = 0;
      return 0;
    }
  rv = result (vcl.session_close (session));
  if (rv >= 0)
    {
      w->sessions[SESSION_INDEX (session)].kind = 0;
      vpp_remember_closing (session);
    }
  return rv;
}

static int
session_close (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];
  int rv;

  ENTER (HANDLE_WORKER (session));
  if (w->has_vep && w->vep == session)
    w->has_vep = 0;
  if (kind_of (session) & IS_LISTENER)
    return close_listener (session);
  rv = result (vcl.session_close (session));
  if (kind_of (session) & IS_DATAGRAM)
    {
      w->sessions[SESSION_INDEX (session)].kind = 0;
      w->n_datagrams--;
    }
  vpp_note_end (session);
  return rv;
}

static int
session_readable (uint32_t session)
{
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_attr (session, ATTR_GET_NREAD, 0, 0));
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

static int
session_forget (uint32_t session)
{
  (void) session;
  return -EOPNOTSUPP;
}

static const vcl_ops ops = {
  .name = "vpp",
  .traps = VCL_TRAP_FIN_EXPIRES | VCL_TRAP_CONNECT_LEAKS | VCL_TRAP_PORT_ZERO | VCL_TRAP_DATAGRAM_EVENTS |
	   VCL_TRAP_DATAGRAM_SPLIT | VCL_TRAP_DATAGRAM_DIES | VCL_TRAP_WRITE_WAKES,
  .worker_register = vpp_worker_register,
  .worker_unregister = vpp_worker_unregister,
  .worker_fd = vpp_worker_fd,
  .worker_is_detached = vpp_worker_is_detached,
  .epoll_create = vpp_epoll_create,
  .epoll_ctl = vpp_epoll_ctl,
  .epoll_wait = vpp_epoll_wait,
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
  .session_local = vpp_session_local,
  .session_peer = vpp_session_peer,
  .session_get_option = vpp_session_get_option,
  .session_set_option = vpp_session_set_option,
  .session_fd = session_fd,
  .session_adopt = session_adopt,
  .session_forget = session_forget,
};

const vcl_ops *
vppaio_vpp_ops (void)
{
  return vpp_with_mapped (&ops);
}
