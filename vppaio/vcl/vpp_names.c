/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and options of sessions.
 */
#define _GNU_SOURCE
#include "vpp_names.h"

#include "vpp_worker.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int
address (uint32_t session, uint32_t attribute, vcl_endpoint *to)
{
  vppcom_endpt ep;
  uint32_t size = sizeof (ep);
  int rv;

  ENTER (HANDLE_WORKER (session));
  lend (&ep, to);
  rv = result (vcl.session_attr (session, attribute, &ep, &size));
  take_back (&ep, to);
  return rv;
}

int
vpp_session_local (uint32_t session, vcl_endpoint *local)
{
  return address (session, ATTR_GET_LCL_ADDR, local);
}

int
vpp_session_peer (uint32_t session, vcl_endpoint *peer)
{
  int rv = address (session, ATTR_GET_PEER_ADDR, peer);

  /* VCL gives the sender of the last datagram. */
  if (rv >= 0 && (kind_of (session) & (IS_DATAGRAM | IS_CONNECTED)) == IS_DATAGRAM)
    return -ENOTCONN;
  /* VCL gives the empty address of a session that has no peer; so it does for a cut-through one, which has. */
  if (rv >= 0 && !peer->port && vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) == -ENOTCONN)
    return -ENOTCONN;
  return rv;
}

/* The getter's attribute number; the setter's is one higher. VCL stores these and VPP acts on none of them: its TCP has
 * neither Nagle's delay nor keepalive. */
static int
option_attribute (int level, int option)
{
  if (level == SOL_SOCKET)
    switch (option)
      {
      case SO_REUSEADDR:
	return ATTR_GET_REUSEADDR;
      case SO_REUSEPORT:
	return ATTR_GET_REUSEPORT;
      case SO_BROADCAST:
	return ATTR_GET_BROADCAST;
      case SO_KEEPALIVE:
	return ATTR_GET_KEEPALIVE;
      }
  if (level == IPPROTO_TCP)
    switch (option)
      {
      case TCP_NODELAY:
	return ATTR_GET_TCP_NODELAY;
      case TCP_KEEPIDLE:
	return ATTR_GET_TCP_KEEPIDLE;
      case TCP_KEEPINTVL:
	return ATTR_GET_TCP_KEEPINTVL;
      }
  if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY)
    return ATTR_GET_V6ONLY;
  return -ENOPROTOOPT;
}

int
vpp_session_get_option (uint32_t session, int level, int option, int *value)
{
  uint32_t size = sizeof (*value);
  int attribute;

  ENTER (HANDLE_WORKER (session));
  *value = 0;
  if (level == SOL_SOCKET && option == SO_TYPE)
    *value = kind_of (session) & IS_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
  else if (level == SOL_SOCKET && option == SO_ACCEPTCONN)
    *value = !!(kind_of (session) & IS_LISTENER);
  else if (level == SOL_SOCKET && option == SO_ERROR)
    *value = 0; /* errors come with the call that meets them */
  else
    {
      if (level == SOL_SOCKET && (option == SO_RCVBUF || option == SO_SNDBUF))
	attribute = option == SO_RCVBUF ? ATTR_GET_RX_FIFO_LEN : ATTR_GET_TX_FIFO_LEN;
      else
	attribute = option_attribute (level, option);
      if (attribute < 0)
	return attribute;
      if ((attribute == ATTR_GET_RX_FIFO_LEN || attribute == ATTR_GET_TX_FIFO_LEN) && vpp_outlived (HANDLE_WORKER (session), session))
	return -ECONNRESET; /* VCL asks the FIFO */
      return result (vcl.session_attr (session, (uint32_t) attribute, value, &size));
    }
  return result (vcl.session_attr (session, ATTR_GET_PROTOCOL, &(int){ 0 }, &size)); /* does it exist? */
}

int
vpp_session_set_option (uint32_t session, int level, int option, int value)
{
  uint32_t size = sizeof (value);
  int attribute = option_attribute (level, option);

  if (attribute < 0)
    return attribute;
  ENTER (HANDLE_WORKER (session));
  return result (vcl.session_attr (session, (uint32_t) attribute + 1, &value, &size));
}
