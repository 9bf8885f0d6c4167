"""Negative return values become OSError here, and nowhere else.

The data path does not come by: it returns WOULD_BLOCK. `check` is for the calls made once per connection or loop.
`Unusable` is what attach and doctor share: why this machine's VPP cannot be used, and what to do about it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

# Causes that the user can cure. What only VPP's side says is kept apart: on the host stack it means something else.
_CURES: Final = {
    errno.EADDRNOTAVAIL: "this stack has no interface with that address",
    errno.EMFILE: "too many files are open in this process, raise RLIMIT_NOFILE (`ulimit -n`)",
    errno.EOWNERDEAD: "forked from a process attached to VPP; use spawn, or fork before the first loop",
    errno.EBUSY: "this loop's thread is inside listen",
}
_VPP_CURES: Final = {
    errno.EADDRNOTAVAIL: "VPP has no interface with that address, see `vppctl show interface address`",
    errno.ENETDOWN: "VPP is gone; restart it, or the program if VPP runs",
    errno.ENOMEM: (
        "libvppcom's heap is nearly used up, raise heap_size (heapsize in a vcl.conf of yours); or there is no address "
        "space for one more segment of segment_size, raise RLIMIT_AS (`ulimit -v`)"
    ),
    errno.ENOBUFS: "VPP is out of FIFO memory or workers, see segment_size and max-workers",
    errno.ENOTCONN: "not connected, or not attached to VPP",
    errno.ETIMEDOUT: "VPP hangs, it gave no answer within 3 s; see what it does (`vppctl show runtime`), or restart it",
}
_VPP_CURES_OF_CALLS: Final = {
    ("sendto", errno.EADDRNOTAVAIL): (
        "VPP would send from the wildcard address that it is bound to, and nothing would arrive; bind it to an address "
        "of VPP's, or send after a datagram was received"
    ),
    ("sendto", errno.EOPNOTSUPP): "VPP sends no empty datagrams",
    ("sendto", errno.ENETUNREACH): "bound to an IPv6 address, it reaches no IPv4 on VPP; bind it to ::ffff:ADDRESS",
}
# VPP's SYN timeout is far above, its answers (no route, ICMP unreachable) far below.
_SILENCE_S: Final = 30.0


def check(rc: int, call: str, detail: str = "", *, stack: str = "") -> int:
    """Return `rc`, or raise the OSError that a negative one stands for.

    Args:
        call: what was asked for, such as "listen".
        detail: on what, such as an address.
        stack: name in the table of operations; "vpp" says more about causes.
    """
    if rc >= 0:
        return rc
    raise os_error(rc, call, detail, stack=stack)


def os_error(rc: int, call: str, detail: str = "", *, stack: str = "") -> OSError:
    """The OSError that the negative `rc` stands for; arguments as for `check`."""
    code = -rc
    on_vpp = stack == "vpp" and (_VPP_CURES_OF_CALLS.get((call, code)) or _VPP_CURES.get(code))
    cure = on_vpp or _CURES.get(code)
    text = f"{os.strerror(code)} ({call} {detail}".rstrip() + ")"
    return OSError(code, f"{text}: {cure}" if cure else text)  # OSError itself picks ConnectionResetError and friends


def connect_error(code: int, elapsed_s: float, address: object) -> OSError:
    """What a failed connect is to be raised as.

    VCL knows in-use and refused and calls the rest EFAULT (vppcom.c: vppcom_session_get_error, 26.06). How long it took
    tells silence from an answer.

    Args:
        code: positive errno.
        elapsed_s: seconds since the connect was sent.
    """
    if code in (errno.EMFILE, errno.ENOMEM):
        return OSError(code, f"Connect call failed {address}: {_VPP_CURES.get(code) or _CURES[code]}")
    if code != errno.EFAULT:
        return OSError(code, f"Connect call failed {address}")  # asyncio's words
    if elapsed_s >= _SILENCE_S:
        return OSError(errno.ETIMEDOUT, f"Connect call failed {address}: no answer for {elapsed_s:.0f} s")
    return OSError(
        errno.EHOSTUNREACH,
        f"Connect call failed {address}: no route, unreachable, out of ports or FIFO memory (segment_size), or the "
        "server's event queue is full (its event_queue_size); VPP gives no reason",
    )


class Unusable(Exception):
    """VPP cannot be used, for a known reason.

    Args:
        name: the reason as one word, for programs.
        code: errno.
        cause: what is wrong, naming the thing.
        cure: what to do about it.
    """

    def __init__(self, name: str, code: int, cause: str, cure: str) -> None:
        super().__init__(name, code, cause, cure)
        self.name, self.code, self.cause, self.cure = name, code, cause, cure

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}"

    def as_error(self) -> OSError | ValueError:
        """The exception for users: ValueError for a file they wrote, else the OSError of its errno."""
        return ValueError(str(self)) if self.code == errno.EINVAL else OSError(self.code, str(self))
