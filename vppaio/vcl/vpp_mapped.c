/* SPDX-License-Identifier: Apache-2.0
 *
 * IPv4-mapped addresses, ::ffff:192.0.2.1: how an IPv6 socket speaks IPv4.
 *
 * VPP takes them for IPv6 addresses, and has no route to them. So the operations that take or give addresses stand here once
 * more, on top of the others: a mapped address goes down as the IPv4 one that it is, and from then on the session's own and
 * its peers' come up mapped, as the kernel has it.
 *
 * Where the kernel's sockets have both families, VPP's have one: a session that is bound to an IPv6 address, :: included,
 * hears and reaches no IPv4, so what it sends to a mapped address is refused: -ENETUNREACH, the kernel's answer for a socket
 * with IPV6_V6ONLY.
 */
#define _GNU_SOURCE
#include "vpp_mapped.h"

#include "vpp_worker.h"

#include <stdlib.h>

static const uint8_t PREFIX[12] = { [10] = 0xff, [11] = 0xff };

enum
{
  UNKNOWN, /* unbound, or of an IPv4 socket */
  MAPPED,
  IP6,
};

static const vcl_ops *below;
/* By session index, of each worker. */
static struct
{
  uint8_t *family;
  int room;
} notes[MAX_WORKERS];

static int
family_of (uint32_t session)
{
  int worker = HANDLE_WORKER (session);

  return worker < MAX_WORKERS && (int) SESSION_INDEX (session) < notes[worker].room ?
	   notes[worker].family[SESSION_INDEX (session)] :
	   UNKNOWN;
}

static int
note (uint32_t session, int family)
{
  int worker = HANDLE_WORKER (session), before = notes[worker].room;

  if ((int) SESSION_INDEX (session) >= before)
    {
      if (family == UNKNOWN)
	return 0;
      if (vpp_grow ((void **) &notes[worker].family, &notes[worker].room, (int) SESSION_INDEX (session) + 1, 1))
	return -ENOMEM;
      memset (notes[worker].family + before, UNKNOWN, (size_t) (notes[worker].room - before));
    }
  notes[worker].family[SESSION_INDEX (session)] = (uint8_t) family;
  return 0;
}

static int
is_mapped (const vcl_endpoint *address)
{
  return !address->is_ip4 && !memcmp (address->ip, PREFIX, sizeof (PREFIX));
}

/* The address to give to VPP: `address` itself, or the IPv4 one in `plain`. */
static const vcl_endpoint *
down (const vcl_endpoint *address, vcl_endpoint *plain)
{
  if (!is_mapped (address))
    return address;
  *plain = *address;
  memset (plain->ip, 0, sizeof (plain->ip));
  memcpy (plain->ip, address->ip + sizeof (PREFIX), 4);
  plain->is_ip4 = 1;
  return plain;
}

static int
up (uint32_t session, int rv, vcl_endpoint *address)
{
  if (rv >= 0 && address->is_ip4 && family_of (session) == MAPPED)
    {
      memmove (address->ip + sizeof (PREFIX), address->ip, 4);
      memcpy (address->ip, PREFIX, sizeof (PREFIX));
      address->is_ip4 = 0;
    }
  return rv;
}

/* Whether a session can reach an address, by its family. */
static int
reaches (uint32_t session, const vcl_endpoint *address)
{
  int family = family_of (session);

  return address->is_ip4 || family == UNKNOWN || family == (is_mapped (address) ? MAPPED : IP6);
}

static int
session_create (int index, int proto, int is_ip4)
{
  int rv = below->session_create (index, proto, is_ip4);

  if (rv >= 0)
    note ((uint32_t) rv, UNKNOWN);
  return rv;
}

static int
session_bind (uint32_t session, const vcl_endpoint *local)
{
  vcl_endpoint plain;
  int rv = below->session_bind (session, down (local, &plain));

  if (rv >= 0 && !local->is_ip4 && note (session, is_mapped (local) ? MAPPED : IP6))
    return -ENOMEM;
  return rv;
}

static int
session_accept (uint32_t session, vcl_endpoint *peer)
{
  int rv = below->session_accept (session, peer);

  if (rv >= 0)
    note ((uint32_t) rv, family_of (session)); /* without memory for it the peer has its plain address */
  return up (session, rv, peer);
}

static int
session_connect (uint32_t session, const vcl_endpoint *peer)
{
  vcl_endpoint plain;

  if (!reaches (session, peer))
    return -ENETUNREACH;
  if (is_mapped (peer) && note (session, MAPPED))
    return -ENOMEM;
  return below->session_connect (session, down (peer, &plain));
}

static int
session_recvfrom (uint32_t session, void *buffer, size_t size, vcl_endpoint *from)
{
  return up (session, below->session_recvfrom (session, buffer, size, from), from);
}

static int
session_sendto (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to)
{
  vcl_endpoint plain;

  if (to && !reaches (session, to))
    return -ENETUNREACH;
  return below->session_sendto (session, buffer, size, to ? down (to, &plain) : 0);
}

static int
session_local (uint32_t session, vcl_endpoint *local)
{
  return up (session, below->session_local (session, local), local);
}

static int
session_peer (uint32_t session, vcl_endpoint *peer)
{
  return up (session, below->session_peer (session, peer), peer);
}

const vcl_ops *
vpp_with_mapped (const vcl_ops *table)
{
  static vcl_ops whole;

  below = table;
  whole = *table;
  whole.session_create = session_create;
  whole.session_bind = session_bind;
  whole.session_accept = session_accept;
  whole.session_connect = session_connect;
  whole.session_recvfrom = session_recvfrom;
  whole.session_sendto = session_sendto;
  whole.session_local = session_local;
  whole.session_peer = session_peer;
  return &whole;
}
