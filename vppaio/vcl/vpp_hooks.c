/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of ours in the place of libc's, for VPP's libraries and for nobody else in the process.
 *
 * VCL asks the environment, the kernel and VPP by libc's functions, in ways that a Python process does not bear: it reads
 * variables while other threads change them, waits for VPP without a limit, sleeps a second on the loop's thread, takes
 * whatever descriptor it gets. Each such function has a stand-in, in the file whose subject it is (vpp_hooks.h names them).
 *
 * A library reaches a function of another through a word of its own memory that the dynamic linker has filled in (a
 * relocation of the kind JUMP_SLOT or GLOB_DAT, named by the function's symbol). vpp_set_hooks writes our function's address
 * there. Putting our functions first in the order of search, as vpp_queue.c does for one of libsvm's, would not do: libc
 * comes before us in that order, and everybody else in the process would get them, too. A library that does not call a
 * function has no such word, and nothing happens.
 */
#define _GNU_SOURCE
#include "vpp_hooks.h"

#include "libvppcom.h"

#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct
{
  const char *name;
  void *ours;
  const char *or_name; /* of an older libc's, which stands for this one */
} hooks[] = {
  { "__cxa_atexit", vpp_cxa_atexit, 0 }, /* what atexit() becomes in a library */
  { "close", vpp_close, 0 },
  { "connect", vpp_connect, 0 },
  { "epoll_create1", vpp_epoll_create1, 0 },
  { "epoll_ctl", vpp_epoll_ctl_of_vcl, 0 },
  { "epoll_wait", vpp_epoll_wait_of_vcl, 0 },
  { "fstat", vpp_fstat, "__fxstat" },
  { "__fxstat", vpp_fxstat, "fstat" }, /* glibc's before 2.33 */
  { "getenv", vpp_getenv, 0 },
  { "mmap", vpp_mmap, 0 },
  { "munmap", vpp_munmap, 0 },
  { "pipe", vpp_pipe, 0 },
  { "recvmsg", vpp_recvmsg, 0 },
  { "sendmsg", vpp_sendmsg, 0 },
  { "sleep", vpp_sleep, 0 },
  { "socket", vpp_socket, 0 },
};
#define N_HOOKS (sizeof (hooks) / sizeof (hooks[0]))

int vpp_hooks_are_whole;
static int is_set[N_HOOKS];
static const char *missing = "";

/* libvlibmemoryclient is VPP's binary API, which vppaio does not use, but VCL needs it. */
static const char *const libraries[] = { "libvppcom.so", "libvppinfra.so", "libsvm.so", "libvlibmemoryclient.so" };

static int
is_vpps (const char *path)
{
  const char *slash = strrchr (path, '/'), *name = slash ? slash + 1 : path;
  size_t i;

  for (i = 0; i < sizeof (libraries) / sizeof (libraries[0]); i++)
    if (!strncmp (name, libraries[i], strlen (libraries[i])))
      return 1;
  return 0;
}

/* N_HOOKS if there is none. */
static size_t
hook_of (const char *name)
{
  size_t i;

  for (i = 0; i < N_HOOKS && strcmp (name, hooks[i].name); i++)
    ;
  return i;
}

/* The word may lie where the dynamic linker has taken away the right to write (RELRO). The page gets that right, and keeps
 * it: which pages had it is not to be seen from here for sure. */
static void
point_at (void **word, void *function)
{
  uintptr_t page = (uintptr_t) word & ~((uintptr_t) sysconf (_SC_PAGESIZE) - 1);

  if (!mprotect ((void *) page, (uintptr_t) (word + 1) - page, PROT_READ | PROT_WRITE))
    __atomic_store_n (word, function, __ATOMIC_RELEASE);
}

/* glibc keeps addresses in this table, musl offsets. */
static void *
address_in (const struct dl_phdr_info *library, const ElfW (Dyn) * entry)
{
  ElfW (Addr) value = entry->d_un.d_ptr;

  return (void *) (value < library->dlpi_addr ? library->dlpi_addr + value : value);
}

static void
hook_relocations (const struct dl_phdr_info *library, const ElfW (Rela) * relocations, size_t size,
		  const ElfW (Sym) * symbols, const char *names)
{
  size_t i, hook;

  for (i = 0; relocations && i < size / sizeof (*relocations); i++)
    {
      size_t symbol = sizeof (void *) == 8 ? relocations[i].r_info >> 32 : relocations[i].r_info >> 8;

      if (symbol && (hook = hook_of (names + symbols[symbol].st_name)) < N_HOOKS)
	{
	  point_at ((void **) (library->dlpi_addr + relocations[i].r_offset), hooks[hook].ours);
	  is_set[hook] = 1;
	}
    }
}

static int
hook_library (struct dl_phdr_info *library, size_t size, void *unused)
{
  const ElfW (Dyn) *entry = 0;
  const ElfW (Rela) *calls = 0, *data = 0;
  const ElfW (Sym) *symbols = 0;
  const char *names = 0;
  size_t calls_size = 0, data_size = 0;
  int i;

  (void) size, (void) unused;
  if (!is_vpps (library->dlpi_name))
    return 0;
  for (i = 0; i < library->dlpi_phnum; i++)
    if (library->dlpi_phdr[i].p_type == PT_DYNAMIC)
      entry = (const ElfW (Dyn) *) (library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
  for (; entry && entry->d_tag != DT_NULL; entry++)
    if (entry->d_tag == DT_JMPREL)
      calls = address_in (library, entry);
    else if (entry->d_tag == DT_PLTRELSZ)
      calls_size = entry->d_un.d_val;
    else if (entry->d_tag == DT_RELA)
      data = address_in (library, entry);
    else if (entry->d_tag == DT_RELASZ)
      data_size = entry->d_un.d_val;
    else if (entry->d_tag == DT_SYMTAB)
      symbols = address_in (library, entry);
    else if (entry->d_tag == DT_STRTAB)
      names = address_in (library, entry);
  if (symbols && names)
    {
      hook_relocations (library, calls, calls_size, symbols, names);
      hook_relocations (library, data, data_size, symbols, names);
    }
  return 0;
}

void
vpp_set_hooks (void)
{
  size_t i;

  dl_iterate_phdr (hook_library, 0);
  for (i = 0; i < N_HOOKS; i++)
    if (!is_set[i] && !(hooks[i].or_name && is_set[hook_of (hooks[i].or_name)]))
      missing = hooks[i].name;
  vpp_hooks_are_whole = !*missing;
}

const char *
vppaio_vpp_missing_hook (void)
{
  return missing;
}
