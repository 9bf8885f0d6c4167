/* SPDX-License-Identifier: Apache-2.0
 *
 * No descriptor or no memory for what VPP sends: the worker waits, as a listener of the kernel's does without descriptors.
 *
 * A new segment is announced in the worker's queue among everything else, and VCL takes all that is there at once. So
 * while a segment cannot be had VCL is not let to the queue: it would go on without (vpp_segments.c). New connections stay in
 * VPP; accept says EMFILE or ENOMEM, so that the loop tells, and listen and connect say it as well. Data of open sessions
 * goes through FIFOs that are mapped, and only the news of it is in the queue: so the sessions are asked one by one
 * instead. What ends a session is in the queue, too, and is heard when the shortage is over.
 */
#include "vpp_spare.h"

#include "vpp_hooks.h"
#include "vpp_worker.h"

#include <stdlib.h>
#include <time.h>

#define PAUSE_NS 1000000   /* the worker's descriptor stays readable: do not let the loop spin */
#define ASK_EVERY_NS 10000000

static struct
{
  int error; /* positive errno */
  int64_t asked_ns;
} short_of[MAX_WORKERS];

int
vpp_look_at_socket (int app_socket, struct epoll_event *events, int n)
{
  int index = vcl.worker_index (), i, rv = 0, kept = 0, has_message = 0;

  for (i = 0; i < n; i++)
    {
      /* VCL has numbers for its queues, and is ready to hear of the end of the socket. */
      if (events[i].data.u32 == UINT32_MAX && events[i].events & EPOLLIN)
	{
	  has_message = 1;
	  if (!(events[i].events & (EPOLLHUP | EPOLLERR)))
	    continue;
	}
      events[kept++] = events[i];
    }
  /* The reserve's memory is for what comes after this look, and before VCL's. */
  while (has_message && !(rv = vpp_fetch (app_socket, USE_DESCRIPTORS)))
    ;
  rv = rv == -EMFILE || rv == -ENOMEM ? -rv : 0;
  if (index >= 0 && index < MAX_WORKERS)
    short_of[index].error = rv;
  return rv ? 0 : kept;
}

int
vpp_shortage (int index)
{
  return short_of[index].error;
}

int
vpp_can_grow (int index)
{
  if (!vpp_hooks_are_whole)
    return 0;
  return short_of[index].error ? -short_of[index].error : vpp_spare_check ();
}

int
vpp_can_register (void)
{
  /* It is not known before the first of them. */
  const answer_t *answer = vpp_worker_answer.descriptors ? &vpp_worker_answer : &vpp_application_answer;

  if (!vpp_hooks_are_whole)
    return 0;
  if (vpp_missing_descriptors (2 + answer->descriptors)) /* an epoll set, an app socket */
    return -EMFILE;
  return vpp_missing_bytes (answer->bytes) ? -ENOMEM : 0;
}

/* They go one after the other, and each keeps all but the segments' descriptors. */
int
vpp_can_attach (void)
{
  const answer_t *first = &vpp_application_answer, *other = &vpp_worker_answer;
  int i, others = -1, descriptors = 1 + first->descriptors, kept, missing;
  size_t bytes = first->bytes;

  if (!vpp_hooks_are_whole)
    return 1;
  for (i = 0; i < MAX_WORKERS; i++)
    others += vpp_workers[i].registered && vpp_workers[i].was_detached;
  if (others > 0)
    {
      kept = descriptors - first->segments + others * (1 + other->descriptors - other->segments);
      descriptors = kept + other->segments > descriptors ? kept + other->segments : descriptors;
      bytes += (size_t) others * other->bytes;
    }
  vpp_spare_lend (descriptors);
  missing = vpp_missing_descriptors (descriptors);
  vpp_spare_refill ();
  return !missing && !vpp_missing_bytes (bytes);
}

static uint32_t
ready (const slot_t *s)
{
  uint32_t events = 0;

  if (s->state == VCL_LISTENING)
    return EPOLLIN; /* accept tells why there is none */
  if (s->state == VCL_LOST)
    return 0;
  if (vcl.session_attr (s->vcl, ATTR_GET_NREAD, 0, 0) > 0)
    events |= EPOLLIN;
  if (vcl.session_attr (s->vcl, ATTR_GET_NWRITE, 0, 0) > 0)
    events |= EPOLLOUT;
  return events;
}

void
vpp_ask_sessions (int index)
{
  struct timespec pause = { 0, PAUSE_NS }, now;
  worker_t *w = &vpp_workers[index];
  int64_t now_ns;
  uint32_t events, i;

  nanosleep (&pause, 0);
  clock_gettime (CLOCK_MONOTONIC, &now);
  now_ns = now.tv_sec * INT64_C (1000000000) + now.tv_nsec;
  if (now_ns < short_of[index].asked_ns + ASK_EVERY_NS)
    return;
  short_of[index].asked_ns = now_ns;
  for (i = 0; i < w->n_slots; i++)
    if (w->slots[i].membership == MEMBER && (events = ready (&w->slots[i])) &&
	!vpp_grow ((void **) &w->parked, &w->room_parked, w->n_parked + 1, sizeof (*w->parked)))
      w->parked[w->n_parked++] = (struct epoll_event){ .events = events, .data.u64 = w->slots[i].data };
}
