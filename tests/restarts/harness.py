"""Kills VPP under load, again and again, and measures how the service comes through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.support.sites import VppSite
from vppaio.testing.vppinstance import VppInstance

PORT: Final = 4000
PATIENCE: Final = 30.0
LONGEST_OUTAGE: Final = 3.0  # seconds after VPP was configured
# What each time may leave behind. Descriptors and mappings that VCL forgets are taken away (vpp_remains.c); its own
# heap, which is shared memory, grows by the records of FIFOs whose segment it deletes first (svm/fifo_segment.c:
# fifo_segment_cleanup frees those of as many slices as the segment has, and one that was attached says 0): 112 kB for
# 200 connections.
OF_VCL: Final = {"sessions": 0, "fds": 0, "mappings": 0, "own_kb": 50, "shared_kb": 160}


@dataclass(frozen=True)
class Restart:
    """One death and return.

    Attributes:
        outage: seconds from VPP being configured again to the first echo.
        all_back: seconds from there until every client is served again.
        slowest_answer: seconds the kernel-side HTTP server took at most, from before the kill on.
        report: what the service said when all were served again.
    """

    outage: float
    all_back: float
    slowest_answer: float
    report: dict[str, Any]


class Load:
    """Clients on the kernel's side, in a thread: each sends 64 bytes, waits for them, connects again when it fails."""

    def __init__(self, vpp: VppInstance, clients: int) -> None:
        self._vpp = vpp
        self._served = [0.0] * clients  # when each was last served
        self._stop = threading.Event()
        self.errors: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def wait_served(self, since: float, count: int) -> float:
        """Seconds after `since` at which that many had been served since then."""
        deadline = time.monotonic() + PATIENCE
        while sum(moment > since for moment in self._served) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{sum(m > since for m in self._served)} of {count} clients were served again")
            time.sleep(0.005)
        return time.monotonic() - since

    @property
    def clients(self) -> int:
        return len(self._served)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            with self._vpp.kernel_sockets():
                sock = socket.socket()
            sock.setblocking(False)
            with sock, contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(loop.sock_connect(sock, (self._vpp.address, PORT)), 1)
                message = number.to_bytes(4, "big") * 16
                while not self._stop.is_set():
                    await loop.sock_sendall(sock, message)
                    received = b""
                    while len(received) < len(message):
                        part = await asyncio.wait_for(loop.sock_recv(sock, 64), 1)
                        if not part:
                            raise ConnectionResetError
                        received += part
                    if received != message:
                        self.errors.append(f"client {number} got {received!r}")
                    self._served[number] = time.monotonic()
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)


class Questions:
    """Asks the service's HTTP server every 50 ms, in a thread; `slowest` is the longest it took since it was reset."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/"
        self._stop = threading.Event()
        self.slowest = 0.0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def ask(self) -> dict[str, Any]:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            report: dict[str, Any] = json.load(answer)
        return report

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            started = time.monotonic()
            try:
                self.ask()
            except OSError as error:
                self.errors.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - started)


def restarts(
    vpp: VppInstance, kills: int, clients: int, tell: Callable[[int, Restart], None] = lambda *_: None
) -> list[Restart]:
    """Kill `vpp` that often under that many clients.

    Raises:
        AssertionError: the service did not come back, gave wrong bytes, complained, or ended.
    """
    site = VppSite(vpp)
    found = []
    with contextlib.ExitStack() as closing:
        service = closing.enter_context(site.python("-m", "tests.restarts.service", vpp.address, str(PORT)))
        closing.callback(service.kill)
        assert service.stdout is not None
        questions = Questions(int(service.stdout.readline()))
        closing.callback(questions.close)
        load = Load(vpp, clients)
        closing.callback(load.close)
        load.wait_served(time.monotonic(), clients)
        for number in range(1, kills + 1):
            questions.slowest = 0.0
            vpp.kill()
            time.sleep(1.5)  # so that VCL has noticed, as it has when VPP takes longer to come back than here
            vpp.start()
            configured = time.monotonic()
            outage = load.wait_served(configured, 1)
            all_back = load.wait_served(configured, clients)
            report = _settled(questions, clients)
            assert service.poll() is None, f"the service ended with status {service.returncode}"
            assert report["restored"] == number
            assert report["events"] == ["lost", "restored"] * number
            assert not report["complaints"], report["complaints"]
            assert not questions.errors, questions.errors
            assert not load.errors, load.errors
            found.append(Restart(outage, all_back, questions.slowest, report))
            tell(number, found[-1])
    return found


def leaks(found: list[Restart]) -> list[str]:
    """What grew by more than VCL's share for each restart since the 5th, or the first if there are not so many."""
    early, late = found[4 if len(found) > 5 else 0].report, found[-1].report
    times = late["restored"] - early["restored"]
    grown = {key: late[key] - early[key] for key in OF_VCL}
    return [f"{key}: {n} in {times} restarts" for key, n in grown.items() if n > OF_VCL[key] * times]


def _settled(questions: Questions, clients: int) -> dict[str, Any]:
    """The service's report when the connections of clients that gave up waiting are gone."""
    deadline = time.monotonic() + PATIENCE
    while (report := questions.ask())["sessions"] != clients + 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    return report
