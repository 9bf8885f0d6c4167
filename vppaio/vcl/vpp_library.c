/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads libvppcom and finds its functions.
 */
#define _GNU_SOURCE
#include "vpp_library.h"

#include "libvppcom.h"
#include "vpp_hooks.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vcl_functions vcl;

static const struct
{
  const char *name;
  void *slot;
  int optional;
} symbols[] = {
  { "vppcom_app_create", &vcl.app_create, 0 },
  { "vppcom_worker_register", &vcl.worker_register, 0 },
  { "vppcom_worker_unregister", &vcl.worker_unregister, 0 },
  { "vppcom_worker_index", &vcl.worker_index, 0 },
  { "vppcom_worker_index_set", &vcl.worker_index_set, 0 },
  { "vppcom_worker_mqs_epfd", &vcl.worker_mqs_epfd, 0 },
  { "vppcom_worker_is_detached", &vcl.worker_is_detached, 1 },
  { "vppcom_epoll_create", &vcl.epoll_create, 0 },
  { "vppcom_epoll_ctl", &vcl.epoll_ctl, 0 },
  { "vppcom_epoll_wait", &vcl.epoll_wait, 0 },
  { "vppcom_session_create", &vcl.session_create, 0 },
  { "vppcom_session_bind", &vcl.session_bind, 0 },
  { "vppcom_session_listen", &vcl.session_listen, 0 },
  { "vppcom_session_accept", &vcl.session_accept, 0 },
  { "vppcom_session_connect", &vcl.session_connect, 0 },
  { "vppcom_session_get_error", &vcl.session_get_error, 1 },
  { "vppcom_session_read", &vcl.session_read, 0 },
  { "vppcom_session_write", &vcl.session_write, 0 },
  { "vppcom_session_recvfrom", &vcl.session_recvfrom, 0 },
  { "vppcom_session_sendto", &vcl.session_sendto, 0 },
  { "vppcom_session_shutdown", &vcl.session_shutdown, 0 },
  { "vppcom_session_close", &vcl.session_close, 0 },
  { "vppcom_session_terminate", &vcl.session_terminate, 1 },
  { "vppcom_session_attr", &vcl.session_attr, 0 },
  { "clib_mem_alloc_or_null", &vcl.heap_alloc_or_null, 1 },
  { "clib_mem_free", &vcl.heap_free, 1 },
  { "svm_msg_q_sub", &vcl.queue_sub, 1 },
  { "svm_msg_q_free_msg", &vcl.queue_free_message, 1 },
};

static char release[32], library_path[PATH_MAX];
static void *library;

static int
refuse (int code, char *message, size_t size, const char *format, const char *argument)
{
  snprintf (message, size, format, argument);
  return code;
}

/* Let the libraries find vpp_queue.c's functions instead of their own. */
static void
come_first (void)
{
  Dl_info own;

  if (dladdr (&library, &own))
    dlopen (own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

int
vppaio_vpp_open (const char *name, char *message, size_t size)
{
  unsigned year = 0, month = 0;
  Dl_info info;
  const char *dot;
  size_t i;

  if (library)
    return 0;
  come_first ();
  /* RTLD_NODELETE: its exit handler stays registered, so its code must stay mapped. */
  void *handle = dlopen (name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle)
    return refuse (-ENOENT, message, size, "%s", dlerror ());
  for (i = 0; i < sizeof (symbols) / sizeof (symbols[0]); i++)
    {
      void *address = dlsym (handle, symbols[i].name);
      if (!address && !symbols[i].optional)
	return refuse (-ENOSYS, message, size, "libvppcom has no %s: releases from 21.10 on do", symbols[i].name);
      *(void **) symbols[i].slot = address;
    }
  if (!dladdr ((void *) vcl.app_create, &info) || !realpath (info.dli_fname, library_path))
    snprintf (library_path, sizeof (library_path), "%s", name);
  dot = strstr (library_path, ".so.");
  snprintf (release, sizeof (release), "%s", dot ? dot + 4 : "");
  if (sscanf (release, "%u.%u", &year, &month) == 2 && year * 100 + month < 2110)
    return refuse (-ENOTSUP, message, size, "libvppcom %s is older than 21.10", release);
  vpp_set_hooks ();
  library = handle;
  return 0;
}

const char *
vppaio_vpp_release (void)
{
  return release;
}

const char *
vppaio_vpp_library (void)
{
  return library_path;
}

int
vpp_library_is_open (void)
{
  return library != 0;
}
