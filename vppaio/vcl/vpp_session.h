/* SPDX-License-Identifier: Apache-2.0
 *
 * The operations of VPP's stack on sessions, as vcl_ops.h describes them: vpp_session.c, vpp_data.c and vpp_names.c have
 * them, libvppcom.c puts them into the table.
 */
#ifndef VPPAIO_VPP_SESSION_H
#define VPPAIO_VPP_SESSION_H

#include "vcl_ops.h"

int vpp_session_create (int index, int proto, int is_ip4);
int vpp_session_bind (uint32_t session, const vcl_endpoint *local);
int vpp_session_listen (uint32_t session, int backlog);
int vpp_session_accept (uint32_t session, vcl_endpoint *peer);
int vpp_session_connect (uint32_t session, const vcl_endpoint *peer);
int vpp_session_connect_result (uint32_t session, uint32_t events);
int vpp_session_shutdown (uint32_t session, int how);
int vpp_session_close (uint32_t session);
int vpp_session_read (uint32_t session, void *buffer, size_t size);
int vpp_session_write (uint32_t session, const void *buffer, size_t size);
int vpp_session_writev (uint32_t session, const struct iovec *pieces, int count);
int vpp_session_recvfrom (uint32_t session, void *buffer, size_t size, vcl_endpoint *from);
int vpp_session_sendto (uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to);
int vpp_session_readable (uint32_t session);
int vpp_session_local (uint32_t session, vcl_endpoint *local);
int vpp_session_peer (uint32_t session, vcl_endpoint *peer);
int vpp_session_get_option (uint32_t session, int level, int option, int *value);
int vpp_session_set_option (uint32_t session, int level, int option, int value);

#endif
