/* SPDX-License-Identifier: Apache-2.0
 *
 * What VCL does while VPP's queue for our messages is full: a function of ours, in the place of VPP's own.
 *
 * With `use-private-rx-mqs` VPP sleeps until the queue's eventfd is readable. A producer that finds the queue full waits by
 * reading the same eventfd (svm/message_queue.c: svm_msg_q_or_ring_wait_prod, 26.06), and so takes away what was to wake
 * VPP: if VPP had not looked yet, it never will, and the process waits for ever. It takes a burst of control messages, half
 * as many as event-queue-size, before VPP's next look: 1024 connections that are accepted or closed with VCL's default.
 * This one waits without touching the eventfd.
 *
 * The libraries find it here by ELF's rules: names are looked for in the global scope before the libraries' own, and
 * vpp_library.c puts this module there before it loads them. Its other names are hidden.
 */
#define _GNU_SOURCE
#include "vpp_worker.h"

#include <stdint.h>
#include <time.h>

#define EXPORT __attribute__ ((visibility ("default")))
#define PAUSE_NS 50000
#define NOWAIT 1 /* svm_q_conditional_wait_t */

EXPORT int svm_msg_q_or_ring_wait_prod (void *queue, uint32_t ring);
EXPORT int svm_msg_q_wait_prod (void *queue);

/* The caller looks again, and comes back if the queue is still full. A VPP that died will not read it: then its messages
 * may go, one at a time, to make room for those that the calls under way want to send. */
static void
wait_for_room (void *queue)
{
  struct timespec pause = { 0, PAUSE_NS };
  uint64_t message;

  if (vcl.worker_index () >= 0 && vpp_hung_up () && vcl.queue_sub && vcl.queue_free_message)
    {
      if (!vcl.queue_sub (queue, &message, NOWAIT, 0))
	vcl.queue_free_message (queue, &message);
    }
  else
    nanosleep (&pause, 0);
}

int
svm_msg_q_or_ring_wait_prod (void *queue, uint32_t ring)
{
  (void) ring;
  wait_for_room (queue);
  return 0;
}

/* The same before 22.06. */
int
svm_msg_q_wait_prod (void *queue)
{
  wait_for_room (queue);
  return 0;
}
