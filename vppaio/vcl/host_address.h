/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of the contract and of the kernel.
 */
#ifndef VPPAIO_HOST_ADDRESS_H
#define VPPAIO_HOST_ADDRESS_H

#include "host_table.h"
#include "vcl_ops.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef union
{
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} address;

/* Length, or -errno. */
static inline int
address_from (const session *s, const vcl_endpoint *endpoint, address *a)
{
  if (!endpoint)
    return -EFAULT;
  if (!endpoint->is_ip4 != !s->is_ip4)
    return -EAFNOSUPPORT;
  if (endpoint->is_ip4)
    {
      a->v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = endpoint->port };
      memcpy (&a->v4.sin_addr, endpoint->ip, sizeof (a->v4.sin_addr));
      return sizeof (a->v4);
    }
  a->v6 = (struct sockaddr_in6){
    .sin6_family = AF_INET6,
    .sin6_port = endpoint->port,
    .sin6_scope_id = endpoint->scope_id,
  };
  memcpy (&a->v6.sin6_addr, endpoint->ip, sizeof (a->v6.sin6_addr));
  return sizeof (a->v6);
}

static inline void
address_to (const address *a, vcl_endpoint *endpoint)
{
  if (!endpoint)
    return;
  *endpoint = (vcl_endpoint){ 0 };
  if (a->any.sa_family == AF_INET)
    {
      endpoint->is_ip4 = 1;
      endpoint->port = a->v4.sin_port;
      memcpy (endpoint->ip, &a->v4.sin_addr, sizeof (a->v4.sin_addr));
    }
  else if (a->any.sa_family == AF_INET6)
    {
      endpoint->port = a->v6.sin6_port;
      endpoint->scope_id = a->v6.sin6_scope_id;
      memcpy (endpoint->ip, &a->v6.sin6_addr, sizeof (a->v6.sin6_addr));
    }
}

#endif
