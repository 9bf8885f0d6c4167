"""Limits and stops that come and go at random, from a seed: descriptors, address space, a VPP that stops or dies.

Used by tests.faults and benchmarks.soak. A process is limited from outside (prlimit), its own too.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from vppaio.testing.vppinstance import VppInstance

KINDS: Final = ("descriptors", "memory", "stopped", "slow", "killed")
_MIB: Final = 1 << 20
_CGROUPS: Final = Path("/sys/fs/cgroup/memory")  # version 1 lets a process wait instead of killing it


def kinds_here() -> tuple[str, ...]:
    """All kinds that this machine has."""
    return (*KINDS, "starved") if os.access(_CGROUPS / "cgroup.procs", os.W_OK) else KINDS


def limit_with_free(pid: int, free: int) -> int:
    """The RLIMIT_NOFILE that leaves process `pid` so many numbers, though some in use may be above it; a negative
    one is counted down from the highest."""
    numbers = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        if os.path.lexists(f"/proc/{pid}/fd/{name}"):  # not the one that listed
            numbers.add(int(name))
    if free < 0:
        return max(max(numbers) + 1 + free, 3)
    return next(itertools.islice((number for number in itertools.count() if number not in numbers), free, None))


def mapped(pid: int) -> int:
    """Bytes of its address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


class Trouble(threading.Thread):
    """A context: in it one kind of trouble after another is switched on and off.

    Args:
        vpp: which is stopped and killed.
        pid: of the process that is limited.
        seed: of the order and of all durations.
        kinds: some of `kinds_here()`.
        longest: seconds that one lasts, at most; and as long is between two. VPP is down for its start as well.
        spare: MiB that a low address space leaves at least; a Python program needs some for itself.
    """

    def __init__(
        self,
        vpp: VppInstance,
        pid: int,
        seed: int,
        kinds: Sequence[str] = KINDS,
        *,
        longest: float = 0.3,
        spare: int = 16,
    ) -> None:
        super().__init__(daemon=True)
        self.counts: collections.Counter[str] = collections.Counter()
        self._vpp, self._pid, self._kinds = vpp, pid, kinds
        self._chance = random.Random(seed)
        self._longest, self._spare = longest, spare
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._cgroup = _CGROUPS / f"vppaio-{os.getpid()}"

    def __enter__(self) -> Trouble:
        if "starved" in self._kinds:
            self._cgroup.mkdir()
            (self._cgroup / "memory.oom_control").write_text("1")  # nobody is killed
            (self._cgroup / "cgroup.procs").write_text(str(self._pid))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """All limits are lifted, and VPP runs. Raises what went wrong here."""
        self._over.set()
        self.join()
        if self._cgroup.exists():
            for pid in (self._cgroup / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (_CGROUPS / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):  # the kernel takes its time with one that has just ended
                self._cgroup.rmdir()
        if self._failure is not None:
            raise self._failure

    def run(self) -> None:
        try:
            while not self._over.wait(self._chance.random() * self._longest):
                kind = self._chance.choice(self._kinds)
                self.counts[kind] += 1
                getattr(self, f"_{kind}")(self._chance.random() * self._longest)
        except ProcessLookupError:
            pass  # it has ended, which others tell
        except BaseException as error:
            self._failure = error

    def _descriptors(self, seconds: float) -> None:
        self._limited(resource.RLIMIT_NOFILE, limit_with_free(self._pid, self._chance.randint(-4, 4)), seconds)

    def _memory(self, seconds: float) -> None:
        free = self._spare + self._chance.choice((0, 0, 50, 300))
        self._limited(resource.RLIMIT_AS, mapped(self._pid) + free * _MIB, seconds)

    def _limited(self, which: int, soft: int, seconds: float) -> None:
        before = resource.prlimit(self._pid, which)
        resource.prlimit(self._pid, which, (soft, before[1]))
        try:
            self._over.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self._pid, which, before)

    def _starved(self, seconds: float) -> None:
        """A memory cgroup without room: who touches a new page waits. Not for the process that this thread is in."""
        usage = int((self._cgroup / "memory.usage_in_bytes").read_text())
        limit = self._cgroup / "memory.limit_in_bytes"
        try:
            with contextlib.suppress(OSError):  # it could not be made so small just now
                limit.write_text(str(usage + self._chance.randint(0, 2) * _MIB))
            self._over.wait(seconds)
        finally:
            limit.write_text("-1")

    def _stopped(self, seconds: float) -> None:
        self._vpp.send_signal(signal.SIGSTOP)
        try:
            self._over.wait(seconds)
        finally:
            self._vpp.send_signal(signal.SIGCONT)

    def _slow(self, seconds: float) -> None:
        """It gets a tenth of its time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over.is_set():
            self._stopped(0.018)
            time.sleep(0.002)

    def _killed(self, seconds: float) -> None:
        self._vpp.kill()
        self._over.wait(seconds)
        self._vpp.start()
