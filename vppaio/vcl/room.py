"""Whether this process may have what VPP needs of it: descriptors, and address space.

libvppcom does not survive to go without, and allows one attach per process (application.py). So it is counted before,
and an attach that would fail costs nothing: raise the limit and try again.
"""

from __future__ import annotations

import errno
import resource
from dataclasses import dataclass
from typing import Final

from vppaio.config import Config
from vppaio.vcl._vcl import lib
from vppaio.vcl.errors import Unusable
from vppaio.vcl.vclconf import VclConf

_MIB: Final = 1 << 20
# At a time: vcl.conf, an epoll set, the app socket, two segments, our eventfd and one for each thread of VPP, one that
# is always readable, two in reserve. With more threads than one VPP's answer may bring more than that, and is refused.
_DESCRIPTORS: Final = 10
# VPP's queues (11 MiB with its defaults), libvppcom, the thread that attaches.
_AROUND: Final = 64 * _MIB
_SEGMENT_OVERHEAD: Final = _MIB  # VPP adds some KiB to what was asked for (segment_manager.c, 26.06)


@dataclass(frozen=True)
class Sizes:
    """What is to be mapped: VCL's heap, the first segment, and each later one."""

    heap: int
    first_segment: int
    later_segment: int

    @property
    def growth(self) -> int:
        """Address space to keep for the next segment."""
        return self.later_segment + _SEGMENT_OVERHEAD


def sizes_of(config: Config, named: VclConf | None) -> Sizes:
    """What the settings say, or the vcl.conf that they name."""
    if named:
        return Sizes(named.heap_size, named.segment_size, named.add_segment_size)
    return Sizes(config.heap_size, config.segment_size, config.segment_size)


def require(sizes: Sizes) -> None:
    """See that an attach has room.

    Raises:
        Unusable: EMFILE, ENOMEM; says how much is missing.
    """
    if missing := lib.vppaio_vpp_missing_descriptors(_DESCRIPTORS):
        raise no_descriptors(f"{missing} of {_DESCRIPTORS} descriptors")
    wanted = sizes.heap + sizes.first_segment + sizes.growth + _AROUND
    if missing := lib.vppaio_vpp_missing_bytes(wanted):
        raise _no_memory(missing, wanted, sizes)


def keep(sizes: Sizes) -> None:
    """Attached: keep address space for the next segment in reserve."""
    lib.vppaio_vpp_growth(sizes.growth)


def refused(code: int, sizes: Sizes) -> Unusable | None:
    """What stands behind errno `code` of an attach that began, if it was a matter of room."""
    if code == errno.EMFILE:
        return no_descriptors(
            "some of the descriptors that VPP's answer brings, one for each of its threads and three more,"
        )
    if code == errno.ENOMEM:
        wanted = sizes.first_segment + sizes.growth + _AROUND
        return _no_memory(lib.vppaio_vpp_missing_bytes(wanted), wanted, sizes)
    return None


def no_descriptors(what: str) -> Unusable:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Unusable(
        "no-descriptors",
        errno.EMFILE,
        f"too many open files: {what} that attaching to VPP takes are missing (RLIMIT_NOFILE is {soft})",
        "raise the limit (`ulimit -n`), or close some files",
    )


def _no_memory(missing: int, wanted: int, sizes: Sizes) -> Unusable:
    return Unusable(
        "no-memory",
        errno.ENOMEM,
        f"not enough address space for VPP: {_mib(missing)} are missing of {_mib(wanted)} (heap_size "
        f"{_mib(sizes.heap)}, segment_size {_mib(sizes.first_segment)}, and one more segment of "
        f"{_mib(sizes.later_segment)})",
        "raise RLIMIT_AS (`ulimit -v`), or lower heap_size and segment_size",
    )


def _mib(size: int) -> str:
    return f"{-(-size // _MIB)} MiB"
