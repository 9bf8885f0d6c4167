/* SPDX-License-Identifier: Apache-2.0
 *
 * The state machine of sessions, for every stack.
 *
 *                       listen                       accept
 *            bind     .--------> LISTENING  - - - - - - - - - - .
 *      NEW ------> BOUND                                        v
 *       |            |  connect               result 0
 *       '------------'----------> CONNECTING ----------> CONNECTED
 *                                      |  result < 0
 *                                      '------------> FAILED
 *      any but NEW and a BOUND stream --- the stack dies ---> LOST          any --- close ---> FREE
 *
 * A handle is in one of these states, and the table below says for each state and operation whether the stack is asked at
 * all. A refusal is the kernel's own errno for that call on such a socket (tests/contract/test_states.py holds the table
 * against the kernel, and each stack against the table), but for these:
 *
 * - A connect under way is one until session_connect_result was asked, also of a datagram session, whose connect needs no
 *   peer in the kernel: no data before, -ENOTCONN.
 * - FAILED is an end. The kernel would let the socket connect again.
 * - A datagram session connects once.
 * - Only a connection can be shut down. The kernel also shuts down listeners, which ends the listening.
 * - LOST is the kernel's ECONNRESET; a listener says ENETDOWN, since ECONNRESET would be one connection's.
 *
 * Why below the table of operations: libvppcom has states of its own, and does not compare them with the call. It listens
 * on a connection, binds a listener again, takes the error of an old connection for the answer to a new listen. Whatever
 * VPP answers later finds the session gone, or another one under its index, and libvppcom takes that for the one meant.
 *
 * This table is half of the answer. The other half is vpp_slots.c: a handle is not libvppcom's, so that what is closed
 * here can live on there until VPP's last answer has come.
 *
 * A handle that was closed may be given out again at once, as a descriptor is. The layer above carries a generation
 * (reactor/session.pyx), and forgets the handle with the close.
 */
#include "vcl_states.h"

#include <errno.h>

#define ALL(answer)                                                                                                    \
  {                                                                                                                    \
    answer, answer, answer, answer, answer, answer, answer, answer, answer, answer, answer, answer, answer, answer,    \
      answer                                                                                                           \
  }
#define NOT_CONN -ENOTCONN

/* clang-format off */
static const int16_t streams[VCL_N_STATES][VCL_N_OPERATIONS] = {
  /*                  bind     listen   accept     connect    result     read       write      receive      send         send_to      shutdown   peer       ask watch close */
  [VCL_FREE]       = ALL (-EBADF),
  [VCL_EPOLL_SET]  = { -EBADF, -EBADF,  -EBADF,    -EBADF,    -EBADF,    -EBADF,    -EBADF,    -EBADF,      -EBADF,      -EBADF,      -EBADF,    -EBADF,    -EBADF, -EINVAL, 0 },
  [VCL_NEW]        = { 0,      0,       -EINVAL,   0,         NOT_CONN,  NOT_CONN,  NOT_CONN,  -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_BOUND]      = { -EINVAL, 0,      -EINVAL,   0,         NOT_CONN,  NOT_CONN,  NOT_CONN,  -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_LISTENING]  = { -EINVAL, 0,      0,         -EISCONN,  NOT_CONN,  NOT_CONN,  NOT_CONN,  -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_CONNECTING] = { -EINVAL, -EINVAL, -EINVAL,  -EALREADY, 0,         NOT_CONN,  NOT_CONN,  -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_CONNECTED]  = { -EINVAL, -EINVAL, -EINVAL,  -EISCONN,  0,         0,         0,         -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, 0,         0,         0, 0, 0 },
  [VCL_FAILED]     = { -EINVAL, -EINVAL, -EINVAL,  -EINVAL,   0,         NOT_CONN,  NOT_CONN,  -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_LOST]       = { -EINVAL, -EINVAL, -ENETDOWN, -ECONNRESET, -ECONNRESET, -ECONNRESET, -ECONNRESET, -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP, NOT_CONN, 0,  0, -ECONNRESET, 0 },
};

static const int16_t datagrams[VCL_N_STATES][VCL_N_OPERATIONS] = {
  /*                  bind     listen       accept       connect    result     read       write      receive   send           send_to   shutdown   peer       ask watch close */
  [VCL_FREE]       = ALL (-EBADF),
  [VCL_EPOLL_SET]  = ALL (-EBADF), /* is no datagram session */
  [VCL_NEW]        = { 0,      -EOPNOTSUPP, -EOPNOTSUPP, 0,         NOT_CONN,  NOT_CONN,  NOT_CONN,  0,        -EDESTADDRREQ, 0,        NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_BOUND]      = { -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP, 0,        NOT_CONN,  NOT_CONN,  NOT_CONN,  0,        -EDESTADDRREQ, 0,        NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_LISTENING]  = ALL (-EBADF), /* cannot be */
  [VCL_CONNECTING] = { -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP, -EALREADY, 0,        NOT_CONN,  NOT_CONN,  NOT_CONN, NOT_CONN,      -EISCONN, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_CONNECTED]  = { -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP, -EISCONN, 0,         0,         0,         0,        0,             -EISCONN, 0,         0,         0, 0, 0 },
  [VCL_FAILED]     = { -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP, -EINVAL,  0,         NOT_CONN,  NOT_CONN,  NOT_CONN, NOT_CONN,      NOT_CONN, NOT_CONN,  NOT_CONN,  0, 0, 0 },
  [VCL_LOST]       = { -EINVAL, -EOPNOTSUPP, -EOPNOTSUPP, -ECONNRESET, -ECONNRESET, -ECONNRESET, -ECONNRESET, -ECONNRESET, -ECONNRESET, -ECONNRESET, NOT_CONN, 0, 0, -ECONNRESET, 0 },
};
/* clang-format on */

int
vcl_refusal (int is_datagram, int state, int operation)
{
  if ((unsigned) state >= VCL_N_STATES || (unsigned) operation >= VCL_N_OPERATIONS)
    return -EBADF;
  return (is_datagram ? datagrams : streams)[state][operation];
}
