/* SPDX-License-Identifier: Apache-2.0
 *
 * The reserve: some descriptors, and address space for one segment.
 *
 * VCL takes the kernel's yes for granted: without a descriptor or memory for what VPP sends, it uses descriptor 0, follows
 * NULL, or ends the process. So both are held ready. Descriptors are copies of one that means nothing; they are closed right
 * before a call that needs some, and taken again right after. In between another thread may get them: vpp_segments.c loses
 * nothing then, and tries again. Address space is a mapping without access, which the segment's takes the place of.
 *
 * While VPP is away VCL has closed its socket and its eventfds. Their numbers stay here until it attaches again.
 */
#define _GNU_SOURCE
#include "vpp_spare.h"

#include "libvppcom.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define FEWEST 2 /* a segment's, and one for a second that comes at the same moment */
#define MOST 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int held[MOST], n_held, wanted = FEWEST, always_readable = -1;
static void *room;
static size_t room_size, wanted_room;

int
vpp_above_standard (int fd)
{
  int above;

  if (fd < 0 || fd > 2)
    return fd;
  above = fcntl (fd, F_DUPFD_CLOEXEC, 3);
  close (fd);
  return above;
}

/* With the lock. 0, -EMFILE. */
static int
take_descriptors (void)
{
  while (n_held < wanted)
    {
      int fd = fcntl (always_readable, F_DUPFD_CLOEXEC, 3);
      if (fd < 0)
	return -EMFILE;
      held[n_held++] = fd;
    }
  return 0;
}

/* With the lock. 0, -ENOMEM. */
static int
take_room (void)
{
  if (room || !wanted_room)
    return 0;
  room = mmap (0, wanted_room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED)
    room = 0;
  room_size = room ? wanted_room : 0;
  return room ? 0 : -ENOMEM;
}

int
vpp_spare_begin (void)
{
  int rv;

  pthread_mutex_lock (&lock);
  if (always_readable < 0)
    always_readable = vpp_above_standard (eventfd (1, EFD_CLOEXEC | EFD_NONBLOCK));
  rv = always_readable < 0 ? -EMFILE : take_descriptors ();
  pthread_mutex_unlock (&lock);
  return rv;
}

int
vpp_spare_refill (void)
{
  int rv = 0, no_room;

  if (n_held >= wanted && (room || !wanted_room))
    return 0;
  pthread_mutex_lock (&lock);
  if (always_readable >= 0)
    {
      rv = take_descriptors ();
      no_room = take_room ();
      rv = rv ? rv : no_room;
    }
  pthread_mutex_unlock (&lock);
  return rv;
}

int
vpp_spare_check (void)
{
  struct rlimit limit;
  int rv = vpp_spare_refill (), i, usable = 0;

  pthread_mutex_lock (&lock);
  getrlimit (RLIMIT_NOFILE, &limit);
  for (i = 0; i < n_held; i++)
    usable |= (rlim_t) held[i] < limit.rlim_cur;
  if (!rv && !usable)
    rv = -EMFILE;
  /* In its own place a page is mapped unless there is too much already. */
  if (!rv && room && mmap (room, (size_t) sysconf (_SC_PAGESIZE), PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    rv = -ENOMEM;
  pthread_mutex_unlock (&lock);
  return rv;
}

void
vppaio_vpp_growth (size_t size)
{
  pthread_mutex_lock (&lock);
  wanted_room = size;
  take_room ();
  pthread_mutex_unlock (&lock);
}

int
vpp_spare_lend (int n)
{
  int lent;

  pthread_mutex_lock (&lock);
  for (lent = 0; lent < n && n_held; lent++)
    close (held[--n_held]);
  pthread_mutex_unlock (&lock);
  return lent;
}

void
vpp_spare_keep (int fd)
{
  pthread_mutex_lock (&lock);
  if (fd > 2 && n_held < MOST && always_readable >= 0 && dup3 (always_readable, fd, O_CLOEXEC) == fd)
    held[n_held++] = fd;
  else
    close (fd);
  wanted = n_held > wanted ? n_held : wanted;
  pthread_mutex_unlock (&lock);
}

void
vpp_spare_settle (void)
{
  pthread_mutex_lock (&lock);
  wanted = FEWEST;
  while (n_held > wanted)
    close (held[--n_held]);
  pthread_mutex_unlock (&lock);
  vpp_spare_refill ();
}

void
vpp_spare_leave (void)
{
  while (n_held) /* another thread of the parent may have the lock */
    close (held[--n_held]);
  if (always_readable >= 0)
    close (always_readable);
  always_readable = -1;
}

void *
vpp_spare_map (size_t size, int protection, int flags, int fd, off_t offset)
{
  void *place = MAP_FAILED;

  pthread_mutex_lock (&lock);
  if (room && room_size >= size)
    {
      place = mmap (room, size, protection, flags | MAP_FIXED, fd, offset);
      if (place != MAP_FAILED)
	{
	  size_t page = (size_t) sysconf (_SC_PAGESIZE), used = (size + page - 1) / page * page;
	  if (room_size > used)
	    munmap ((char *) room + used, room_size - used);
	  room = 0;
	  room_size = 0;
	}
    }
  pthread_mutex_unlock (&lock);
  return place;
}

int
vpp_always_readable (void)
{
  return always_readable;
}

int
vpp_missing_descriptors (int n)
{
  int fds[MOST], i = 0;

  while (i < n && i < MOST && (fds[i] = eventfd (0, EFD_CLOEXEC)) >= 0)
    i++;
  for (n = (n < MOST ? n : MOST) - i; i > 0;)
    close (fds[--i]);
  return n;
}

size_t
vpp_missing_bytes (size_t bytes)
{
  size_t fits = 0, step;
  void *trial = mmap (0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (trial != MAP_FAILED)
    {
      munmap (trial, bytes);
      return 0;
    }
  for (step = (size_t) 1 << 40; step >= 1 << 20; step /= 2)
    if (fits + step < bytes)
      {
	trial = mmap (0, fits + step, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (trial != MAP_FAILED)
	  {
	    munmap (trial, fits + step);
	    fits += step;
	  }
      }
  return bytes - fits;
}

int
vppaio_vpp_missing_descriptors (int n)
{
  return vpp_missing_descriptors (n);
}

size_t
vppaio_vpp_missing_bytes (size_t bytes)
{
  return vpp_missing_bytes (bytes);
}
