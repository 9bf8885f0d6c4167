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

#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct
{
  const char *name;
  void *ours;
} hooks[] = {
  { "__cxa_atexit", vpp_cxa_atexit }, /* what atexit() becomes in a library */
  { "close", vpp_close },
  { "connect", vpp_connect },
  { "getenv", vpp_getenv },
  { "recvmsg", vpp_recvmsg },
  { "sendmsg", vpp_sendmsg },
  { "sleep", vpp_sleep },
  { "socket", vpp_socket },
};

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

static void *
our_function (const char *name)
{
  size_t i;

  for (i = 0; i < sizeof (hooks) / sizeof (hooks[0]); i++)
    if (!strcmp (name, hooks[i].name))
      return hooks[i].ours;
  return 0;
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
  size_t i;
  void *ours;

  for (i = 0; relocations && i < size / sizeof (*relocations); i++)
    {
      size_t symbol = sizeof (void *) == 8 ? relocations[i].r_info >> 32 : relocations[i].r_info >> 8;

      if (symbol && (ours = our_function (names + symbols[symbol].st_name)))
	point_at ((void **) (library->dlpi_addr + relocations[i].r_offset), ours);
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
  dl_iterate_phdr (hook_library, 0);
}
