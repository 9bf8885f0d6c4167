/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations filled from the installed libvppcom.
 *
 * It flattens, forwards and guards. libvppcom takes the process down when it is called in a wrong state; each such state
 * is refused or defused in the files vpp_*.c, and nowhere else:
 *
 *   trap                                              what VCL does           what stands here
 *   a call before attach, after a failed one          SIGSEGV                 vpp_worker.h, enter(): -ENOTCONN
 *   a call on a thread without a worker               SIGSEGV                 enter() sets the handle's worker
 *   a handle of another worker                        wrong session           enter() sets the handle's worker
 *   a second vppcom_app_create                        corrupts its state      vpp_process.c, attach: -EALREADY
 *   a call that the session's state does not allow    does it                 vcl_states.c, vcl_refusal()
 *   listen on a connection that was reset             old error, then SIGSEGV vcl_states.c, vcl_refusal(): -EINVAL
 *   the epoll set used as a session                   any of these            vcl_states.c, vcl_refusal(): -EBADF
 *   listening again after an error                    the old error           vpp_slots.c, vpp_make_session()
 *   closing a session whose BOUND is to come          SIGSEGV                 vpp_slots.c, vpp_collect_owed()
 *   closing a session that connects                   keeps it for ever       vpp_slots.c, vpp_collect_owed()
 *   VPP dying, with an unused session in the set      EBADF for every new one vpp_slots.c, vpp_make_session()
 *   the same, and the set is closed                   never ends              vpp_slots.c, vpp_make_session()
 *   accept, connect, listen, UDP bind while detached  SIGSEGV                 REQUIRE_VPP: -ENETDOWN
 *   accept on a listener that outlived its VPP        SIGSEGV                 vpp_slots.c, vpp_lose_sessions()
 *   listeners that VCL lets listen again by itself    a port nobody serves    vpp_slots.c, vpp_lose_sessions()
 *   accept on an empty queue                          swallows events         vpp_session.c, accept: -EAGAIN
 *   listen, UDP bind with a clock that runs fast      ETIMEDOUT at once       vpp_session.c, wait_for_answer()
 *   closing a session after VPP died, then epoll_wait SIGSEGV                 vpp_worker.c, drain_parked()
 *   more events than epoll_wait takes, and VPP died   SIGSEGV                 vpp_worker.c, look()
 *   epoll_ctl, FIFO sizes of a session of a dead VPP  SIGSEGV                 VCL_LOST: -ECONNRESET
 *   attaching before all workers have noticed         SIGSEGV                 vpp_loss.c, vpp_all_have_heard()
 *   VPP dying before all workers have attached        exit(1)                 vpp_loss.c, vpp_let_all_attach()
 *   registering a worker with a VPP that is back      exit(1), two deaths on  vpp_loss.c, vpp_is_lost(): -ENETDOWN
 *   VPP dying                                         keeps its memory        vpp_remains.c, vpp_drop_remains()
 *   closing a listener with queued connections        SIGSEGV                 vpp_slots.c, close_listener()
 *   the same while detached                           SIGSEGV                 vpp_slots.c, bind_nowhere()
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
 *   FIFO memory is used up                            EAGAIN without an event vpp_data.c, refused_write(): -ENOBUFS
 *   sending from the wildcard address                 the packet is lost      vpp_data.c, has_source(): -EADDRNOTAVAIL
 *   sending from an unbound session                   ends the session        vpp_data.c, has_source(): -EADDRNOTAVAIL
 *   sending an empty datagram                         nothing, and says 0     vpp_data.c, sendto: -EOPNOTSUPP
 *   a child that has the app socket when VPP dies     loses VPP ever again    vpp_remains.c, vpp_leave_to_parent()
 *   exit() in a forked child                          deletes parent's worker vpp_process.c, vppaio_vpp_forked()
 *   exit() with another thread's worker               SIGSEGV                 vpp_process.c, at_exit()
 *   exit() while app_create waits for a hung VPP      SIGSEGV                 vpp_process.c, vppaio_vpp_give_up()
 *   exit() while VPP is away                          writes into a stranger  vpp_asking.c, vpp_sendmsg()
 *   attaching without descriptors, or address space   SIGSEGV                 room.py, vpp_segments.c, vpp_fetch()
 *   the same when VPP is back                         stdin's file, SIGSEGV   vpp_shortage.c, vpp_can_attach()
 *   a new segment without a descriptor, or memory     SIGSEGV                 vpp_shortage.c, vpp_look_at_socket()
 *   VPP dying with messages for the worker            reads freed memory      vpp_descriptors.c, only_the_end()
 *   VPP dying without descriptors                     exit(1)                 vpp_descriptors.c, vpp_pipe()
 *   exec                                              keeps all descriptors   vpp_descriptors.c, vpp_segments.c
 *
 * See "vppcom.c" in the comments of these files: src/vcl/vppcom.c of VPP 26.06.
 */
#define _GNU_SOURCE
#include "libvppcom.h"

#include "vpp_mapped.h"
#include "vpp_session.h"
#include "vpp_worker.h"

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
  .traps = VCL_TRAP_FIN_EXPIRES | VCL_TRAP_PORT_ZERO | VCL_TRAP_DATAGRAM_EVENTS |
	   VCL_TRAP_DATAGRAM_SPLIT | VCL_TRAP_DATAGRAM_DIES | VCL_TRAP_WRITE_WAKES,
  .worker_register = vpp_worker_register,
  .worker_unregister = vpp_worker_unregister,
  .worker_fd = vpp_worker_fd,
  .worker_is_detached = vpp_worker_is_detached,
  .epoll_create = vpp_epoll_create,
  .epoll_ctl = vpp_epoll_ctl,
  .epoll_wait = vpp_epoll_wait,
  .session_create = vpp_session_create,
  .session_bind = vpp_session_bind,
  .session_listen = vpp_session_listen,
  .session_accept = vpp_session_accept,
  .session_connect = vpp_session_connect,
  .session_connect_result = vpp_session_connect_result,
  .session_read = vpp_session_read,
  .session_write = vpp_session_write,
  .session_writev = vpp_session_writev,
  .session_recvfrom = vpp_session_recvfrom,
  .session_sendto = vpp_session_sendto,
  .session_shutdown = vpp_session_shutdown,
  .session_close = vpp_session_close,
  .session_readable = vpp_session_readable,
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
