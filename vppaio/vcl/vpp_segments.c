/* SPDX-License-Identifier: Apache-2.0
 *
 * What VPP sends over an app socket: shared memory and eventfds, taken whole or not at all.
 *
 * VPP sends a segment's descriptor over the app socket, then speaks of it in the message queue. VCL, when it comes to that,
 * receives the descriptor, looks at the segment's size, and maps it; it goes on as if it had whatever it did not get, and
 * the first connection in that segment ends the process (vppcom.c: vcl_session_accepted_handler follows a NULL session to
 * refuse it; vcl_socket.c copies as many descriptors as it asked for, so that 0 stands for one that did not come, 26.06).
 *
 * So it is done here, before VCL: look at the message and its descriptors (MSG_PEEK: if not all descriptors came, all is
 * where it was), map the segments, and only then take the message. What was fetched waits until VCL asks for it.
 *
 * A mapping needs no descriptor. So VCL gets a number that stands for the segment and is no descriptor, finds the mapping
 * when it maps it, and closes the number when it deletes the segment. That is why segments cost no descriptors here.
 *
 * Everything is close-on-exec from birth.
 */
#define _GNU_SOURCE
#include "vpp_spare.h"

#include "libvppcom.h"
#include "vpp_asking.h"
#include "vpp_hooks.h"
#include "vpp_worker.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_NUMBER 0x40000000 /* no process has so many descriptors (fs.nr_open is 2^20) */
#define MOST_FDS 64		/* VCL asks for 32 at most */
#define MOST_MESSAGES 256	/* more than the kernel queues in one socket */
#define MOST_BYTES 1024		/* of an app_sapi_msg_t; about 300 in 26.06 */
#define TRIES 5000		/* of a millisecond each */

typedef struct
{
  int socket;
  size_t size;
  int n_fds, fds[MOST_FDS];
  uint8_t bytes[MOST_BYTES];
} message_t;

typedef struct
{
  int number, was_looked_at;
  void *address;
  size_t size;
  struct stat status;
} segment_t;

int vpp_last_shortage;
answer_t vpp_application_answer, vpp_worker_answer;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* workers in listen do without the GIL */
static message_t *messages[MOST_MESSAGES];
static segment_t segments[MOST_MESSAGES];
static int n_messages, n_segments, next_number = FIRST_NUMBER;

/* ---- fetching ---------------------------------------------------------------------------------------------------- */

