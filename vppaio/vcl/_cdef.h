/* SPDX-License-Identifier: Apache-2.0
 *
 * The declarations cffi needs and cannot see: what vcl_ops.h and libvppcom.h take from system headers, and the way to
 * host.c, which needs no header of its own. _build.py puts the text of those two headers behind this one. `...` leaves
 * the layout to the compiler (struct epoll_event is packed on x86-64 and nowhere else).
 */
struct iovec
{
  void *iov_base;
  size_t iov_len;
  ...;
};

typedef union
{
  uint64_t u64;
  ...;
} epoll_data_t;

struct epoll_event
{
  uint32_t events;
  epoll_data_t data;
  ...;
};

const struct vcl_ops *vppaio_host_ops (void);
