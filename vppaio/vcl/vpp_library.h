/* SPDX-License-Identifier: Apache-2.0
 *
 * The installed libvppcom: its functions, and what of its types and numbers we use.
 *
 * It is loaded at run time, so that one build serves every VPP release from 21.10 on: these functions have kept their
 * signatures since then, attribute numbers too, and vppcom_endpt_t its first 24 bytes. Newer functions are optional.
 */
#ifndef VPPAIO_VPP_LIBRARY_H
#define VPPAIO_VPP_LIBRARY_H

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

/* vppcom_endpt_t grew from 32 to 48 bytes over the releases; what we use lies where it always lay, and the rest is to
 * be zero. */
typedef struct
{
  uint8_t unused;
  uint8_t is_ip4;
  uint8_t *ip;
  uint16_t port;
  uint8_t grown[44];
} vppcom_endpt;

enum /* vppcom_attr_op_t; numbers unchanged since 21.10 */
{
  ATTR_GET_NREAD = 0,
  ATTR_GET_NWRITE = 1,
  ATTR_GET_LCL_ADDR = 4,
  ATTR_GET_PEER_ADDR = 6,
  ATTR_GET_TX_FIFO_LEN = 12,
  ATTR_GET_RX_FIFO_LEN = 14,
};

struct vcl_functions
{
  int (*app_create) (const char *name);
  int (*worker_register) (void);
  void (*worker_unregister) (void);
  int (*worker_index) (void);
  void (*worker_index_set) (int index);
  int (*worker_mqs_epfd) (void);
  int (*worker_is_detached) (void); /* 23.02 */
  int (*epoll_create) (void);
  int (*epoll_ctl) (uint32_t vep, int op, uint32_t session, struct epoll_event *event);
  int (*epoll_wait) (uint32_t vep, struct epoll_event *events, int max_events, double timeout_ms);
  int (*session_create) (uint8_t proto, uint8_t is_nonblocking);
  int (*session_bind) (uint32_t session, vppcom_endpt *endpoint);
  int (*session_listen) (uint32_t session, uint32_t backlog);
  int (*session_accept) (uint32_t session, vppcom_endpt *peer, uint32_t flags);
  int (*session_connect) (uint32_t session, vppcom_endpt *peer);
  int (*session_get_error) (uint32_t session); /* 22.10 */
  int (*session_read) (uint32_t session, void *buffer, size_t size);
  int (*session_write) (uint32_t session, void *buffer, size_t size);
  int (*session_recvfrom) (uint32_t session, void *buffer, uint32_t size, int flags, vppcom_endpt *from);
  int (*session_sendto) (uint32_t session, void *buffer, uint32_t size, int flags, vppcom_endpt *to);
  int (*session_shutdown) (uint32_t session, int how);
  int (*session_close) (uint32_t session);
  int (*session_terminate) (uint32_t session); /* 26.02 */
  int (*session_attr) (uint32_t session, uint32_t op, void *buffer, uint32_t *size);
  void *(*heap_alloc_or_null) (size_t size); /* libvppinfra's, on the heap that VCL uses */
  void (*heap_free) (void *block);
  int (*queue_sub) (void *queue, void *message, int how_to_wait, uint32_t time); /* libsvm's */
  void (*queue_free_message) (void *queue, void *message);
};

extern struct vcl_functions vcl;

/* Whether vppaio_vpp_open has succeeded. */
int vpp_library_is_open (void);

#endif
