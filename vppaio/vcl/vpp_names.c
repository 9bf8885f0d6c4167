/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and options of sessions.
 */
#define _GNU_SOURCE
#include "vpp_session.h"

#include "vpp_worker.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int
address (const slot_t *s, uint32_t attribute, vcl_endpoint *to)
{
  vppcom_endpt ep;
  uint32_t size = sizeof (ep);
  int rv;

  lend (&ep, to);
  rv = result (vcl.session_attr (s->vcl, attribute, &ep, &size));
  take_back (&ep, to);
  return rv;
}

int
vpp_session_local (uint32_t session, vcl_endpoint *local)
{
  FIND (session, VCL_OP_ASK);

  if (s->vcl != NO_SESSION)
    return address (s, ATTR_GET_LCL_ADDR, local);
  *local = s->local;
  if (s->state == VCL_NEW)
    local->is_ip4 = s->is_ip4;
  return 0;
}

int
vpp_session_peer (uint32_t session, vcl_endpoint *peer)
{
  FIND (session, VCL_OP_PEER);
  return s->vcl == NO_SESSION ? -ENOTCONN : address (s, ATTR_GET_PEER_ADDR, peer);
}

/* VPP's TCP has neither Nagle's delay nor keepalive, and VCL would store what it is told of these: so they are stored
 * here, where there may be no session of VCL's yet. Those that are on or off, by their bit: */
static const struct
{
  int level, option;
} flags[] = {
  { SOL_SOCKET, SO_REUSEADDR }, { SOL_SOCKET, SO_REUSEPORT },  { SOL_SOCKET, SO_BROADCAST },
  { SOL_SOCKET, SO_KEEPALIVE }, { IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_IPV6, IPV6_V6ONLY },
};
enum
{
  N_FLAGS = sizeof (flags) / sizeof (*flags),
  NUMBER, /* TCP_KEEPIDLE, TCP_KEEPINTVL */
};

/* An index into `flags`, NUMBER, or -ENOPROTOOPT. */
static int
kind_of_option (int level, int option)
{
  int i;

  for (i = 0; i < N_FLAGS; i++)
    if (flags[i].level == level && flags[i].option == option)
      return i;
  return level == IPPROTO_TCP && (option == TCP_KEEPIDLE || option == TCP_KEEPINTVL) ? NUMBER : -ENOPROTOOPT;
}

int
vpp_session_get_option (uint32_t session, int level, int option, int *value)
{
  uint32_t size = sizeof (*value);
  int kind;
  FIND (session, VCL_OP_ASK);

  *value = 0;
  if (level == SOL_SOCKET)
    switch (option)
      {
      case SO_TYPE:
	*value = s->is_datagram ? SOCK_DGRAM : SOCK_STREAM;
	return 0;
      case SO_ACCEPTCONN:
	*value = s->state == VCL_LISTENING;
	return 0;
      case SO_ERROR: /* errors come with the call that meets them */
	return 0;
      case SO_RCVBUF:
      case SO_SNDBUF:
	if (s->state == VCL_LOST)
	  return -ECONNRESET; /* VCL asks the FIFO, mapped or not */
	if (s->vcl == NO_SESSION)
	  return 0;
	return result (
	  vcl.session_attr (s->vcl, option == SO_RCVBUF ? ATTR_GET_RX_FIFO_LEN : ATTR_GET_TX_FIFO_LEN, value, &size));
      }
  kind = kind_of_option (level, option);
  if (kind < 0)
    return kind;
  *value = kind != NUMBER ? s->flags >> kind & 1 : option == TCP_KEEPIDLE ? s->idle : s->interval;
  return 0;
}

int
vpp_session_set_option (uint32_t session, int level, int option, int value)
{
  int kind = kind_of_option (level, option);

  if (kind < 0)
    return kind;
  FIND (session, VCL_OP_ASK);
  if (kind != NUMBER)
    s->flags = (uint8_t) ((s->flags & ~(1 << kind)) | (value != 0) << kind);
  else if (value < 1 || value > INT16_MAX) /* as in the kernel */
    return -EINVAL;
  else if (option == TCP_KEEPIDLE)
    s->idle = (uint16_t) value;
  else
    s->interval = (uint16_t) value;
  return 0;
}

int
vpp_session_readable (uint32_t session)
{
  FIND (session, VCL_OP_ASK);

  if (s->state == VCL_LOST)
    return -ECONNRESET;
  if (s->vcl == NO_SESSION || s->state == VCL_CONNECTING || s->state == VCL_FAILED)
    return 0; /* as of a kernel socket */
  return result (vcl.session_attr (s->vcl, ATTR_GET_NREAD, 0, 0));
}
