/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers and slots, allocated and given back.
 */
#include "host_table.h"

_Atomic (worker *) host_workers[MAX_WORKERS];

worker *
host_worker_at (int index)
{
  worker *w = atomic_load (&host_workers[index]);
  if (w)
    return w;
  worker *fresh = calloc (1, sizeof (*fresh));
  if (!fresh)
    return NULL;
  fresh->first_free = NO_SLOT;
  if (atomic_compare_exchange_strong (&host_workers[index], &w, fresh))
    return fresh;
  free (fresh); /* another thread was first, and `w` is now its worker */
  return w;
}

int
host_take_slot (worker *w)
{
  if (w->first_free != NO_SLOT)
    {
      uint32_t index = w->first_free;
      w->first_free = slot (w, index)->next_free;
      return index;
    }
  if (w->used == MAX_SESSIONS)
    return -EMFILE;
  session **chunk = &w->chunks[w->used / CHUNK_SESSIONS];
  if (!*chunk && !(*chunk = calloc (CHUNK_SESSIONS, sizeof (session))))
    return -ENOMEM;
  return w->used++;
}

void
host_give_back_slot (worker *w, uint32_t index)
{
  session *s = slot (w, index);
  s->state = FREE;
  s->next_free = w->first_free;
  w->first_free = index;
}

void
host_free_slots (worker *w)
{
  uint32_t chunks = (w->used + CHUNK_SESSIONS - 1) / CHUNK_SESSIONS;
  w->used = 0;
  w->first_free = NO_SLOT;
  w->has_epoll_set = false;
  for (uint32_t i = 0; i < chunks; i++)
    {
      free (w->chunks[i]);
      w->chunks[i] = NULL;
    }
}
