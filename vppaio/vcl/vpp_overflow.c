/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue of our own behind VPP's: what does not fit while VPP hangs, or is slow, waits here, and no loop does.
 *
 * VCL tells VPP things by messages in a queue in shared memory: close, shutdown, connect, "there is something to send". When
 * it is full VCL waits for room, with the GIL, as long as VPP takes; and a VPP that is stopped takes for ever. So the queue
 * that VCL finds full is changed under its hands for one in this process (svm_msg_q_t is VCL's own record of a queue: where
 * the messages lie, and the rings with their text). VCL finds room and goes on. A thread moves the messages over as
 * VPP makes room, in their order, and changes the queue back when all are with VPP.
 *
 * The record is under its own lock, which every producer takes: a spinlock in this process, or, without
 * `use-private-rx-mqs`, the mutex beside the messages, which changes with them.
 *
 * VPP dies: then what waits is for nobody, and VCL unmaps its queue; vpp_drop_overflow comes before that. The process ends:
 * VPP hears of that, and closes what was to be closed.
 */
#define _GNU_SOURCE
#include "vpp_overflow.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define N_RINGS 2	/* of VPP's queues: for I/O events and for everything else */
#define ROOM (1 << 17)	/* messages; the memory is there when it is used */
#define MAX_QUEUES 64	/* VPP has one for each of its threads */
#define LOOK_EVERY_NS 1000000

typedef struct
{
  uint32_t ring, element;
} message_t;

struct overflow
{
  queue_t *queue;
  shared_queue_t *vpps, *ours;
  ring_shared_t *vpps_rings[N_RINGS];
  uint32_t vpps_sizes[N_RINGS];
  size_t size; /* of the mapping at `ours` */
};

