"""A network namespace of our own, and sockets inside it from a process outside.

Knows nothing of VPP; vppinstance.py puts one end of a veth pair here for VPP and one for kernel clients.

Two ways in: `popen` and `run` start a command inside (ip netns exec); `entered` takes the calling thread inside, so
that sockets made meanwhile belong to the namespace. A socket stays where it was made, so it can be used from anywhere
afterwards, also by asyncio in the root namespace.

Names end in the pid of their maker. `remove_stale` uses that to clear away what a killed test run left.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_DIRECTORY: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_NAME: Final = re.compile(r"(?P<prefix>\w+)-(?P<pid>\d+)-\d+")
_numbers = itertools.count(1)


class NetworkNamespace:
    """A namespace named `<prefix>-<pid>-<n>`; made by `create`, gone with its processes after `remove`."""

    def __init__(self, prefix: str) -> None:
        self.name: Final = f"{prefix}-{os.getpid()}-{next(_numbers)}"

    def create(self) -> None:
        _checked(["ip", "netns", "add", self.name])
        self.ip("link set lo up")

    def remove(self) -> None:
        """End what still runs inside and remove the name; the interfaces go when the last socket inside is closed."""
        remove_namespace(self.name)

    def ip(self, *commands: str) -> None:
        """Run several `ip` commands inside, in one process; the first refused one raises RuntimeError."""
        _checked(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(commands))

    def command(self, command: Sequence[str]) -> list[str]:
        """`command` as it must be spelled to run inside; `ip` becomes it, so pid and exit status are its own."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        return subprocess.run(self.command(command), **options)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(command), **options)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Take the calling thread inside for the length of the block.

        Only this thread moves, and threads and processes it starts meanwhile, for good. Do not await in the block:
        whatever else runs on this thread would be inside as well.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(_DIRECTORY / self.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)


def remove_namespace(name: str) -> None:
    """Kill the processes in the namespace and remove it; missing is fine."""
    if not (_DIRECTORY / name).exists():
        return
    deadline = time.monotonic() + 5
    while pids := _checked(["ip", "netns", "pids", name]).split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} in namespace {name} do not die")
        time.sleep(0.01)
    _checked(["ip", "netns", "delete", name])


def remove_stale(prefix: str) -> list[str]:
    """Remove the namespaces whose makers are dead, and return their names."""
    stale = [path.name for path in _DIRECTORY.glob(f"{prefix}-*") if maker_is_dead(path.name, prefix)]
    for name in stale:
        with contextlib.suppress(RuntimeError):  # another test run may be clearing away the same
            remove_namespace(name)
    return stale


def maker_is_dead(name: str, prefix: str) -> bool:
    """Whether `name` is one of ours and its process is gone; False for foreign names."""
    match = _NAME.fullmatch(name)
    return match is not None and match["prefix"] == prefix and not Path("/proc", match["pid"]).exists()


def _checked(command: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _setns(fd: int) -> None:
    if sys.version_info >= (3, 12):
        os.setns(fd, _CLONE_NEWNET)
    elif ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)} (setns)")
