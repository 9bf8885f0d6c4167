/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes and datagrams of VPP's sessions.
 */
#include "vpp_session.h"

#include "vpp_worker.h"

#include <limits.h>

int
vpp_session_read (uint32_t session, void *buffer, size_t size)
{
  FIND_CONNECTED (session, VCL_OP_READ);
  return result (vcl.session_read (s->vcl, buffer, size > INT_MAX ? INT_MAX : size));
}

/* "Try again" has two meanings: the FIFO is full, and VPP will tell when it is not; or its segment has no memory left for it
 * to grow (vppcom.c: vppcom_session_write_inline, `n_write < 0`), which other sessions may give back, and VPP says nothing. */
static int
refused_write (uint32_t vcl_session, int rv)
{
  return rv == -EAGAIN && vcl.session_attr (vcl_session, ATTR_GET_NWRITE, 0, 0) > 0 ? -ENOBUFS : result (rv);
}

int
vpp_session_write (uint32_t session, const void *buffer, size_t size)
{
  int rv;
  FIND_CONNECTED (session, VCL_OP_WRITE);

  rv = vcl.session_write (s->vcl, (void *) buffer, size > INT_MAX ? INT_MAX : size);
  return rv < 0 ? refused_write (s->vcl, rv) : rv;
}

/* vppcom_session_write_segments is all or nothing and copies as well, so pieces are written one by one: VPP is told
 * about the first only, as long as it has not looked. */
int
vpp_session_writev (uint32_t session, const struct iovec *pieces, int count)
{
  int i, rv, total = 0;
  FIND_CONNECTED (session, VCL_OP_WRITE);

  for (i = 0; i < count && total < INT_MAX / 2; i++)
    {
      size_t size = pieces[i].iov_len > INT_MAX / 2 ? INT_MAX / 2 : pieces[i].iov_len;
      rv = vcl.session_write (s->vcl, pieces[i].iov_base, size);
      if (rv < 0)
	return total ? total : refused_write (s->vcl, rv);
      total += rv;
      if ((size_t) rv < pieces[i].iov_len)
	break;
    }
  return total;
}

int
vpp_session_recvfrom (uint32_t session, void *buffer, size_t size, vcl_endpoint *from)
{
  vppcom_endpt ep;
  int rv;
  FIND (session, VCL_OP_RECEIVE);

  if (s->vcl == NO_SESSION)
    return -EAGAIN; /* nobody knows of it */
  lend (&ep, from);
  rv = result (vcl.session_recvfrom (s->vcl, buffer, size > INT_MAX ? INT_MAX : (uint32_t) size, 0, &ep));
  take_back (&ep, from);
  return rv;
}

static int
is_wildcard (const vppcom_endpt *address)
{
  static const uint8_t wildcard[16];

  return !memcmp (address->ip, wildcard, address->is_ip4 ? 4 : 16);
}

/* VPP chooses no source address for a datagram: one from a session that is bound to the wildcard address leaves with
 * that as its source, and is lost. With each datagram received VCL overwrites the session's own address with the one
 * that the datagram was sent to (application_interface.h: app_recv_dgram_raw), and that is a source. */
static int
has_source (slot_t *s)
{
  uint8_t ip[16] = { 0 };
  vppcom_endpt local = { .ip = ip };
  uint32_t size = sizeof (local);

  if (s->vcl == NO_SESSION)
    return 0;
  if (s->is_wildcard && vcl.session_attr (s->vcl, ATTR_GET_LCL_ADDR, &local, &size) >= 0)
    s->is_wildcard = (uint8_t) is_wildcard (&local);
  return !s->is_wildcard;
}

int
vpp_session_sendto (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to)
{
  vppcom_endpt ep;
  FIND (session, to ? VCL_OP_SEND_TO : VCL_OP_SEND);

  if (size > 65507)
    return -EMSGSIZE;
  if (!size)
    return -EOPNOTSUPP;
  if (to)
    {
      if (!to->is_ip4 && s->is_ip4)
	return -EAFNOSUPPORT;
      to_vppcom (&ep, to);
      if (!has_source (s))
	return -EADDRNOTAVAIL;
    }
  return result (vcl.session_sendto (s->vcl, (void *) buffer, (uint32_t) size, 0, to ? &ep : 0));
}