static struct overflow overflows[MAX_QUEUES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the table; taken before a queue's */
static int n_overflows, runs;

/* clib_spinlock_t: its first word is 1 while it is held (vppinfra/lock.h). */
static int
try_lock_queue (queue_t *queue)
{
  uint32_t free = 0;

  return queue->eventfd < 0 ? !pthread_mutex_trylock (&queue->shared->mutex) :
			      __atomic_compare_exchange_n (queue->spinlock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void
unlock_queue (queue_t *queue)
{
  if (queue->eventfd < 0)
    pthread_mutex_unlock (&queue->shared->mutex);
  else
    __atomic_store_n (queue->spinlock, 0, __ATOMIC_RELEASE);
}

/* Whether the queue is what this file takes it for. */
static int
is_known (const queue_t *queue)
{
  int i;

  if (queue->shared->element_size != sizeof (message_t) || !queue->shared->room || queue->eventfd < -1 ||
      (queue->eventfd >= 0 && !queue->spinlock))
    return 0;
  for (i = 0; i < N_RINGS; i++)
    if (queue->rings[i].room != queue->rings[i].shared->room || !queue->rings[i].room ||
	queue->rings[i].element_size != queue->rings[i].shared->element_size || queue->rings[i].element_size > 4096)
      return 0;
  return 1;
}

static ring_shared_t *
make_ring (uint8_t **at, uint32_t element_size)
{
  ring_shared_t *ring = (ring_shared_t *) *at;

  ring->room = ROOM;
  ring->element_size = element_size;
  *at += (sizeof (*ring) + (size_t) element_size * ROOM + 63) & ~(size_t) 63;
  return ring;
}

/* Change the queue for one of ours. */
static int
divert (struct overflow *o, queue_t *queue)
{
  pthread_mutexattr_t attributes;
  uint8_t *at;
  int i;

  o->size = sizeof (shared_queue_t) + ROOM * sizeof (message_t) + 64;
  for (i = 0; i < N_RINGS; i++)
    o->size += sizeof (ring_shared_t) + (size_t) queue->rings[i].element_size * ROOM + 64;
  o->ours = mmap (0, o->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (o->ours == MAP_FAILED)
    return -1;
  o->queue = queue;
  o->vpps = queue->shared;
  o->ours->room = ROOM;
  o->ours->element_size = sizeof (message_t);
  pthread_mutexattr_init (&attributes);
  pthread_mutexattr_setrobust (&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init (&o->ours->mutex, &attributes);
  pthread_mutexattr_destroy (&attributes);
  pthread_cond_init (&o->ours->condition, 0);
  at = (uint8_t *) (o->ours + 1) + ROOM * sizeof (message_t);
  for (i = 0; i < N_RINGS; i++)
    {
      o->vpps_rings[i] = queue->rings[i].shared;
      o->vpps_sizes[i] = queue->rings[i].room;
      queue->rings[i].shared = make_ring (&at, queue->rings[i].element_size);
      queue->rings[i].room = ROOM;
    }
  if (queue->eventfd < 0)
    {
      pthread_mutex_lock (&o->ours->mutex);
      queue->shared = o->ours;
      pthread_mutex_unlock (&o->vpps->mutex);
    }
  else
    queue->shared = o->ours;
  return 0;
}

/* The queue is VPP's again. Its lock is held, and is VPP's afterwards. */
static void
restore (struct overflow *o)
{
  queue_t *queue = o->queue;
  int i;

  for (i = 0; i < N_RINGS; i++)
    {
      queue->rings[i].shared = o->vpps_rings[i];
      queue->rings[i].room = o->vpps_sizes[i];
    }
  if (queue->eventfd < 0 && pthread_mutex_lock (&o->vpps->mutex) == EOWNERDEAD)
    pthread_mutex_consistent (&o->vpps->mutex);
  queue->shared = o->vpps;
  if (queue->eventfd < 0)
    pthread_mutex_unlock (&o->ours->mutex);
}

static void
forget (struct overflow *o)
{
  munmap (o->ours, o->size);
  *o = overflows[--n_overflows];
}

static uint8_t *
text_of (ring_shared_t *ring, uint32_t element)
{
  return ring->data + (size_t) ring->element_size * element;
}

/* Move the next message over, as svm_msg_q_alloc_msg_w_ring, svm_msg_q_add_raw and svm_msg_q_free_msg do; 0 if there is none,
 * or no room for it. */
static int
move_one (struct overflow *o)
{
  shared_queue_t *ours = o->ours, *vpps = o->vpps;
  message_t *message = (message_t *) ours->data + ours->head, *to;
  ring_shared_t *from, *ring;
  uint64_t one = 1;

  if (!ours->used || __atomic_load_n (&vpps->used, __ATOMIC_ACQUIRE) >= vpps->room)
    return 0;
  from = o->queue->rings[message->ring].shared;
  ring = o->vpps_rings[message->ring];
  if (__atomic_load_n (&ring->used, __ATOMIC_ACQUIRE) >= ring->room)
    return 0;
  to = (message_t *) vpps->data + vpps->tail;
  to->ring = message->ring;
  to->element = ring->tail;
  memcpy (text_of (ring, ring->tail), text_of (from, message->element), ring->element_size);
  ring->tail = (ring->tail + 1) % ring->room;
  __atomic_add_fetch (&ring->used, 1, __ATOMIC_RELEASE);
  vpps->tail = (vpps->tail + 1) % vpps->room;
  if (__atomic_fetch_add (&vpps->used, 1, __ATOMIC_RELEASE) == 0 && o->queue->eventfd >= 0)
    (void) !write (o->queue->eventfd, &one, sizeof (one));
  from->head = (from->head + 1) % from->room;
  from->used--;
  ours->head = (ours->head + 1) % ours->room;
  ours->used--;
  return 1;
}

/* What there is room for. The queue's lock is held. */
static int
move (struct overflow *o)
{
  int moved = 0, is_mutex = o->queue->eventfd < 0;

  if (is_mutex && pthread_mutex_lock (&o->vpps->mutex) == EOWNERDEAD)
    pthread_mutex_consistent (&o->vpps->mutex);
  while (move_one (o))
    moved = 1;
  if (is_mutex && moved)
    pthread_cond_broadcast (&o->vpps->condition);
  if (is_mutex)
    pthread_mutex_unlock (&o->vpps->mutex);
  return moved;
}

/* 1 if all is with VPP. A queue that a producer holds is for the next time: it may itself be waiting for room. */
static int
move_all (struct overflow *o)
{
  int done;

  if (!try_lock_queue (o->queue))
    return 0;
  move (o);
  done = !o->ours->used;
  if (done)
    restore (o);
  unlock_queue (o->queue);
  return done;
}

static void *
run (void *unused)
{
  struct timespec pause = { 0, LOOK_EVERY_NS };
  int i, left;

  (void) unused;
  do
    {
      nanosleep (&pause, 0);
      pthread_mutex_lock (&lock);
      for (i = n_overflows; i-- > 0;)
	if (move_all (&overflows[i]))
	  forget (&overflows[i]);
      left = n_overflows;
      runs = left > 0;
      pthread_mutex_unlock (&lock);
    }
  while (left);
  return 0;
}

/* Signals are for Python's threads. */
static int
start_thread (void)
{
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  int rv;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  pthread_attr_init (&attributes);
  pthread_attr_setdetachstate (&attributes, PTHREAD_CREATE_DETACHED);
  rv = pthread_create (&thread, &attributes, run, 0);
  pthread_attr_destroy (&attributes);
  pthread_sigmask (SIG_SETMASK, &before, 0);
  return rv;
}

int
vpp_overflow (queue_t *queue)
{
  int i, rv = -1;

  pthread_mutex_lock (&lock); /* whoever has it does not wait for a queue */
  for (i = 0; i < n_overflows && overflows[i].queue != queue; i++)
    ;
  if (i < n_overflows)
    rv = move (&overflows[i]) ? 0 : -1;
  else if (i < MAX_QUEUES && is_known (queue) && (runs || !start_thread ()))
    {
      runs = 1;
      rv = divert (&overflows[i], queue);
      n_overflows += !rv;
    }
  pthread_mutex_unlock (&lock);
  return rv;
}

void
vpp_drop_overflow (void)
{
  pthread_mutex_lock (&lock);
  while (n_overflows)
    {
      while (!try_lock_queue (overflows[0].queue))
	sched_yield ();
      restore (&overflows[0]);
      unlock_queue (overflows[0].queue);
      forget (&overflows[0]);
    }
  pthread_mutex_unlock (&lock);
}
