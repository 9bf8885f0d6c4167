/* SPDX-License-Identifier: Apache-2.0
 *
 * What a VPP that died leaves open and mapped in this process, and who takes it away.
 *
 * VCL lets go of the segments its open connections lived in. It keeps a worker's first segment, with the message queue, if
 * no connection lived there (vcl_private.c: vcl_worker_detach_sessions, 26.06): at each restart of VPP one mapping of
 * `segment-size`, its descriptor and the queue's eventfd. Nothing asks for them again, and VCL has no call to let go of
 * them, so this is done behind its back, while all its workers are without a VPP:
 *
 * - Its sessions are DETACHED then, and VCL reads no FIFO of such a one. Listeners have none. Bound datagram sessions, in
 *   the state of listeners, have some: so not before the last of them is closed.
 * - Its queue pointers are NULL until it attaches again. What else remembers the old queue is reached by an event of the
 *   eventfd only, which is first taken out of the worker's epoll set.
 * - Its table of segments still has the old one under a number that VPP may give to a new one: that replaces the entry.
 *
 * Segments are told from other memory files by their name (segment_manager.c: segment_manager_add_segment_inline). A release
 * with other names keeps what it keeps.
 */
#define _GNU_SOURCE
#include "vpp_worker.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT "/memfd:seg-"
#define SOME 64 /* at a time */
#define FIRST_OF_VCLS_OWN 0xfffffffeu /* epoll data of its pipe and of the app socket; below are eventfds */

/* Whether `path` is what the kernel calls a segment: application, worker and a number of its own. */
static int
is_segment (const char *path)
{
  unsigned app, worker, number;
  int end = 0;

  return sscanf (path, SEGMENT "%u-%u-%u%n", &app, &worker, &number, &end) == 3 &&
	 (!path[end] || path[end] == '\n' || strncmp (path + end, " (deleted)", 10) == 0);
}

static const char *
target_of (const char *path, char *target, size_t size)
{
  ssize_t n = readlink (path, target, size - 1);

  target[n < 0 ? 0 : n] = 0;
  return target;
}

/* The eventfds in a worker's epoll set: each one of a queue that is gone. */
static void
drop_eventfds (int epfd)
{
  char path[64], line[256], target[64];
  unsigned long long data;
  unsigned int events;
  int fds[SOME], n = 0, fd;
  FILE *file;

  snprintf (path, sizeof (path), "/proc/self/fdinfo/%d", epfd);
  file = fopen (path, "re");
  while (file && n < SOME && fgets (line, sizeof (line), file))
    if (sscanf (line, "tfd: %d events: %x data: %llx", &fd, &events, &data) == 3 && (uint32_t) data < FIRST_OF_VCLS_OWN)
      fds[n++] = fd;
  if (file)
    fclose (file);
  while (n--)
    {
      snprintf (path, sizeof (path), "/proc/self/fd/%d", fds[n]);
      /* Out of the set first: a forked child that has it, too, keeps it there. */
      if (!strcmp (target_of (path, target, sizeof (target)), "anon_inode:[eventfd]") &&
	  epoll_ctl (epfd, EPOLL_CTL_DEL, fds[n], 0) == 0)
	close (fds[n]);
    }
}

/* 1 if there may be more. */
static int
drop_some_mappings (void)
{
  char line[512], *path;
  struct
  {
    unsigned long start, end;
  } found[SOME];
  int n = 0, full, failed = 0;
  FILE *file = fopen ("/proc/self/maps", "re");

  while (file && n < SOME && fgets (line, sizeof (line), file))
    if ((path = strchr (line, '/')) && is_segment (path) &&
	sscanf (line, "%lx-%lx", &found[n].start, &found[n].end) == 2)
      n++;
  if (file)
    fclose (file);
  full = n == SOME;
  while (n--)
    failed |= munmap ((void *) found[n].start, found[n].end - found[n].start);
  return full && !failed;
}

static int
drop_some_descriptors (void)
{
  char path[64], target[64];
  struct dirent *entry;
  int fds[SOME], n = 0, full;
  DIR *folder = opendir ("/proc/self/fd");

  while (folder && n < SOME && (entry = readdir (folder)))
    {
      snprintf (path, sizeof (path), "/proc/self/fd/%.16s", entry->d_name);
      if (is_segment (target_of (path, target, sizeof (target))))
	fds[n++] = atoi (entry->d_name);
    }
  if (folder)
    closedir (folder);
  full = n == SOME;
  while (n--)
    close (fds[n]);
  return full;
}

void
vpp_drop_remains (void)
{
  int i, in_use = 0;

  for (i = 0; i < MAX_WORKERS; i++)
    in_use |= vpp_workers[i].registered && (enter (i) || !vpp_detached (i) || vpp_workers[i].n_datagrams);
  for (i = 0; i < MAX_WORKERS && !in_use; i++)
    if (vpp_workers[i].registered && !enter (i))
      {
	drop_eventfds (vcl.worker_mqs_epfd ());
	vpp_workers[i].has_remains = 0;
      }
  if (!in_use)
    {
      while (drop_some_mappings ())
	;
      while (drop_some_descriptors ())
	;
    }
}
