"""libvppcom on this machine: which file it is, and whether it is of the running VPP's release.

Called by vcl.application; asks vcl.probe for VPP's release. From any thread.
"""

from __future__ import annotations

import ctypes.util
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from vppaio.vcl import probe
from vppaio.vcl._vcl import ffi, lib
from vppaio.vcl.errors import Unusable

VARIABLE: Final = "VPPAIO_LIBVPPCOM"
INSTALL: Final = "install VPP's packages, see docs/guide.md, or use stack=host"

_lock = threading.Lock()


@dataclass(frozen=True)
class Library:
    """libvppcom as found on this machine."""

    path: str
    release: str


def find(app_socket: str, report: Callable[..., None]) -> None:
    """Load libvppcom and see that the VPP behind `app_socket` is there and of the same release."""
    vpp: probe.Vpp | None = None
    unreachable: Unusable | None = None
    try:
        vpp = probe.app_socket(app_socket)
        report(vpp_pid=vpp.pid, vpp_release=vpp.release)
    except Unusable as reason:
        unreachable = reason
    with _lock:
        library = load(vpp.release if vpp else "")
    report(libvppcom=library.path, libvppcom_release=library.release)
    if unreachable is not None:
        raise unreachable
    assert vpp is not None
    # Shared memory has no version of its own: another release's libvppcom attaches, and reads garbage.
    if library.release and vpp.release and library.release != vpp.release:
        raise Unusable(
            "release-mismatch",
            errno.EPROTONOSUPPORT,
            f"libvppcom is {library.release} ({library.path}), the running VPP is {vpp.release} (pid {vpp.pid})",
            f"install libvppcom {vpp.release}, or restart VPP after its upgrade; {VARIABLE} can name a file",
        )


def load(release: str = "") -> Library:
    """Load the libvppcom that VPPAIO_LIBVPPCOM names, or the one that fits `release`, or any.

    Raises:
        Unusable: there is none, or none from 21.10 on.
    """
    message = ffi.new("char[1024]")
    named = os.environ.get(VARIABLE)
    for candidate in [named] if named else _candidates(release):
        rc = lib.vppaio_vpp_open(os.fsencode(candidate), message, len(message))
        if rc == 0:
            return Library(_text(lib.vppaio_vpp_library()), _text(lib.vppaio_vpp_release())[:5])
        said = _text(message)
        if -rc in (errno.ENOSYS, errno.ENOTSUP):
            raise Unusable("library-too-old", -rc, f"{candidate}: {said}", "install VPP 21.10 or later")
        if named or os.path.basename(candidate) not in said:  # it is there, but something it needs is not
            cure = f"correct {VARIABLE}" if named else f"{INSTALL}; {VARIABLE} can name another file"
            raise Unusable("library-missing", errno.ENOENT, f"cannot load libvppcom: {said}", cure)
    raise Unusable(
        "library-missing",
        errno.ENOENT,
        f"libvppcom {release}".rstrip() + " is not installed here",
        f"{INSTALL}; {VARIABLE} can name the file",
    )


def _candidates(release: str) -> Iterator[str]:
    if release:
        yield f"libvppcom.so.{release}"
    yield "libvppcom.so"  # a link that comes with VPP's development files
    if found := ctypes.util.find_library("vppcom"):  # asks ldconfig, and takes its time
        yield found


def unguarded() -> str:
    """What vppaio cannot guard against with this libvppcom, "" if all is well."""
    missing = _text(lib.vppaio_vpp_missing_hook())
    if not missing:
        return ""
    return (
        f"this libvppcom does not call {missing}, so a lack of descriptors or address space may end the process; keep "
        "RLIMIT_NOFILE and RLIMIT_AS high"
    )


def _text(chars: Any) -> str:
    return os.fsdecode(ffi.string(chars))


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
