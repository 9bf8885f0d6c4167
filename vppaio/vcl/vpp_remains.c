/* SPDX-License-Identifier: Apache-2.0
 *
 * What a VPP that died leaves open and mapped in this process, and who takes it away.
 *
 * VCL lets go of the segments its open connections lived in. It keeps a worker's first segment, with the message queue, if
 * no connection lived there (vcl_private.c: vcl_worker_detach_sessions, 26.06): at each restart of VPP one mapping of
 * `segment-size`, its descriptor and the queue's eventfd. Nothing asks for them again, and VCL has no call to let go of
 * them, so this is done behind its back, while all its workers are without a VPP:
 *
 * - Its sessions are DETACHED then, and VCL reads no FIFO of such a one. Listeners, and bound datagram sessions, which are in
 *   their state, were closed when the loss was noticed (vpp_slots.c).
 * - Its queue pointers are NULL until it attaches again. What else remembers the old queue is reached by an event of the
 *   eventfd only, which is first taken out of the worker's epoll set.
 * - Its table of segments still has the old one under a number that VPP may give to a new one: that replaces the entry.
 *
 * And no child may have the app socket: VCL closes it when VPP dies, and counts on the kernel to take it out of the worker's
 * epoll set then, which happens with the last descriptor for it. With a child that has one, VPP would be lost again as soon
 * as it is back, and so on.
 *
 * The segments of closed listeners go at the same time. Not earlier: VPP does not say that it has freed them (session:
 * application_worker.c, app_worker_stop_listen_session marks their manager as detached first, and what is detached is not
 * told), and neither their content nor their descriptors tell them from those of listeners that are open.
 *
 * Segments are told from other memory files by their name (segment_manager.c: segment_manager_add_segment_inline). A release
 * with other names keeps what it keeps.
 */
#define _GNU_SOURCE
#include "vpp_spare.h"
#include "vpp_worker.h"

#include <dirent.h>
#include <fcntl.h>
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

/* `act` on every descriptor in a worker's epoll set. */
static void
for_each_watched (int epfd, void (*act) (int epfd, int fd, int is_vcls_own))
{
  char path[64], line[256];
  unsigned long long data;
  unsigned long inode;
  unsigned int events;
  struct
  {
    int fd, is_vcls_own;
  } found[SOME];
  struct stat status;
  int n = 0;
  FILE *file;

  snprintf (path, sizeof (path), "/proc/self/fdinfo/%d", epfd);
  file = fopen (path, "re");
  while (file && n < SOME && fgets (line, sizeof (line), file))
    if (sscanf (line, "tfd: %d events: %x data: %llx pos:%*d ino:%lx", &found[n].fd, &events, &data, &inode) == 4 &&
	fstat (found[n].fd, &status) == 0 && status.st_ino == inode) /* else the number is another's by now */
      found[n++].is_vcls_own = (uint32_t) data >= FIRST_OF_VCLS_OWN;
  if (file)
    fclose (file);
  while (n--)
    act (epfd, found[n].fd, found[n].is_vcls_own);
}

/* Out of the set first: a forked child that has it, too, would keep it there. */
static void
drop_eventfd (int epfd, int fd, int is_vcls_own)
{
  if (!is_vcls_own && epoll_ctl (epfd, EPOLL_CTL_DEL, fd, 0) == 0)
    vpp_spare_keep (fd);
}

static void
close_on_exec (int epfd, int fd, int is_vcls_own)
{
  (void) epfd, (void) is_vcls_own;
  fcntl (fd, F_SETFD, FD_CLOEXEC);
}

static void
close_here (int epfd, int fd, int is_vcls_own)
{
  (void) epfd, (void) is_vcls_own;
  close (fd);
}

void
vpp_keep_from_children (void)
{
  int epfd = vcl.worker_mqs_epfd ();

  close_on_exec (epfd, epfd, 1);
  for_each_watched (epfd, close_on_exec);
}

void
vpp_leave_to_parent (void)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered)
      {
	vcl.worker_index_set (i);
	for_each_watched (vcl.worker_mqs_epfd (), close_here);
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
    in_use |= vpp_workers[i].registered && (enter (i) || !vpp_detached (i));
  vpp_spare_lend (1); /* for the files of /proc */
  for (i = 0; i < MAX_WORKERS && !in_use; i++)
    if (vpp_workers[i].registered && !enter (i))
      {
	for_each_watched (vcl.worker_mqs_epfd (), drop_eventfd);
	vpp_workers[i].has_remains = 0;
      }
  if (!in_use)
    {
      while (drop_some_mappings ())
	;
      while (drop_some_descriptors ())
	;
    }
  vpp_spare_refill ();
}
