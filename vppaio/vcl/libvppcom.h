/* SPDX-License-Identifier: Apache-2.0
 *
 * What Python asks of libvppcom.c once per process; everything after that goes through the table.
 */
#ifndef VPPAIO_LIBVPPCOM_H
#define VPPAIO_LIBVPPCOM_H

#include "vcl_ops.h"

/* Loads `library` (a path or a soname). 0, or -ENOENT (cannot be loaded), -ENOSYS (a function is missing), -ENOTSUP
 * (release before 21.10); `message` then says which. Loading twice is harmless. */
int vppaio_vpp_open (const char *library, char *message, size_t size);
/* "26.06", from the soname; "" before open. */
const char *vppaio_vpp_release (void);
/* The file that was loaded; "" before open. */
const char *vppaio_vpp_library (void);

/* The VCL_... variables that VCL is to see, each as NAME=value with a zero behind. -ENOMEM. */
int vppaio_vpp_settings (const char *variables, size_t size);
/* vppcom_app_create: blocks until VPP has answered, 3 s at most. 0, -EALREADY (attach once per process), or what VCL said.
 * After a failure every operation is refused, because libvppcom crashes on calls then. The calling thread is
 * left without a worker; worker 0 is registered. */
int vppaio_vpp_attach (const char *app_name);
/* How many of `n` descriptors, or `bytes` of address space, cannot be had just now. */
int vppaio_vpp_missing_descriptors (int n);
size_t vppaio_vpp_missing_bytes (size_t bytes);
/* Keep so much address space in reserve for the next segment. */
void vppaio_vpp_growth (size_t size);
/* A function of libc's that libvppcom's libraries do not call in this release, so that some guards are off; "" if none. */
const char *vppaio_vpp_missing_hook (void);
/* Bytes of VCL's heap that no new session may take: room for the connections that one full event queue announces. */
void vppaio_vpp_heap_reserve (size_t size);
/* Events that VPP can have pending for one worker, if they are more than 65536. */
void vppaio_vpp_event_queue (int size);
/* Bytes of the largest free block in VCL's heap, to 4 KiB; 0 if this cannot be seen. Call on a thread that has used VCL. */
size_t vppaio_vpp_heap_room (void);
/* vppaio_vpp_attach has not come back and is not waited for any longer: every operation stays refused, and the process
 * leaves without VCL's exit handler, which crashes in this state. */
void vppaio_vpp_give_up (void);

/* Seconds since the last accept of any worker; time since boot if there was none. VPP 26.06 dies when an application
 * leaves before VPP has digested its last accept, so wait (0.4 s are enough) and poll meanwhile, then leave. */
double vppaio_vpp_since_accept (void);
/* Take the events of each worker that is not busy. Loops of other threads may still run on these
 * workers: call this with the GIL. */
void vppaio_vpp_poll_all (void);
/* Accepts no connection from now on. */
void vppaio_vpp_leave (void);
/* Refuses every operation from now on. VPP is told by VCL when the process exits. */
void vppaio_vpp_detach (void);
/* Let the process end as killed by signal `number`, after it has exited in order. */
void vppaio_vpp_end_by_signal (int number);
/* In a forked child: refuses every operation from now on, and lets the child exit without VCL's own exit handler, which
 * would delete the parent's worker. */
void vppaio_vpp_forked (void);

const vcl_ops *vppaio_vpp_ops (void);

#endif
