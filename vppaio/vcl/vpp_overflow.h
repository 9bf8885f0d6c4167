/* SPDX-License-Identifier: Apache-2.0
 *
 * VPP's message queues as producers see them, and what to do when one is full; see vpp_overflow.c.
 */
#ifndef VPPAIO_VPP_OVERFLOW_H
#define VPPAIO_VPP_OVERFLOW_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>

typedef struct /* svm_msg_q_shared_queue_t */
{
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  uint32_t head, tail, used, room, element_size, unused;
  uint8_t data[];
} shared_queue_t;

typedef struct /* svm_msg_q_ring_shared_t */
{
  uint32_t used, room, head, tail, element_size;
  uint8_t data[];
} ring_shared_t;

typedef struct __attribute__ ((packed)) /* svm_msg_q_ring_t */
{
  uint32_t room, element_size;
  ring_shared_t *shared;
} ring_t;

typedef struct __attribute__ ((packed, aligned (8))) /* svm_msg_q_t */
{
  shared_queue_t *shared;
  int eventfd, unused;
  uint32_t *spinlock;
  ring_t *rings;
} queue_t;

/* A producer that holds the queue's lock has found it full: 0 if it has room now. */
int vpp_overflow (queue_t *queue);
/* VPP has died. No producer is inside. */
void vpp_drop_overflow (void);

#endif
