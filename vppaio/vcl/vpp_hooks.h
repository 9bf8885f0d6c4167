/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of libc that VPP's libraries call and ours stand in for; vpp_hooks.c puts them there.
 */
#ifndef VPPAIO_VPP_HOOKS_H
#define VPPAIO_VPP_HOOKS_H

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/* To be called once, when the libraries are loaded and nothing of them has run. */
void vpp_set_hooks (void);
/* Whether the libraries call all functions that have a stand-in. What depends on one another is left as it is if not. */
extern int vpp_hooks_are_whole;

/* vpp_settings.c */
char *vpp_getenv (const char *name);
/* vpp_asking.c */
int vpp_socket (int domain, int type, int protocol);
int vpp_connect (int fd, const struct sockaddr *address, socklen_t size);
ssize_t vpp_sendmsg (int fd, const struct msghdr *message, int flags);
ssize_t vpp_recvmsg (int fd, struct msghdr *message, int flags);
/* vpp_descriptors.c */
int vpp_close (int fd);
int vpp_epoll_create1 (int flags);
int vpp_epoll_ctl_of_vcl (int epfd, int op, int fd, struct epoll_event *event);
int vpp_epoll_wait_of_vcl (int epfd, struct epoll_event *events, int size, int timeout_ms);
int vpp_fstat (int fd, struct stat *status);
int vpp_fxstat (int version, int fd, struct stat *status);
void *vpp_mmap (void *address, size_t size, int protection, int flags, int fd, off_t offset);
int vpp_munmap (void *address, size_t size);
int vpp_pipe (int fds[2]);
/* vpp_loss.c */
unsigned vpp_sleep (unsigned seconds);
/* vpp_process.c */
int vpp_cxa_atexit (void (*handler) (void *), void *argument, void *library);

#endif
