"""One case: what is limited, to how much, and when; and what must hold.

The process lives, says why it refuses or waits, serves again once the limit is lifted, and has written nothing into the
file that is its stdin.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.limits.service import PORTS
from vppaio.testing.trouble import limit_with_free, mapped
from vppaio.testing.vppinstance import VppInstance

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 20.0  # seconds
KINDS: Final = ("descriptors", "files", "memory")  # a low limit; a limit, and files opened up to it; a low limit
MOMENTS: Final = ("attach", "serving", "restart")
CONTENT: Final = b"nobody writes here\n" * 10
_LIMITS: Final = {"descriptors": resource.RLIMIT_NOFILE, "files": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS}
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Case:
    """`free` descriptors, or MiB, from `moment` on."""

    kind: str
    moment: str
    free: int

    def __str__(self) -> str:
        what = {"descriptors": "descriptors", "files": "descriptors (files are open)", "memory": "MiB"}[self.kind]
        return f"{self.free} {what} free, {self.moment}"


@dataclass
class Outcome:
    """What happened.

    Attributes:
        faults: what must not have happened; empty if all is well.
        said: what the service said, line by line.
        served_after: seconds from the end of the limit until it served on all ports.
    """

    faults: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    served_after: float = 0.0

    @property
    def summary(self) -> str:
        told = sorted({" ".join(line.split()[:2]) for line in self.said if line.startswith(("refused", "complaint"))})
        return "; ".join(self.faults) or f"served {self.served_after:.2f} s later; {', '.join(told) or 'no complaint'}"


class Service:
    """The process, and what it says."""

    def __init__(self, vpp: VppInstance, stdin: int, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VPPAIO_", "VCL_"))}
        environment |= {"PYTHONPATH": str(ROOT), "VPPAIO_APP_SOCKET": vpp.app_socket, "VPPAIO_STACK": "vpp"}
        self.vpp = vpp
        self.said: list[str] = []
        self._heard = threading.Condition()
        command = [sys.executable, "-m", "tests.limits.service", vpp.address, *arguments]
        self.process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.said.append(line.rstrip("\n"))
                self._heard.notify_all()

    def end(self) -> bool:
        """Whether SIGTERM was enough."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        finally:
            self._listener.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def wait_said(self, line: str, timeout: float = PATIENCE) -> bool:
        with self._heard:
            return self._heard.wait_for(lambda: line in self.said or self.process.poll() is not None, timeout) and (
                line in self.said
            )

    def limit(self, kind: str, free: int) -> None:
        """Leave it so much; less than nothing is less than it has already."""
        with contextlib.suppress(ProcessLookupError):
            if kind == "files":
                self.process.send_signal(signal.SIGUSR1)
                self.wait_said("filled")
            if kind == "memory":
                soft = mapped(self.process.pid) + free * _MIB
            else:
                soft = limit_with_free(self.process.pid, free)
            _, most = resource.prlimit(self.process.pid, _LIMITS[kind])
            resource.prlimit(self.process.pid, _LIMITS[kind], (soft, most))

    def lift(self, kind: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            _, most = resource.prlimit(self.process.pid, _LIMITS[kind])
            resource.prlimit(self.process.pid, _LIMITS[kind], (most, most))
            if kind == "files" and "filled" in self.said:
                self.process.send_signal(signal.SIGUSR2)

    def connect(self, port: int, timeout: float = 1.0) -> socket.socket:
        return self.vpp.kernel_connect(self.vpp.address, port, timeout)


def echoes(peer: socket.socket, data: bytes = b"are you there?") -> bool:
    """Whether `data` comes back within the socket's timeout; nothing does that differs."""
    received = b""
    try:
        peer.sendall(data)
        while len(received) < len(data):
            part = peer.recv(len(data))
            if not part:
                return False
            received += part
    except OSError:
        return False
    assert received == data, f"sent {data!r}, received {received!r}"
    return True


def serves(service: Service, port: int) -> bool:
    with contextlib.suppress(OSError), service.connect(port) as peer:
        return echoes(peer)
    return False


@contextlib.contextmanager
def running(vpp: VppInstance, outcome: Outcome, *arguments: str) -> Iterator[Service]:
    """The service with a file as stdin; sees at the end that it lives and that the file is as it was."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(CONTENT)
        stdin.seek(0)
        service = Service(vpp, stdin.fileno(), *arguments)
        try:
            yield service
            status = service.process.poll()
            if status is not None:
                name = signal.Signals(-status).name if status < 0 else f"status {status}"
                outcome.faults.append(f"ended with {name}")
        finally:
            if not service.end():
                outcome.faults.append("SIGTERM did not end it")
            outcome.said = service.said
            stdin.seek(0)
            if stdin.read() != CONTENT:
                outcome.faults.append("stdin's file was written to")


def _all_served(service: Service, outcome: Outcome) -> None:
    began = time.monotonic()
    waiting = set(PORTS)
    while waiting and time.monotonic() - began < PATIENCE and service.process.poll() is None:
        waiting -= {port for port in waiting if serves(service, port)}
    outcome.served_after = time.monotonic() - began
    if waiting and service.process.poll() is None:
        outcome.faults.append(f"does not serve on {sorted(waiting)}")


def run(vpp: VppInstance, case: Case) -> Outcome:
    """One case from beginning to end."""
    outcome = Outcome()
    arguments = [f"{case.kind}={case.free}"] if case.moment == "attach" else []
    with contextlib.ExitStack() as closing:
        service = closing.enter_context(running(vpp, outcome, *arguments))
        if case.moment == "attach":
            service.wait_said("limited")
            service.wait_said("serving", 1.5)
        elif not service.wait_said("serving"):
            outcome.faults.append("did not begin to serve")
            return outcome
        if case.moment == "serving":
            _while_serving(service, case, outcome, closing)
        elif case.moment == "restart":
            _while_vpp_restarts(service, case, closing)
        service.lift(case.kind)
        _all_served(service, outcome)
    if vpp.crashed():
        outcome.faults.append("VPP crashed")
    return outcome


def _while_serving(service: Service, case: Case, outcome: Outcome, closing: contextlib.ExitStack) -> None:
    old = closing.enter_context(service.connect(PORTS[0]))
    old.settimeout(5)
    if not echoes(old):
        outcome.faults.append("did not serve the first connection")
    service.limit(case.kind, case.free)
    new = []
    for port in PORTS * 2:
        with contextlib.suppress(OSError):
            peer = closing.enter_context(service.connect(port))
            peer.sendall(b"early")
            new.append(peer)
        if not echoes(old, f"still there? {port}".encode() * 100):
            outcome.faults.append(f"an open connection stood still after one to {port}")
    time.sleep(0.5)
    if service.process.poll() is not None:
        return
    service.lift(case.kind)
    for peer in new:
        peer.settimeout(5)
        with contextlib.suppress(OSError):
            if peer.recv(5) not in (b"early", b""):
                outcome.faults.append("a connection that waited got other bytes")


def _while_vpp_restarts(service: Service, case: Case, closing: contextlib.ExitStack) -> None:
    for port in PORTS[:2]:
        echoes(closing.enter_context(service.connect(port)))
    service.limit(case.kind, case.free)
    service.vpp.kill()
    time.sleep(1.5)
    service.vpp.start()
    for port in PORTS:
        serves(service, port)
