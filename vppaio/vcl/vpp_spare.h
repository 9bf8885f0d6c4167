/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors and memory that libvppcom must not be without: what is kept in reserve (vpp_spare.c), the calls of its
 * libraries that ask the kernel for them (vpp_descriptors.c), the segments that VPP sends (vpp_segments.c), and what a worker does
 * while there is none for the next one (vpp_shortage.c).
 */
#ifndef VPPAIO_VPP_SPARE_H
#define VPPAIO_VPP_SPARE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

/* ---- the reserve ------------------------------------------------------------------------------------------------- */

/* Takes the reserve; -EMFILE. */
int vpp_spare_begin (void);
/* Takes again what was given out, if it can be had. 0, -EMFILE, -ENOMEM: the reserve is not whole. */
int vpp_spare_refill (void);
/* The same, and what is there is of use: a limit may have been lowered to less than is in use. */
int vpp_spare_check (void);
/* Make room for `n` descriptors; the caller opens them at once, then calls vpp_spare_refill. How many there is room for. */
int vpp_spare_lend (int n);
/* Closes a descriptor of VCL's; its number stays in the reserve while VPP is away, for the one that VCL opens next. */
void vpp_spare_keep (int fd);
/* Every worker has what it needs: lets go of what is more than the reserve. */
void vpp_spare_settle (void);
/* Lets go of everything, in a forked child. */
void vpp_spare_leave (void);
/* As mmap, out of the reserve if need be; MAP_FAILED. */
void *vpp_spare_map (size_t size, int protection, int flags, int fd, off_t offset);
/* How many of `n` descriptors, or `bytes` of address space, cannot be had just now, the reserve not counted. */
int vpp_missing_descriptors (int n);
size_t vpp_missing_bytes (size_t bytes);
/* An eventfd of the process that is always readable. */
int vpp_always_readable (void);
/* The same descriptor, or its copy if it was one of 0, 1 and 2, which VCL takes for none, or writes messages to. */
int vpp_above_standard (int fd);

/* ---- descriptors that VCL opens ---------------------------------------------------------------------------------- */

/* As socket, close-on-exec, out of the reserve if need be; the current worker's app socket from here on. */
int vpp_open_app_socket (int domain, int type, int protocol);
/* `fd` is the current worker's app socket. */
void vpp_note_app_socket (int fd);
/* Whether `fd` is one, and not a number that VCL has closed. */
int vpp_is_app_socket (int fd);

/* ---- segments ---------------------------------------------------------------------------------------------------- */

enum
{
  WAIT_FOR_MESSAGE = 1, /* else -EAGAIN if there is none */
  USE_DESCRIPTORS = 2, /* of the reserve, for a moment */
  USE_ROOM = 4,	      /* of the reserve, for good */
};

/* Takes the next message from app socket `fd`, and what comes with it: descriptors, and the segments' memory. Nothing is
 * taken unless all of it can be had. 0, or -errno; -EMFILE and -ENOMEM leave the message where it is. */
int vpp_fetch (int fd, int how);
/* What recvmsg would have given to VCL, out of what was fetched; it fetches if there is nothing. */
ssize_t vpp_receive (int fd, struct msghdr *header, int flags);
/* Forget what was fetched from there. */
void vpp_drop_fetched (int fd);
/* The number that stands for a segment in VCL's eyes, and what it does with it. */
int vpp_is_segment_number (int fd);
int vpp_segment_status (int fd, void *status, size_t size);
void *vpp_segment_map (int fd, void *address, size_t size, int flags);
/* 1 if that was VCL's look at a segment's first page. */
int vpp_segment_unmap (void *address, size_t size);
void vpp_segment_close (int fd);
/* -EMFILE, -ENOMEM: the last message could not be taken. */
extern int vpp_last_shortage;
/* What VPP's answer brought when the application was attached, and when a further worker was. */
typedef struct
{
  int descriptors, segments; /* these among the descriptors, which they need for a moment only */
  size_t bytes;
} answer_t;
extern answer_t vpp_application_answer, vpp_worker_answer;

/* ---- shortage ---------------------------------------------------------------------------------------------------- */

/* VCL asks its worker's epoll set: takes what VPP has sent over the app socket first. Number of events for VCL. */
int vpp_look_at_socket (int app_socket, struct epoll_event *events, int n);
/* The errno that keeps the worker from looking into its queue, or 0. */
int vpp_shortage (int index);
/* 0, -EMFILE, -ENOMEM: whether VPP may send a new segment now. */
int vpp_can_grow (int index);
/* The same for one more worker. */
int vpp_can_register (void);
/* Whether all that are without VPP can attach again. */
int vpp_can_attach (void);
/* Events of the worker's sessions, asked of themselves. */
void vpp_ask_sessions (int index);

#endif