/* Segments among the descriptors become mappings; 0, -ENOMEM. */
static int
map_segments (int *fds, int n, segment_t *found, int *n_found, int how)
{
  int i;

  for (i = 0; i < n; i++)
    {
      segment_t *segment = &found[*n_found];

      if (fstat (fds[i], &segment->status) || !S_ISREG (segment->status.st_mode))
	continue;
      segment->size = (size_t) segment->status.st_size;
      segment->was_looked_at = 0;
      segment->address = mmap (0, segment->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
      if (segment->address == MAP_FAILED && how & USE_ROOM)
	segment->address = vpp_spare_map (segment->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
      if (segment->address == MAP_FAILED)
	{
	  while (*n_found)
	    {
	      --*n_found;
	      munmap (found[*n_found].address, found[*n_found].size);
	    }
	  return -ENOMEM;
	}
      ++*n_found;
    }
  return 0;
}

/* The segments get numbers, and their descriptors are closed. */
static void
give_numbers (message_t *message, segment_t *found, int n_found)
{
  struct stat status;
  int i, at = 0;

  for (i = 0; i < message->n_fds && at < n_found; i++)
    if (fstat (message->fds[i], &status) == 0 && S_ISREG (status.st_mode))
      {
	close (message->fds[i]);
	found[at].number = message->fds[i] = next_number;
	next_number = next_number == INT32_MAX ? FIRST_NUMBER : next_number + 1;
	segments[n_segments++] = found[at++];
      }
}

static void
close_all (const int *fds, int n)
{
  while (n--)
    close (fds[n]);
}

/* Looks at the next message; its descriptors are ours if all came. */
static int
peek (int fd, message_t *message, int flags)
{
  union
  {
    struct cmsghdr header;
    char bytes[CMSG_SPACE (MOST_FDS * sizeof (int))];
  } control;
  struct iovec piece = { message->bytes, MOST_BYTES };
  struct msghdr header = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof (control) };
  struct cmsghdr *part;
  ssize_t size = recvmsg (fd, &header, flags | MSG_PEEK | MSG_CMSG_CLOEXEC);
  int i;

  if (size <= 0)
    return size ? -errno : -ECONNRESET;
  message->size = (size_t) size;
  message->n_fds = 0;
  for (part = CMSG_FIRSTHDR (&header); part; part = CMSG_NXTHDR (&header, part))
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
      {
	message->n_fds = (int) ((part->cmsg_len - CMSG_LEN (0)) / sizeof (int));
	memcpy (message->fds, CMSG_DATA (part), (size_t) message->n_fds * sizeof (int));
      }
  for (i = 0; i < message->n_fds; i++)
    message->fds[i] = vpp_above_standard (message->fds[i]);
  for (i = 0; i < message->n_fds && message->fds[i] >= 0; i++)
    ;
  if (header.msg_flags & MSG_CTRUNC || i < message->n_fds)
    {
      for (i = 0; i < message->n_fds; i++)
	if (message->fds[i] >= 0)
	  close (message->fds[i]);
      return -EMFILE;
    }
  return 0;
}

/* With the lock. */
static int
fetch (int fd, int how)
{
  segment_t found[MOST_FDS];
  message_t looked, *kept;
  int n_found = 0, i, rv;
  answer_t *answer;

  if (n_messages == MOST_MESSAGES || n_segments + MOST_FDS > MOST_MESSAGES)
    return -EAGAIN; /* VCL is to take some first */
  looked.socket = fd;
  rv = peek (fd, &looked, MSG_DONTWAIT);
  if (rv == -EMFILE && how & USE_DESCRIPTORS)
    {
      vpp_spare_lend (MOST_FDS);
      rv = peek (fd, &looked, MSG_DONTWAIT);
      if (rv)
	vpp_spare_refill ();
    }
  if (rv)
    return rv;
  rv = map_segments (looked.fds, looked.n_fds, found, &n_found, how);
  kept = rv ? 0 : malloc (sizeof (*kept));
  if (!kept)
    {
      while (n_found--)
	munmap (found[n_found].address, found[n_found].size);
      close_all (looked.fds, looked.n_fds);
      vpp_spare_refill ();
      return -ENOMEM;
    }
  recv (fd, looked.bytes, MOST_BYTES, MSG_DONTWAIT); /* what comes with it goes, as there is no place for it */
  give_numbers (&looked, found, n_found);
  if (looked.n_fds > 1) /* the answer to an attach; a new segment comes alone */
    {
      /* For the application VPP sends its own queue's, too. */
      answer = looked.n_fds >= vpp_application_answer.descriptors ? &vpp_application_answer : &vpp_worker_answer;
      *answer = (answer_t){ .descriptors = looked.n_fds, .segments = n_found };
      for (i = 0; i < n_found; i++)
	answer->bytes += found[i].size;
    }
  *kept = looked;
  messages[n_messages++] = kept;
  vpp_spare_refill ();
  return 0;
}

int
vpp_fetch (int fd, int how)
{
  struct pollfd wanted = { .fd = fd, .events = POLLIN };
  int rv, waited;

  do
    {
      pthread_mutex_lock (&lock);
      rv = fetch (fd, how);
      pthread_mutex_unlock (&lock);
    }
  while (rv == -EAGAIN && how & WAIT_FOR_MESSAGE && (waited = poll (&wanted, 1, VPP_ASK_LIMIT_S * 1000)) &&
	 (waited > 0 || errno == EINTR));
  vpp_last_shortage = rv == -EMFILE || rv == -ENOMEM ? rv : 0;
  return rv;
}

/* ---- VCL's side -------------------------------------------------------------------------------------------------- */

static message_t *
take_fetched (int fd)
{
  message_t *message = 0;
  int i;

  pthread_mutex_lock (&lock);
  for (i = 0; i < n_messages && messages[i]->socket != fd; i++)
    ;
  if (i < n_messages)
    {
      message = messages[i];
      n_messages--;
      memmove (messages + i, messages + i + 1, (size_t) (n_messages - i) * sizeof (*messages));
    }
  pthread_mutex_unlock (&lock);
  return message;
}

/* An attach may fail, and does it in order; whoever receives a segment goes on without (vppcom.c:
 * vcl_session_app_add_segment_handler, 26.06), and one that registers a worker goes on to listen. So wait for these: it
 * takes a second segment within the same look to come here without what it needs. */
static message_t *
take_message (int fd, int may_fail)
{
  struct timespec pause = { 0, 1000000 };
  message_t *message = take_fetched (fd);
  int rv = 0, tries;

  for (tries = 0; !message && tries < TRIES; tries++)
    {
      rv = vpp_fetch (fd, WAIT_FOR_MESSAGE | USE_DESCRIPTORS | USE_ROOM);
      if (!rv)
	message = take_fetched (fd);
      else if (may_fail || (rv != -EMFILE && rv != -ENOMEM))
	break;
      else
	nanosleep (&pause, 0);
    }
  errno = -rv;
  return message;
}

ssize_t
vpp_receive (int fd, struct msghdr *header, int flags)
{
  struct cmsghdr *part = CMSG_FIRSTHDR (header);
  size_t size, capacity;
  message_t *message;

  if (!part || header->msg_iovlen != 1 || !vpp_hooks_are_whole)
    return recvmsg (fd, header, flags | MSG_CMSG_CLOEXEC);
  capacity = (header->msg_controllen - CMSG_LEN (0)) / sizeof (int);
  message = take_message (fd, capacity > MOST_FDS / 4);
  if (!message)
    return errno == ECONNRESET ? 0 : -1;
  size = message->size < header->msg_iov->iov_len ? message->size : header->msg_iov->iov_len;
  memcpy (header->msg_iov->iov_base, message->bytes, size);
  /* VCL copies as many descriptors as it has room for: none of them is to be 0. */
  memset (CMSG_DATA (part), 0xff, capacity * sizeof (int));
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN ((size_t) message->n_fds * sizeof (int));
  memcpy (CMSG_DATA (part), message->fds, (size_t) message->n_fds * sizeof (int));
  header->msg_controllen = message->n_fds ? CMSG_SPACE ((size_t) message->n_fds * sizeof (int)) : 0;
  header->msg_flags = 0;
  free (message);
  return (ssize_t) size;
}

void
vpp_drop_fetched (int fd)
{
  message_t *message;
  int i;

  while ((message = take_fetched (fd)))
    {
      for (i = 0; i < message->n_fds; i++)
	if (vpp_is_segment_number (message->fds[i]))
	  vpp_segment_close (message->fds[i]);
	else
	  close (message->fds[i]);
      free (message);
    }
}

int
vpp_is_segment_number (int fd)
{
  return fd >= FIRST_NUMBER;
}

/* With the lock; NULL once VCL has mapped it. */
static segment_t *
segment_of (int number)
{
  int i;

  for (i = 0; i < n_segments; i++)
    if (segments[i].number == number)
      return &segments[i];
  return 0;
}

int
vpp_segment_status (int fd, void *status, size_t size)
{
  segment_t *segment;
  int rv = -1;

  pthread_mutex_lock (&lock);
  segment = segment_of (fd);
  if (segment && size == sizeof (segment->status))
    {
      memcpy (status, &segment->status, size);
      rv = 0;
    }
  pthread_mutex_unlock (&lock);
  errno = rv ? EBADF : errno;
  return rv;
}

/* VCL maps it twice (svm/ssvm.c: ssvm_client_init_memfd): the first page for a look at the size, then all. */
void *
vpp_segment_map (int fd, void *address, size_t size, int flags)
{
  size_t page = (size_t) sysconf (_SC_PAGESIZE), used = (size + page - 1) / page * page;
  void *mapped = MAP_FAILED;
  segment_t *segment;

  pthread_mutex_lock (&lock);
  segment = segment_of (fd);
  if (segment && used <= segment->size)
    {
      mapped = segment->address;
      if (!segment->was_looked_at)
	segment->was_looked_at = 1;
      else
	{
	  if (used < segment->size)
	    munmap ((char *) mapped + used, segment->size - used);
	  if (flags & MAP_FIXED)
	    mapped = mremap (mapped, used, used, MREMAP_MAYMOVE | MREMAP_FIXED, address);
	  *segment = segments[--n_segments];
	}
    }
  pthread_mutex_unlock (&lock);
  errno = mapped == MAP_FAILED ? EBADF : errno;
  return mapped;
}

int
vpp_segment_unmap (void *address, size_t size)
{
  int i, was_a_look = 0;

  pthread_mutex_lock (&lock);
  for (i = 0; i < n_segments; i++)
    was_a_look |= segments[i].was_looked_at && segments[i].address == address && size < segments[i].size;
  pthread_mutex_unlock (&lock);
  return was_a_look;
}

void
vpp_segment_close (int fd)
{
  segment_t *segment;

  pthread_mutex_lock (&lock);
  segment = segment_of (fd);
  if (segment)
    {
      munmap (segment->address, segment->size);
      *segment = segments[--n_segments];
    }
  pthread_mutex_unlock (&lock);
}
