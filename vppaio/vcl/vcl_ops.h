/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations: everything that vppaio asks of a stack.
 *
 * A stack is a TCP/IP implementation: VPP's or the kernel's. vppaio calls both through this table of function pointers, so
 * the code above knows no difference. libvppcom.c fills the table for VPP; it forwards to the installed libvppcom (VCL).
 * host.c fills it for the kernel, with kernel sockets. The tests fill a third table from Python.
 *
 * The terms, and the meaning of most calls, are VCL's (src/vcl/vppcom.h in VPP's sources):
 *
 *   result     every call returns a non-negative number, or a negative errno
 *   session    a connection, a listener or a datagram endpoint; known by its handle, a number that is no descriptor
 *   worker     what one event loop has on a stack: an epoll set, its sessions, and a descriptor
 *   epoll set  tells which sessions have news, edge-triggered: each change is told once
 *   worker_fd  the worker's descriptor. It is readable while the epoll set has something to tell, so the kernel can wait
 *              for it together with other descriptors
 *
 * Threads: one thread at a time uses a worker, and which one may change between calls. A handle belongs to one worker
 * (VCL has the worker in the handle's top byte). All calls return at once, except session_listen and the session_bind of a
 * datagram session, which may take 100 ms. So callers release the GIL for these two and keep it for all others; the GIL is
 * what keeps two calls on one worker apart. A call on a worker that waits in one of the two gets -EBUSY.
 *
 * Nothing here may crash the process. Each session is in one state, and a call that the state does not allow is refused;
 * see vcl_states.c.
 */
#ifndef VPPAIO_VCL_OPS_H
#define VPPAIO_VCL_OPS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/uio.h>

enum
{
  VCL_PROTO_TCP = 0,
  VCL_PROTO_UDP = 1,
};

/* Where a stack differs from the kernel in a way that the layers above have to answer for. */
enum
{
  /* After the peer's FIN, unread data is dropped after 2 s (CLOSE_WAIT timer): drain at once. */
  VCL_TRAP_FIN_EXPIRES = 1 << 0,
  /* Port 0 stays 0: choose an ephemeral port before bind. */
  VCL_TRAP_PORT_ZERO = 1 << 2,
  /* Datagrams: no EPOLLOUT after EAGAIN, and an empty datagram silences the session until the next read. */
  VCL_TRAP_DATAGRAM_EVENTS = 1 << 3,
  /* Datagrams above the MSS are split silently: refuse them. */
  VCL_TRAP_DATAGRAM_SPLIT = 1 << 4,
  /* The peer of a connected datagram session sends ICMP unreachable: the session is dead. */
  VCL_TRAP_DATAGRAM_DIES = 1 << 5,
  /* A write to a stack that sleeps wakes it, which costs as much as ten writes: several are better made one after the
   * other. */
  VCL_TRAP_WRITE_WAKES = 1 << 6,
};

/* Most bytes of a datagram that VCL_TRAP_DATAGRAM_SPLIT leaves whole: VPP's udp { mtu 1500 } less the headers. */
enum
{
  VCL_MSS_IP4 = 1472,
  VCL_MSS_IP6 = 1452,
};

/* `timeout_ms` of epoll_wait. There is no third value: VCL sleeps a positive timeout to its end even when events are
 * already pending, so sleeping is done in the kernel, on worker_fd. */
enum
{
  VCL_WAIT_PARKED = -2, /* only what is parked in user space; costs next to nothing */
  VCL_WAIT_NOW = 0,     /* everything that has happened */
};

typedef struct vcl_endpoint
{
  uint8_t ip[16];    /* network order; the first 4 bytes for IPv4 */
  uint16_t port;     /* network order */
  uint8_t is_ip4;    /* 1: IPv4, 0: IPv6 */
  uint8_t reserved;
  uint32_t scope_id; /* IPv6 link-local interface index; VPP has none */
} vcl_endpoint;

typedef struct vcl_ops
{
  const char *name;     /* "host", "vpp" */
  uint32_t traps;       /* VCL_TRAP_... */

  /* Worker index, or -errno; -ENETDOWN: the stack was lost, and not all workers have it back. A worker has one message
   * queue and is to have one epoll set: VCL does not filter events by set. */
  int (*worker_register) (void);
  /* Frees the worker; its sessions are to be closed before. */
  int (*worker_unregister) (int worker);
  /* Descriptor that is readable while epoll_wait has something to say; register it level-triggered. Owned by the
   * stack. */
  int (*worker_fd) (int worker);
  /* 1 while the stack behind the worker is gone (VPP died), else 0. Its descriptor is then permanently readable: poll
   * on a timer instead; each epoll_wait tries to come back. After a loss it is 1 at least once, so ask after each look. */
  int (*worker_is_detached) (int worker);

  /* Session handle of a new epoll set. */
  int (*epoll_create) (int worker);
  /* `op`, `events` as in epoll_ctl(2), always with EPOLLET. `data` comes back verbatim in epoll_event.data.u64.
   * -EEXIST, -ENOENT, -EBADF, -ECONNRESET: the stack was lost since the session was made. */
  int (*epoll_ctl) (uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data);
  /* Number of events. One call may return several entries for one session. */
  int (*epoll_wait) (uint32_t vep, struct epoll_event *events, int max_events, int timeout_ms);

  /* New non-blocking session. -EMFILE, -ENOMEM, -EAFNOSUPPORT. */
  int (*session_create) (int worker, int proto, int is_ip4);
  /* UDP receives from here on. -EADDRINUSE, -EADDRNOTAVAIL, -EACCES. */
  int (*session_bind) (uint32_t session, const vcl_endpoint *local);
  /* May block; call without the GIL. -EADDRINUSE, -EADDRNOTAVAIL, -ETIMEDOUT. */
  int (*session_listen) (uint32_t session, int backlog);
  /* Handle of the next queued connection, `peer` filled. -EAGAIN when there is none, -ECONNABORTED when that one is
   * gone (go on), -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM when resources are short. */
  int (*session_accept) (uint32_t session, vcl_endpoint *peer);
  /* Always -EINPROGRESS: the result comes as an event, also when it is known at once. */
  int (*session_connect) (uint32_t session, const vcl_endpoint *peer);
  /* What `events` mean for a connecting session: 0 connected, -EINPROGRESS not yet, else the reason. -EFAULT stands
   * for "no reason given" (VCL knows in-use and refused, and no other). */
  int (*session_connect_result) (uint32_t session, uint32_t events);

  /* Bytes moved; 0 when the peer has closed and all was read; -EAGAIN; -ECONNRESET; -ENOTCONN. A stream read that
   * returns fewer bytes than asked for has emptied the FIFO. */
  int (*session_read) (uint32_t session, void *buffer, size_t size);
  /* Bytes taken, possibly fewer than offered: an EPOLLOUT follows only after -EAGAIN, so repeat until then. -ENOBUFS:
   * there is no memory to fill the FIFO with, and nothing will tell when there is; try again after a while. -EPIPE,
   * -ECONNRESET, -ENOTCONN. */
  int (*session_write) (uint32_t session, const void *buffer, size_t size);
  /* The same for up to 64 pieces. */
  int (*session_writev) (uint32_t session, const struct iovec *pieces, int count);
  /* One datagram; 0 is an empty one; what does not fit is lost. -EAGAIN, -ECONNREFUSED. */
  int (*session_recvfrom) (uint32_t session, void *buffer, size_t size, vcl_endpoint *from);
  /* The whole datagram or an error. `to` is NULL on a connected session. -EAGAIN, -EMSGSIZE, -ECONNREFUSED;
   * -EADDRNOTAVAIL: bound to the wildcard address, the session has no address to send from yet; -EOPNOTSUPP: it is
   * empty, and the stack sends no such ones. */
  int (*session_sendto) (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to);

  /* SHUT_RD, SHUT_WR or SHUT_RDWR. */
  int (*session_shutdown) (uint32_t session, int how);
  /* The handle is free for reuse at once. Queued bytes are still sent. A listener refuses what is queued first. */
  int (*session_close) (uint32_t session);

  /* Bytes that a read would find (a listener: connections that accept would find), or -errno. */
  int (*session_readable) (uint32_t session);
  int (*session_local) (uint32_t session, vcl_endpoint *local);
  int (*session_peer) (uint32_t session, vcl_endpoint *peer);
  /* Integer options with the kernel's numbers. -ENOPROTOOPT. */
  int (*session_get_option) (uint32_t session, int level, int option, int *value);
  /* Where sessions have no descriptor, -ENOPROTOOPT comes before -EBADF, so that one can ask before there is a session. */
  int (*session_set_option) (uint32_t session, int level, int option, int value);
  /* Kernel descriptor, or -1 where there is none. */
  int (*session_fd) (uint32_t session);
  /* A session over a kernel socket that already listens or is connected (a datagram socket: is bound or connected). The
   * session owns the descriptor from here on, and session_close closes it. -EOPNOTSUPP where sessions are not the
   * kernel's. */
  int (*session_adopt) (int worker, int fd);
  /* As session_close, when the adopted descriptor has been closed already by somebody who had it, too: its number may be
   * another file's by now. -EOPNOTSUPP where sessions are not the kernel's. */
  int (*session_forget) (uint32_t session);
} vcl_ops;

#endif
