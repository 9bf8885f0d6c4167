/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of VCL's heap: libvppcom aborts the process there ("Out-of-memory, calling os_panic()"), so new sessions are
 * refused before.
 *
 * Two things use it up: the session pool, a vector that moves to one half as large again when it is full, and the
 * announced connections that nobody has accepted yet. So there has to be room for the next pool and for a queue full of
 * announcements; a block of that size is asked for, and given back at once. Asking costs 0.03 us.
 *
 * The pool never shrinks, and does not tell how much of it is in use. So when the end comes near, the worker begins to
 * keep the free slots in its own hands, as spare sessions: some made at once, while the pool can still move, and one for
 * each session that ends from then on. From this stock
 *
 * - new sessions are served as long as it is large enough;
 * - the others are refused: a connection that is refused has to be accepted and reset, and has its slot until VPP confirms
 *   that, 0.1 s later (tcp cleanup-time).
 *
 * Spare sessions are epoll sets, since VCL frees no other session at once.
 */
#include "libvppcom.h"
#include "vpp_worker.h"

#include <stdlib.h>

#define POOL_BYTES 512 /* per slot: 1.5 times the 256 bytes of a vcl_session_t, and its place in a hash */
#define KEPT_FOR_REFUSING 1024

static size_t reserve;

static int
fits (size_t size)
{
  void *block = vcl.heap_alloc_or_null (size);

  if (block)
    vcl.heap_free (block);
  return block != 0;
}

void
vppaio_vpp_heap_reserve (size_t size)
{
  reserve = size;
}

size_t
vppaio_vpp_heap_room (void)
{
  size_t room = 0, step;

  if (!vpp_attached || !vcl.heap_alloc_or_null || !vcl.heap_free)
    return 0;
  for (step = (size_t) 1 << 31; step >= 4096; step /= 2)
    if (fits (room + step))
      room += step;
  return room;
}

static void
make_spares (int index, int number)
{
  worker_t *w = &vpp_workers[index];
  int rv;

  if (vpp_grow ((void **) &w->spare, &w->room_spare, w->n_spare + number, sizeof (*w->spare)))
    return;
  while (number-- > 0 && (rv = vcl.epoll_create ()) >= 0)
    {
      vpp_remember ((uint32_t) rv);
      w->spare[w->n_spare++] = (uint32_t) rv;
    }
}

/* A spare session's slot becomes free, and is what the next session gets. */
static void
spend_spare (worker_t *w)
{
  vcl.session_close (w->spare[--w->n_spare]);
}

void
vpp_note_end (uint32_t session)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (session)];

  if (!w->keeps_slots || SESSION_INDEX (session) >= w->n_sessions || w->is_ending[SESSION_INDEX (session)])
    return;
  if (vpp_grow ((void **) &w->ending, &w->room_ending, w->n_ending + 1, sizeof (*w->ending)))
    return;
  w->is_ending[SESSION_INDEX (session)] = 1;
  w->ending[w->n_ending++] = session;
}

/* First see which slots are free again: a new session may get any of them. */
static void
collect_slots (int index)
{
  worker_t *w = &vpp_workers[index];
  int i = 0, n_free = 0;

  while (i < w->n_ending)
    {
      uint32_t session = w->ending[i];
      int is_free = vcl.session_attr (session, ATTR_GET_NREAD, 0, 0) == -EBADFD;
      uint8_t *is_ending = &w->is_ending[SESSION_INDEX (session)]; /* else it is somebody else's by now */

      n_free += is_free && *is_ending;
      if (is_free)
	*is_ending = 0;
      if (!*is_ending)
	w->ending[i] = w->ending[--w->n_ending];
      else
	i++;
    }
  make_spares (index, n_free);
}

int
vpp_heap_is_low (int index)
{
  worker_t *w = &vpp_workers[index];
  size_t wanted = reserve + (size_t) w->n_sessions * POOL_BYTES;

  if (!vcl.heap_alloc_or_null || !vcl.heap_free)
    return 0;
  w->heap_low = !fits (wanted);
  if (!w->heap_low && !w->keeps_slots && !fits (2 * wanted))
    {
      w->keeps_slots = 1;
      make_spares (index, KEPT_FOR_REFUSING);
    }
  return w->heap_low;
}

int
vpp_take_slot (int index)
{
  worker_t *w = &vpp_workers[index];

  if (!vpp_heap_is_low (index))
    return 1;
  if (w->n_spare <= KEPT_FOR_REFUSING)
    collect_slots (index);
  if (w->n_spare <= KEPT_FOR_REFUSING)
    return 0;
  spend_spare (w);
  return 1;
}

int
vpp_refuse_one (uint32_t listener)
{
  worker_t *w = &vpp_workers[HANDLE_WORKER (listener)];
  uint8_t ip[16];
  vppcom_endpt peer = { .ip = ip };
  int rv;

  if (vpp_leaving || !w->n_spare || vcl.session_attr (listener, ATTR_GET_NREAD, 0, 0) <= 0)
    return 0;
  spend_spare (w);
  rv = vcl.session_accept (listener, &peer, 04000 /* O_NONBLOCK */);
  if (rv < 0)
    {
      make_spares (HANDLE_WORKER (listener), 1);
      return rv == -ECONNABORTED;
    }
  clock_gettime (CLOCK_MONOTONIC_COARSE, &vpp_last_accept);
  /* A reset, where VCL has it: a close would hold the slot until the peer has closed, too. */
  if (vcl.session_terminate)
    vcl.session_terminate ((uint32_t) rv);
  else
    vcl.session_close ((uint32_t) rv);
  if (vpp_remember ((uint32_t) rv) == 0)
    vpp_note_end ((uint32_t) rv);
  return 1;
}

void
vpp_refuse_connections (int index)
{
  worker_t *w = &vpp_workers[index];
  uint32_t i;

  if (vpp_detached (index))
    return;
  collect_slots (index);
  if (w->n_spare > KEPT_FOR_REFUSING)
    return; /* they can be served */
  for (i = 0; i < w->n_slots; i++)
    if (w->slots[i].state == VCL_LISTENING)
      while (vpp_refuse_one (w->slots[i].vcl))
	w->has_refused = 1;
}
