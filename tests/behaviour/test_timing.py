"""A loop that sleeps costs nothing, wakes at once, and keeps its timers while it is busy."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import pytest

from tests.support.programs import Service
from tests.support.sites import Site

CLIENTS = 200
SERVICE = """
import asyncio, os, sys, vppaio
from tests.support.protocols import Echo

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sys.argv[1], 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    late = []
    if sys.argv[2] == "timers":
        import json
        await loop.run_in_executor(None, sys.stdin.readline)
        while len(late) < 300:
            due = loop.time() + 0.01
            fired = loop.create_future()
            loop.call_at(due, lambda: fired.set_result(loop.time()))
            late.append(await fired - due)
        print(json.dumps(late), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
vppaio.run(main())
"""
# The kernel's side as a program of its own, so that it competes with the service as little as possible: each of the
# connections echoes one byte as fast as it can.
LOAD = """
import select, socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
peers = [socket.create_connection((address, port), 20) for _ in range(count)]
poll = select.epoll()
by_fd = {}
for peer in peers:
    by_fd[peer.fileno()] = peer
    poll.register(peer, select.EPOLLIN)
    peer.sendall(b"x")
echoes = 0
said = False
while True:
    for fd, _ in poll.poll():
        data = by_fd[fd].recv(100)
        if not data:
            sys.exit(0)
        by_fd[fd].sendall(data)
        echoes += 1
    if echoes > 2 * count and not said:
        said = True
        print("running", flush=True)
"""


class TimedService(Service):
    """The service in a process of its own: its CPU time is nobody else's."""

    def __init__(self, stack: Site, task: str = "") -> None:
        super().__init__(stack, SERVICE, task, stdin=-1)

    def cpu_seconds(self) -> float:
        with open(f"/proc/{self.process.pid}/schedstat") as schedstat:
            return int(schedstat.read().split()[0]) / 1e9  # nanoseconds on a CPU; `stat` counts in hundredths

    def go_first(self) -> bool:
        """Run before all others when there is something to do; False if this machine does not let us."""
        try:
            os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            return False
        return True

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def round_trip(peer: socket.socket) -> float:
    started = time.perf_counter()
    peer.sendall(b"x")
    assert peer.recv(10) == b"x"
    return time.perf_counter() - started


def test_idle_service_uses_at_most_1_percent_of_a_core(stack: Site) -> None:
    """Measured over 3 s after load, with connections open and none used."""
    with TimedService(stack) as service:
        peers = [stack.connect(service.port) for _ in range(CLIENTS)]
        for _ in range(20):
            for peer in peers:
                peer.sendall(b"y" * 1000)
            for peer in peers:
                left = 1000
                while left:
                    left -= len(peer.recv(left))
        used = [service.cpu_seconds()]
        for _ in range(3):
            time.sleep(1)
            used.append(service.cpu_seconds())
        for peer in peers:
            peer.close()
        assert used[-1] - used[0] < 0.03, used


def test_byte_that_arrives_during_sleep_is_answered_at_once(stack: Site) -> None:
    """No steps of 1 ms or 100 ms: what polls on a timer shows them, what is woken does not."""
    with TimedService(stack) as service, stack.connect(service.port) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for tries_left in (2, 1, 0):  # a busy machine is late by itself; steps would be there in every try
            times = []
            for n in range(200):
                time.sleep(0.005 + n % 7 * 0.001)  # the service sleeps by then, and not always for the same time
                times.append(round_trip(peer))
            times.sort()
            median, p95 = statistics.median(times), times[190]
            if (median < 0.0009 and p95 < 0.010) or not tries_left:
                break
        report = f"median {median * 1e6:.0f} us, p95 {p95 * 1e6:.0f} us, max {times[-1] * 1e6:.0f} us"
        assert median < 0.0009, report
        assert p95 < 0.010, report


def test_byte_after_a_long_sleep_is_answered_at_once(stack: Site) -> None:
    with TimedService(stack) as service, stack.connect(service.port) as peer:
        times = []
        for _ in range(5):
            time.sleep(0.6)
            times.append(round_trip(peer))
        assert statistics.median(times) < 0.010, times


@pytest.mark.timeout(120)
def test_10_ms_timers_fire_at_most_2_ms_late_under_1000_echoing_connections(stack: Site) -> None:
    """Held to the 2 ms is the 99th percentile, not the latest timer, in the best of three runs: a machine that stalls
    is late with everything. Late by the loop's own doing is what counts, so the service goes before everybody else on
    this machine; where that is not allowed, who else wants its CPU is measured as well, and only the median is held."""
    for tries_left in (2, 1, 0):
        late, at = _late_timers(stack)
        if late[at] <= 0.002 or not tries_left:
            break
    assert late[0] >= 0
    assert late[at] <= 0.002


def _late_timers(stack: Site) -> tuple[list[float], int]:
    """How late timers fired, sorted, and the index of the one that is held to the limit."""
    with TimedService(stack, "timers") as service:
        first = service.go_first()
        load = stack.popen(
            [sys.executable, "-c", LOAD, stack.address, str(service.port), "1000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert load.stdout is not None
            assert load.stdout.readline() == "running\n"
            service.go_on()
            assert service.process.stdout is not None
            late = sorted(json.loads(service.process.stdout.readline()))
        finally:
            load.kill()
            load.communicate()
    quantiles = [f"p{q} {late[len(late) * q // 100] * 1e3:.2f}" for q in (50, 90, 95, 99)]
    print("late by", *quantiles, f"max {late[-1] * 1e3:.2f} ms", "" if first else "(not first on its CPU)")
    return late, len(late) * (99 if first else 50) // 100
