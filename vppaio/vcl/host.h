/* SPDX-License-Identifier: Apache-2.0
 *
 * The operations of the host stack on sessions, as vcl_ops.h describes them: host_session.c and host_data.c have them,
 * host.c puts them into the table.
 */
#ifndef VPPAIO_HOST_H
#define VPPAIO_HOST_H

#include "vcl_ops.h"

#include <errno.h>
#include <sys/types.h>

#define RETRY_ON_EINTR(call)                                                                                           \
  ({                                                                                                                   \
    ssize_t rv_;                                                                                                       \
    do                                                                                                                 \
      rv_ = (call);                                                                                                    \
    while (__builtin_expect (rv_ < 0 && errno == EINTR, 0));                                                           \
    rv_ < 0 ? -errno : (int) rv_;                                                                                      \
  })

int host_session_create (int index, int proto, int is_ip4);
int host_session_bind (uint32_t handle, const vcl_endpoint *local);
int host_session_listen (uint32_t handle, int backlog);
int host_session_accept (uint32_t handle, vcl_endpoint *peer);
int host_session_connect (uint32_t handle, const vcl_endpoint *peer);
int host_session_connect_result (uint32_t handle, uint32_t events);
int host_session_shutdown (uint32_t handle, int how);
int host_session_close (uint32_t handle);
int host_session_read (uint32_t handle, void *buffer, size_t size);
int host_session_write (uint32_t handle, const void *buffer, size_t size);
int host_session_writev (uint32_t handle, const struct iovec *pieces, int count);
int host_session_recvfrom (uint32_t handle, void *buffer, size_t size, vcl_endpoint *from);
int host_session_sendto (uint32_t handle, const void *buffer, size_t size, const vcl_endpoint *to);
int host_session_readable (uint32_t handle);
int host_session_local (uint32_t handle, vcl_endpoint *local);
int host_session_peer (uint32_t handle, vcl_endpoint *peer);
int host_session_get_option (uint32_t handle, int level, int option, int *value);
int host_session_set_option (uint32_t handle, int level, int option, int value);
int host_session_fd (uint32_t handle);
int host_session_adopt (int index, int fd);
int host_session_forget (uint32_t handle);

#endif
