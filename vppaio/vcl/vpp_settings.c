/* SPDX-License-Identifier: Apache-2.0
 *
 * VCL's settings: what it finds when it looks into the environment.
 *
 * VCL learns the name of its vcl.conf, and what is to override it, from VCL_... variables. The process's own environment is
 * not the place for our answers: getenv reads it without a lock, so changing it while another thread reads it, or starts a
 * program, is a crash; and Python keeps a copy (os.environ) that other threads iterate over. So Python hands over the
 * variables that VCL is to see, once, and VCL's getenv is ours (vpp_hooks.c). Other names are the process's.
 *
 * vppcom_app_create_with_config (26.02) takes a struct instead, whose layout is a release's own, and older ones lack it.
 */
#define _GNU_SOURCE
#include "libvppcom.h"
#include "vpp_hooks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char *settings; /* NAME=value, each with its zero, and one more zero */

int
vppaio_vpp_settings (const char *variables, size_t size)
{
  char *copy = malloc (size + 1);

  if (!copy)
    return -ENOMEM;
  memcpy (copy, variables, size);
  copy[size] = 0;
  settings = copy; /* VCL may keep pointers into the former ones */
  return 0;
}

char *
vpp_getenv (const char *name)
{
  size_t length = strlen (name);
  char *item;

  if (strncmp (name, "VCL_", 4))
    return getenv (name);
  for (item = settings; item && *item; item += strlen (item) + 1)
    if (!strncmp (item, name, length) && item[length] == '=')
      return item + length + 1;
  return 0;
}
