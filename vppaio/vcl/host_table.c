/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers, chunks and slots, allocated and given back.
 */
#include "host_table.h"

#include <string.h>

_Atomic (chunk *) host_chunks[MAX_CHUNKS];
static _Atomic (worker *) all_workers;

/* Workers are per thread and threads may start at once; on a free-threaded Python no GIL is in between. So places in the
 * directory, and workers that nobody has, are taken by exchange. */

/* A fresh chunk in the first empty place; `w` is NULL for a worker's first one. NULL: no memory. */
static chunk *
add_chunk (worker *w)
{
  chunk *c = calloc (1, sizeof (*c));
  if (!c)
    return NULL;
  c->owner = w ? w : &c->self;
  c->older = w ? w->newest : NULL;
  c->owner->newest = c;
  c->owner->used = 0;
  atomic_init (&c->self.taken, !w);
  c->self.first_free = NO_SLOT;
  for (uint32_t number = 0; number < MAX_CHUNKS; number++)
    {
      chunk *nobody = NULL;
      c->number = number;
      if (!atomic_load_explicit (&host_chunks[number], memory_order_relaxed)
	  && atomic_compare_exchange_strong (&host_chunks[number], &nobody, c))
	return c;
    }
  if (w)
    {
      w->newest = c->older;
      w->used = CHUNK_SESSIONS;
    }
  free (c);
  return NULL;
}

int
host_take_worker (void)
{
  _Atomic (worker *) *place = &all_workers;
  worker *w;
  for (; (w = atomic_load (place)); place = &w->next)
    if (!atomic_exchange (&w->taken, true))
      return (int) w->newest->number;
  chunk *c = add_chunk (NULL);
  if (!c)
    return -ENOMEM;
  for (w = NULL; !atomic_compare_exchange_strong (place, &w, &c->self); w = NULL)
    place = &w->next;
  return (int) c->number;
}

void
host_give_back_worker (worker *w)
{
  chunk *c = w->newest;
  while (c->older)
    {
      chunk *older = c->older;
      atomic_store (&host_chunks[c->number], NULL);
      free (c);
      c = older;
    }
  memset (c->sessions, 0, sizeof (c->sessions));
  w->newest = c;
  w->used = 0;
  w->first_free = NO_SLOT;
  w->has_epoll_set = false;
  atomic_store (&w->taken, false);
}

int
host_take_slot (worker *w)
{
  if (w->first_free != NO_SLOT)
    {
      uint32_t handle = w->first_free;
      w->first_free = slot (handle)->next_free;
      return (int) handle;
    }
  if (w->used == CHUNK_SESSIONS && !add_chunk (w))
    return -ENOMEM;
  return (int) (w->newest->number * CHUNK_SESSIONS + w->used++);
}

void
host_give_back_slot (worker *w, uint32_t handle)
{
  session *s = slot (handle);
  s->state = VCL_FREE;
  s->next_free = w->first_free;
  w->first_free = handle;
}
