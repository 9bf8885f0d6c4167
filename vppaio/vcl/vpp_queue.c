/* SPDX-License-Identifier: Apache-2.0
 *
 * What VCL does while VPP's queue for our messages is full: a function of ours, in the place of VPP's own.
 *
 * With `use-private-rx-mqs` VPP sleeps until the queue's eventfd is readable. A producer that finds the queue full waits by
 * reading the same eventfd (svm/message_queue.c: svm_msg_q_or_ring_wait_prod, 26.06), and so takes away what was to wake
 * VPP: if VPP had not looked yet, it never will, and the process waits for ever. It takes a burst of control messages, half
 * as many as event-queue-size, before VPP's next look: 1024 connections that are accepted or closed with VCL's default.
 * This one makes room (vpp_overflow.c), so that nobody waits. Where it cannot, it waits without touching the eventfd.
 *
 * Without `use-private-rx-mqs` the queue has no eventfd, the caller holds its mutex, and VPP signals a condition, for which
 * it takes the mutex. VPP's function waits there well, but for ever if VPP dies.
 *
 * The libraries find it here by ELF's rules: names are looked for in the global scope before the libraries' own, and
 * vpp_library.c puts this module there before it loads them. Its other names are hidden.
 */
#define _GNU_SOURCE
#include "vpp_overflow.h"
#include "vpp_worker.h"

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define EXPORT __attribute__ ((visibility ("default")))
#define PAUSE_NS 50000
#define LOOK_EVERY_NS 10000000 /* whether VPP still lives, while it is to signal */
#define NOWAIT 1	       /* svm_q_conditional_wait_t */

EXPORT int svm_msg_q_or_ring_wait_prod (queue_t *queue, uint32_t ring);
EXPORT int svm_msg_q_wait_prod (queue_t *queue);

static void
lock (queue_t *queue)
{
  if (pthread_mutex_lock (&queue->shared->mutex) == EOWNERDEAD)
    pthread_mutex_consistent (&queue->shared->mutex);
}

/* A VPP that died will not read its queue: then its messages may go, one at a time, to make room for those that the calls
 * under way want to send. */
static void
drop_one (queue_t *queue)
{
  uint64_t message;

  if (queue->eventfd < 0)
    pthread_mutex_unlock (&queue->shared->mutex); /* libsvm takes it */
  if (!vcl.queue_sub (queue, &message, NOWAIT, 0))
    vcl.queue_free_message (queue, &message);
  if (queue->eventfd < 0)
    lock (queue);
}

static void
wait_for_signal (queue_t *queue)
{
  struct timespec until;

  clock_gettime (CLOCK_REALTIME, &until);
  until.tv_nsec += LOOK_EVERY_NS;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  if (pthread_cond_timedwait (&queue->shared->condition, &queue->shared->mutex, &until) == EOWNERDEAD)
    pthread_mutex_consistent (&queue->shared->mutex);
}

/* The caller looks again, and comes back if the queue is still full. */
static int
wait_for_room (queue_t *queue)
{
  struct timespec pause = { 0, PAUSE_NS };

  if (vcl.worker_index () >= 0 && vpp_hung_up () && vcl.queue_sub && vcl.queue_free_message)
    drop_one (queue);
  else if (!vpp_overflow (queue))
    return 0;
  else if (queue->eventfd < 0)
    wait_for_signal (queue);
  else
    nanosleep (&pause, 0);
  return 0;
}

int
svm_msg_q_or_ring_wait_prod (queue_t *queue, uint32_t ring)
{
  (void) ring;
  return wait_for_room (queue);
}

/* The same before 22.06. */
int
svm_msg_q_wait_prod (queue_t *queue)
{
  return wait_for_room (queue);
}
