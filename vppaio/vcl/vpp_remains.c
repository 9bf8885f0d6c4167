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
#define FIRST_OF_VCLS_OWN 0xfffffffeu /* epoll data of its pipe and of the app socket; below are eventfds */

static int
link_is (const char *path, const char *start)
{
  char target[64];
  ssize_t n = readlink (path, target, sizeof (target) - 1);

  if (n < 0)
    return 0;
  target[n] = 0;
  return strncmp (target, start, strlen (start)) == 0;
}

/* The eventfds in a worker's epoll set: each one of a queue that is gone. */
static void
drop_eventfds (int epfd)
{
  char path[64], line[256];
  unsigned long long data;
  unsigned int events;
  int fds[16], n = 0, fd;
  FILE *file;

  snprintf (path, sizeof (path), "/proc/self/fdinfo/%d", epfd);
  file = fopen (path, "re");
  while (file && n < 16 && fgets (line, sizeof (line), file))
    if (sscanf (line, "tfd: %d events: %x data: %llx", &fd, &events, &data) == 3 && (uint32_t) data < FIRST_OF_VCLS_OWN)
      fds[n++] = fd;
  if (file)
    fclose (file);
  while (n--)
    {
      snprintf (path, sizeof (path), "/proc/self/fd/%d", fds[n]);
      /* Out of the set first: a forked child that has it, too, keeps it there. */
      if (link_is (path, "anon_inode:[eventfd]") && epoll_ctl (epfd, EPOLL_CTL_DEL, fds[n], 0) == 0)
	close (fds[n]);
    }
}

static void
drop_mappings (void)
{
  char line[512];
  unsigned long start, end;
  struct
  {
    unsigned long start, end;
  } found[256];
  int n = 0;
  FILE *file = fopen ("/proc/self/maps", "re");

  while (file && n < 256 && fgets (line, sizeof (line), file))
    if (strstr (line, " " SEGMENT) && sscanf (line, "%lx-%lx", &start, &end) == 2)
      {
	found[n].start = start;
	found[n++].end = end;
      }
  if (file)
    fclose (file);
  while (n--)
    munmap ((void *) found[n].start, found[n].end - found[n].start);
}

static void
drop_descriptors (void)
{
  char path[64];
  struct dirent *entry;
  int fds[256], n = 0;
  DIR *folder = opendir ("/proc/self/fd");

  while (folder && n < 256 && (entry = readdir (folder)))
    {
      snprintf (path, sizeof (path), "/proc/self/fd/%.16s", entry->d_name);
      if (link_is (path, SEGMENT))
	fds[n++] = atoi (entry->d_name);
    }
  if (folder)
    closedir (folder);
  while (n--)
    close (fds[n]);
}

void
vpp_drop_remains (void)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered && (enter (i) || !vpp_detached (i) || vpp_workers[i].n_datagrams))
      return;
  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].registered && !enter (i))
      {
	drop_eventfds (vcl.worker_mqs_epfd ());
	vpp_workers[i].has_remains = 0;
      }
  drop_mappings ();
  drop_descriptors ();
}
