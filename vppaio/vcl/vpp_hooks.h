/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of libc that VPP's libraries call and ours stand in for; vpp_hooks.c puts them there.
 */
#ifndef VPPAIO_VPP_HOOKS_H
#define VPPAIO_VPP_HOOKS_H

#include <sys/socket.h>
#include <sys/types.h>

/* To be called once, when the libraries are loaded and nothing of them has run. */
void vpp_set_hooks (void);

/* vpp_settings.c */
char *vpp_getenv (const char *name);
/* vpp_asking.c */
int vpp_socket (int domain, int type, int protocol);
int vpp_connect (int fd, const struct sockaddr *address, socklen_t size);
ssize_t vpp_sendmsg (int fd, const struct msghdr *message, int flags);
ssize_t vpp_recvmsg (int fd, struct msghdr *message, int flags);
/* vpp_remains.c */
int vpp_close (int fd);
/* vpp_loss.c */
unsigned vpp_sleep (unsigned seconds);
/* vpp_process.c */
int vpp_cxa_atexit (void (*handler) (void *), void *argument, void *library);

#endif
