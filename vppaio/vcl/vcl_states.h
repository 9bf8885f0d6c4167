/* SPDX-License-Identifier: Apache-2.0
 *
 * States of a session, and which operations each of them allows: one table for all stacks, see vcl_states.c.
 */
#ifndef VPPAIO_VCL_STATES_H
#define VPPAIO_VCL_STATES_H

#include <stdint.h>

enum vcl_state
{
  VCL_FREE = 0,
  VCL_EPOLL_SET,
  VCL_NEW,	  /* neither bound nor connected */
  VCL_BOUND,	  /* a stream has an address to listen on or to connect from; a datagram session receives */
  VCL_LISTENING,
  VCL_CONNECTING, /* until session_connect_result has said what became of it */
  VCL_CONNECTED,  /* or accepted; also when the peer has closed or reset it: reads and writes tell */
  VCL_FAILED,	  /* the connect is over, and there is no connection */
  VCL_LOST,	  /* the stack was lost, and the session with it */
  VCL_N_STATES,
};

enum vcl_operation
{
  VCL_OP_BIND = 0,
  VCL_OP_LISTEN,
  VCL_OP_ACCEPT,
  VCL_OP_CONNECT,
  VCL_OP_RESULT,	/* session_connect_result */
  VCL_OP_READ,
  VCL_OP_WRITE,		/* session_write, session_writev */
  VCL_OP_RECEIVE,	/* session_recvfrom */
  VCL_OP_SEND,		/* session_sendto without an address */
  VCL_OP_SEND_TO,
  VCL_OP_SHUTDOWN,
  VCL_OP_PEER,
  VCL_OP_ASK,		/* session_readable, session_local, options */
  VCL_OP_WATCH,		/* epoll_ctl with it as the member, ADD and MOD */
  VCL_OP_CLOSE,
  VCL_N_OPERATIONS,
};

/* 0 if the operation may go on to the stack, else what to answer: -errno. */
int vcl_refusal (int is_datagram, int state, int operation);

#endif
