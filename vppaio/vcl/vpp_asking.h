/* SPDX-License-Identifier: Apache-2.0
 *
 * How VPP is asked over the app socket; see vpp_asking.c.
 */
#ifndef VPPAIO_VPP_ASKING_H
#define VPPAIO_VPP_ASKING_H

#define VPP_ASK_LIMIT_S 3 /* a VPP that is well answers within 0.1 s; and SIGTERM is to end a process within 5 s */

/* The calling thread asks on a loop, which cannot wait; or it takes leave of a VPP that does not know it. */
void vpp_ask_on_loop (int on);
void vpp_ask_quietly (int on);
/* 0: a question on its way has no answer yet, so VCL is not to ask again. */
int vpp_is_answered (void);

#endif
