/* SPDX-License-Identifier: Apache-2.0
 *
 * The operations with IPv4-mapped addresses; see vpp_mapped.c.
 */
#ifndef VPPAIO_VPP_MAPPED_H
#define VPPAIO_VPP_MAPPED_H

#include "vcl_ops.h"

/* A table that understands mapped addresses, on top of one that does not. */
const vcl_ops *vpp_with_mapped (const vcl_ops *table);

#endif
