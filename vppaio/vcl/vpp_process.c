/* SPDX-License-Identifier: Apache-2.0
 *
 * The process: attach once, fork, detach, exit.
 */
#define _GNU_SOURCE
#include "libvppcom.h"
#include "vpp_hooks.h"
#include "vpp_spare.h"
#include "vpp_worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int vpp_attached, vpp_forked, vpp_leaving, vpp_asking;
struct timespec vpp_last_accept;
static int tried, given_up, has_worker_0, last_signal;
static pid_t owner;
static void (*farewell) (void *unused);

/* VCL's atexit: what it wants to do at exit is done where at_exit allows it. */
int
vpp_cxa_atexit (void (*handler) (void *), void *argument, void *library)
{
  (void) argument, (void) library;
  farewell = handler;
  return 0;
}

/* VCL's handler is our farewell: it takes leave of the calling thread's worker, and crashes if it has none. It speaks through
 * the app socket, as VPP hears the end of the other workers. vppcom_app_destroy would say so a second time, through the
 * message queue. VPP acts on the socket at once and frees its handle, and on the queue up to 0.1 s later; an application that
 * has attached meanwhile, such as this service restarted, has got the same handle and is detached in our place: its listen
 * hangs (session_node.c: session_mq_detach_handler, 26.06).
 *
 * There is none while another thread asks VPP for something, for the handler would spin on its lock as long as VPP hangs; and
 * none to a VPP that died, for the number that VCL takes for its socket's may be another file's by now. */
static void
at_exit (int status, void *unused)
{
  int i, busy = given_up || __atomic_load_n (&vpp_asking, __ATOMIC_SEQ_CST);

  (void) unused;
  for (i = 0; i < MAX_WORKERS; i++)
    busy |= vpp_workers[i].registered && vpp_workers[i].busy; /* another thread is inside listen */
  vpp_attached = 0;
  if (!has_worker_0 && !busy)
    return; /* VPP refused */
  if (last_signal && !vpp_forked)
    {
      fflush (NULL);
      signal (last_signal, SIG_DFL);
      raise (last_signal);
    }
  if (vpp_forked || busy || getpid () != owner)
    {
      fflush (NULL);
      _exit (status);
    }
  vcl.worker_index_set (0);
  if (farewell && !vpp_hung_up ())
    farewell (0);
}

void
vppaio_vpp_end_by_signal (int number)
{
  last_signal = number;
}

/* Attaching again, on a loop, and asking, on other threads, exclude each other. The first of the two to say so goes on. */
static int attaching_again;

int
vpp_begin_asking (void)
{
  __atomic_add_fetch (&vpp_asking, 1, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n (&attaching_again, __ATOMIC_SEQ_CST))
    return 1;
  vpp_end_asking ();
  return 0;
}

void
vpp_end_asking (void)
{
  __atomic_sub_fetch (&vpp_asking, 1, __ATOMIC_SEQ_CST);
}

int
vpp_begin_attaching_again (void)
{
  __atomic_store_n (&attaching_again, 1, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n (&vpp_asking, __ATOMIC_SEQ_CST))
    return 1;
  vpp_end_attaching_again ();
  return 0;
}

void
vpp_end_attaching_again (void)
{
  __atomic_store_n (&attaching_again, 0, __ATOMIC_SEQ_CST);
}

int
vppaio_vpp_attach (const char *app_name)
{
  int rv;

  if (!vpp_library_is_open ())
    return -ENOENT;
  if (tried)
    return vpp_attached ? -EALREADY : -ENOTRECOVERABLE;
  if (vpp_hooks_are_whole && (rv = vpp_spare_begin ()))
    return rv;
  tried = 1;
  owner = getpid ();
  on_exit (at_exit, 0);
  vpp_begin_asking ();
  rv = vcl.app_create (app_name);
  if (given_up)
    return -ETIMEDOUT;
  if (rv >= 0)
    {
      vpp_workers[0].registered = 1;
      vpp_attached = has_worker_0 = 1;
      vpp_keep_from_children ();
      vcl.worker_index_set (-1);
      vpp_spare_settle ();
      rv = 0;
    }
  else if (vpp_last_shortage)
    rv = vpp_last_shortage;
  vpp_end_asking ();
  return rv;
}

void
vppaio_vpp_give_up (void)
{
  given_up = 1;
}

double
vppaio_vpp_since_accept (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &now);
  return (double) (now.tv_sec - vpp_last_accept.tv_sec) + 1e-9 * (double) (now.tv_nsec - vpp_last_accept.tv_nsec);
}

void
vppaio_vpp_poll_all (void)
{
  int i;

  for (i = 0; i < MAX_WORKERS; i++)
    if (vpp_workers[i].has_vep && !enter (i) && !vpp_detached (i))
      vpp_take_events (i);
}

void
vppaio_vpp_leave (void)
{
  vpp_leaving = 1;
}

void
vppaio_vpp_detach (void)
{
  vpp_attached = 0;
}

void
vppaio_vpp_forked (void)
{
  if (!vpp_attached || vpp_forked)
    return;
  vpp_spare_leave ();
  vpp_leave_to_parent ();
  vpp_forked = 1;
  vpp_attached = 0;
}
