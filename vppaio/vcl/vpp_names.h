/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and options of sessions; see vcl_ops.h.
 */
#ifndef VPPAIO_VPP_NAMES_H
#define VPPAIO_VPP_NAMES_H

#include "vcl_ops.h"

int vpp_session_local (uint32_t session, vcl_endpoint *local);
int vpp_session_peer (uint32_t session, vcl_endpoint *peer);
int vpp_session_get_option (uint32_t session, int level, int option, int *value);
int vpp_session_set_option (uint32_t session, int level, int option, int value);

#endif
