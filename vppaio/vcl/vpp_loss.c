/* SPDX-License-Identifier: Apache-2.0
 *
 * VPP dies, and comes back: what each worker knows of it, and in which order they go.
 *
 * VCL attaches the application with the worker that asks first, and counts the others. That goes wrong in two ways if one of
 * them does not turn just then (its loop is busy with a callback, or stopped, or it waits in the pool for a loop), so all
 * workers go together, and the one that looks takes the others along:
 *
 * - Who hears of the loss when another has attached already lets go of the new VPP's message queues, which have the old ones'
 *   name (vcl_private.c: vcl_worker_detach_sessions, 26.06). So all hear of it before one attaches.
 * - If one has not attached when VPP dies again, none counts as the first any more, and VCL calls exit(1) (vppcom.c:
 *   vcl_api_retry_attach). So all attach when one has.
 *
 * And nobody attaches while a thread registers a worker, which it does without the GIL: VCL counts that one, too.
 *
 * A loop whose worker was taken along is told when it asks (`untold`); until then nothing begins on that worker, and its
 * descriptor is readable.
 */
#define _GNU_SOURCE
#include "vpp_hooks.h"
#include "vpp_overflow.h"
#include "vpp_worker.h"

#include <sys/eventfd.h>
#include <time.h>

#define FIRST_OF_VCLS_OWN 0xfffffffeu /* epoll data of its pipe, which is there while VPP is not, and of the app socket */
#define BELL UINT64_MAX
#define SENDING_NS 10000000

static uint32_t losses; /* of the process: each is found by one worker first, and by the others later */

/* VCL sleeps a second in the middle of taking leave of a VPP that died (vcl_private.c: vcl_worker_detach_sessions), with the
 * GIL, for each worker, so that other threads may end what they do. Here another thread can be in VCL only to listen, without
 * the GIL. That is on a worker of its own; but it may be about to send, and VPP's queue, which is the same for all workers, is
 * unmapped next. Sending takes microseconds, and does not wait for a VPP that died (vpp_queue.c). */
unsigned
vpp_sleep (unsigned seconds)
{
  struct timespec pause = { 0, SENDING_NS };
  int i, others = 0;

  (void) seconds;
  for (i = 0; i < MAX_WORKERS; i++)
    others |= vpp_workers[i].registered && vpp_workers[i].busy;
  if (others)
    nanosleep (&pause, 0);
  vpp_drop_overflow ();
  return 0;
}

int
vpp_detached (int index)
{
  worker_t *w = &vpp_workers[index];
  int now = vcl.worker_is_detached && vcl.worker_is_detached () == 1;

  if (now && !w->was_detached)
    {
      w->epoch++;
      w->has_remains = w->untold = 1;
      if (w->heard == losses)
	losses++;
      w->heard = losses;
    }
  w->was_detached = now;
  return now;
}

void
vpp_begin_hearing (int index)
{
  vpp_workers[index].heard = losses;
}

/* Let the loop sleep on its worker's descriptor no more, or again: an eventfd is added that is always readable. VCL, which
 * would take it for the end of its app socket (it reads the lower half of `data`), does not look while the worker is
 * `untold`. */
static void
ring (int index, int on)
{
  static int bell = -1;
  struct epoll_event event = { .events = EPOLLIN, .data.u64 = BELL };

  if (bell < 0)
    bell = eventfd (1, EFD_CLOEXEC | EFD_NONBLOCK);
  if (on != vpp_workers[index].rings && !epoll_ctl (vcl.worker_mqs_epfd (), on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, bell, &event))
    vpp_workers[index].rings = on;
}

int
vpp_worker_is_detached (int index)
{
  int detached;

  ENTER (index);
  detached = vpp_detached (index) || vpp_workers[index].untold;
  vpp_workers[index].untold = 0;
  ring (index, 0);
  return detached;
}

int
vpp_hung_up (void)
{
  struct epoll_event events[16];
  int n;

  for (n = epoll_wait (vcl.worker_mqs_epfd (), events, 16, 0); n-- > 0;)
    if (events[n].data.u64 >= FIRST_OF_VCLS_OWN && events[n].data.u64 != BELL &&
	(events[n].data.u64 == FIRST_OF_VCLS_OWN || events[n].events & (EPOLLHUP | EPOLLERR))) /* else a new segment */
      return 1;
  return 0;
}

int
vpp_is_lost (void)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered && !enter (i) && vpp_hung_up ())
      return 1;
  return 0;
}

/* A look for a worker whose own loop does not turn. */
static void
look_for (int index)
{
  worker_t *w = &vpp_workers[index];
  struct epoll_event scratch[16];
  int vep;

  if (enter (index))
    return; /* it is in session_listen, and will be back */
  ring (index, 0);
  if (w->has_vep)
    vpp_take_events (index);
  else if ((vep = vcl.epoll_create ()) >= 0)
    {
      vcl.epoll_wait ((uint32_t) vep, scratch, 16, VCL_WAIT_NOW);
      if (vpp_detached (index))
	{
	  w->untold = 0; /* nobody is there to be told */
	  while (vcl.epoll_wait ((uint32_t) vep, scratch, 16, VCL_WAIT_PARKED) > 0)
	    ;
	  vpp_lose_sessions (index);
	}
      vcl.session_close ((uint32_t) vep);
    }
  ring (index, w->untold);
}

int
vpp_all_have_heard (void)
{
  int i, all = 1;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered && vpp_workers[i].heard != losses)
      {
	look_for (i);
	all &= vpp_workers[i].heard == losses;
      }
  return all;
}

void
vpp_let_all_attach (void)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered && !enter (i) && vpp_detached (i))
      look_for (i);
}
