/* A libvppcom without a VPP: attach and workers, as STUB_CREATE says: a number to return, "hang" or "crash". The rest is
 * there to be found by dlsym. Compiled by tests/fakes/libvppcom.py under the names of several releases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread int worker = -1;
static int workers, in_app, max_workers = 128;

/* As in VCL: crashes on a thread without a worker. */
static void
at_exit (void)
{
  if (in_app && worker < 0)
    abort ();
  if (in_app)
    fprintf (stderr, "stub: worker %d deleted\n", worker);
}

int
vppcom_app_create (const char *name)
{
  const char *how = getenv ("STUB_CREATE"), *conf = getenv ("VCL_CONFIG");
  char line[256];
  FILE *file = conf ? fopen (conf, "r") : 0;

  fprintf (stderr, "stub: created %s scope_local=%d\n", name, getenv ("VCL_APP_SCOPE_LOCAL") != 0);
  while (file && fgets (line, sizeof (line), file))
    {
      fprintf (stderr, "conf: %s", line);
      sscanf (line, " max-workers %d", &max_workers);
    }
  if (file)
    fclose (file);
  in_app = 1;
  atexit (at_exit);
  if (how && !strcmp (how, "hang"))
    for (;;)
      pause ();
  if (how && !strcmp (how, "crash"))
    abort ();
  if (how && atoi (how))
    {
      in_app = 0;
      return atoi (how);
    }
  worker = workers++;
  return 0;
}

int
vppcom_worker_register (void)
{
  if (worker >= 0 || workers >= max_workers)
    return -17;
  worker = workers++;
  return 0;
}

void
vppcom_worker_unregister (void)
{
  worker = -1;
}

int
vppcom_worker_index (void)
{
  return worker;
}

void
vppcom_worker_index_set (int index)
{
  worker = index;
}

#define NOTHING(name)                                                                                                 \
  int name (void)                                                                                                     \
  {                                                                                                                   \
    return -95;                                                                                                       \
  }
#ifndef WITHOUT_MQS_EPFD
NOTHING (vppcom_worker_mqs_epfd)
#endif
NOTHING (vppcom_epoll_create)
NOTHING (vppcom_epoll_ctl)
NOTHING (vppcom_epoll_wait)
NOTHING (vppcom_session_create)
NOTHING (vppcom_session_bind)
NOTHING (vppcom_session_listen)
NOTHING (vppcom_session_accept)
NOTHING (vppcom_session_connect)
NOTHING (vppcom_session_read)
NOTHING (vppcom_session_write)
NOTHING (vppcom_session_recvfrom)
NOTHING (vppcom_session_sendto)
NOTHING (vppcom_session_shutdown)
NOTHING (vppcom_session_close)
NOTHING (vppcom_session_attr)
