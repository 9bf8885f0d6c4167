"""Who is behind the app socket: asked of the kernel, without libvppcom.

vppcom_app_create answers -1 to every failure, and nothing at all to a VPP that hangs. So the socket is tried from
here first, without connecting: a connection that is closed before its attach message stays in VPP's epoll set for
good, and VPP spins on its hang-up (session_api.c: sapi_socket_detach returns early, 26.06; idle VPP went from 3.5% to
99.5% of a core). A stream socket does not fit a listener for SOCK_SEQPACKET, so the kernel says EPROTOTYPE if VPP
listens and ECONNREFUSED if only a file is left, and VPP hears nothing. Its CLI and API sockets may be connected to:
there the kernel tells the process (SO_PEERCRED), which has its release in the names of the libraries it has mapped.
"""

from __future__ import annotations

import errno
import getpass
import os
import re
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vppaio.vcl.errors import Unusable

_CONNECT_LIMIT_US: Final = 200_000  # for a place in the line of a VPP that is busy; one that hangs serves nobody
_RELEASE: Final = re.compile(r"/lib(?:vnet|vlib|vppinfra)\.so\.(\d\d\.\d\d)")


@dataclass(frozen=True)
class Vpp:
    """The process that listens; pid 0 and release "" where the kernel or its permissions do not say."""

    pid: int
    release: str


def _connect(path: str, kind: socket.SocketKind) -> int:
    """Return the pid of the listening process, 0 if it is in another pid namespace."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        # A unix socket with a full backlog refuses non-blocking connects at once, so Python's timeouts are of no use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, _CONNECT_LIMIT_US))
        probe.connect(path)
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def _release_of(pid: int) -> str:
    try:
        found = _RELEASE.search(Path(f"/proc/{pid}/maps").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def beside(app_socket: str, name: str) -> str:
    """Path of file `name` in the runtime directory that has this app socket."""
    return str(Path(app_socket).parent.parent / name)


def vpp_beside(app_socket: str) -> int | None:
    """Return the pid of a VPP that has its CLI or API in this socket's runtime directory, else None."""
    for name in ("cli.sock", "api.sock"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            try:
                return _connect(beside(app_socket, name), kind)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return 0  # somebody is at home, and does not let us in, or hangs
    return None


def running_vpps() -> list[int]:
    """Return the pids of processes that are called as VPP calls itself."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() in ("vpp", "vpp_main"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def _missing(path: str) -> Unusable:
    cause = f"there is no app socket {path}"
    if (pid := vpp_beside(path)) is not None:
        named = f"VPP (pid {pid})" if pid else "VPP"
        return Unusable(
            "session-layer-off",
            errno.ENOENT,
            f"{named} runs, but {cause}",
            "switch its session layer on: `session { enable use-app-socket-api }` in startup.conf, or `vppctl session "
            "enable`",
        )
    cure = "start VPP (systemctl start vpp), or name its app socket with app_socket, or use stack=host"
    if others := running_vpps():
        cause += f"; the VPP with pid {others[0]} has its runtime directory elsewhere, or its session layer off"
        cure = "name that VPP's app socket with app_socket, or switch its session layer on (`session { enable }`)"
    else:
        cause = f"VPP is not running, {cause}"
    return Unusable("vpp-not-running", errno.ENOENT, cause, cure)


def _describe(path: str) -> str:
    """Owner and mode of what refused us, the socket or a folder above it."""
    for candidate in (Path(path), *Path(path).parents):
        try:
            status = candidate.stat()
        except OSError:
            continue
        return f"{candidate} has owner {status.st_uid}, group {status.st_gid}, mode {stat.filemode(status.st_mode)}"
    return "its folder cannot be read either"


def app_socket(path: str) -> Vpp:
    """Knock at the app socket, and learn who is there.

    Raises:
        Unusable: with the errno of the refusal.
    """
    knock(path)
    pid = vpp_beside(path) or 0
    return Vpp(pid, _release_of(pid) if pid else "")


def knock(path: str) -> None:
    """See that somebody listens on the app socket. Waits for nobody.

    Raises:
        Unusable: with the errno of the refusal.
    """
    try:
        _connect(path, socket.SOCK_STREAM)
    except OSError as error:
        code = error.errno or errno.EIO
        if code == errno.EPROTOTYPE:  # somebody listens for SOCK_SEQPACKET
            return
        if code in (errno.ENOENT, errno.ENOTDIR):
            raise _missing(path) from None
        if code in (errno.EACCES, errno.EPERM):
            raise Unusable(
                "no-permission",
                errno.EACCES,
                f"no permission to use the app socket {path}: {_describe(path)}",
                f"run as a member of its group (usually `usermod -aG vpp {_user()}`) or as root",
            ) from None
        if code == errno.ECONNREFUSED:
            # A socket file stays behind when VPP is killed; a plain file is refused in the same way.
            raise Unusable(
                "vpp-not-running",
                code,
                f"VPP is not running, nobody listens on the app socket {path}",
                "start VPP (systemctl start vpp)",
            ) from None
        if code in (errno.EMFILE, errno.ENFILE):
            raise Unusable(
                "no-descriptors", code, f"app socket {path}: {os.strerror(code)}", "raise RLIMIT_NOFILE (`ulimit -n`)"
            ) from None
        raise Unusable("app-socket", code, f"app socket {path}: {os.strerror(code)}", "see VPP's log") from None
    raise Unusable(
        "not-an-app-socket",
        errno.EPROTOTYPE,
        f"{path} is a socket of another kind",
        "name VPP's app socket, usually .../app_ns_sockets/default, not its CLI or API",
    )


def hung(path: str) -> Unusable:
    """VPP is there and says nothing."""
    return Unusable(
        "vpp-hung",
        errno.ETIMEDOUT,
        f"VPP hangs: it accepted the connection but does not answer on {path}",
        "look at what it is doing (`vppctl show runtime`, its log), or restart it",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
