"""VPP is killed under a busy service, and comes back: everybody hears of it, nothing stops, nothing crashes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tests.support.sites import VppSite
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp

ROUNDS = 3
SERVED = 50
SERVICE = """
import asyncio, collections, json, sys, time, vppaio

address, peer, port, silent = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
open_, lost, errors = set(), [], []

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        open_.add(self)
    def data_received(self, data):
        self.transport.write(data)
    def connection_lost(self, exc):
        open_.remove(self)
        lost.append((type(self).__name__, type(exc).__name__))
class Client(Echo): pass
class Datagrams(Echo, asyncio.DatagramProtocol): pass
class Paused(Echo):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.pause_reading()
        transport.write(bytes(10 << 20))

def say(**what):
    print(json.dumps(what), flush=True)

async def tick(gaps):
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.02)
        gaps.append(time.monotonic() - last)
        last += gaps[-1]

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
    server = await loop.create_server(Echo, address, 4000)
    paused = await loop.create_server(Paused, address, 4001)
    gaps = []
    ticking = asyncio.create_task(tick(gaps))
    while True:
        say(serving=True)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        for _ in range(10):
            await loop.create_connection(Client, peer, port)
        await loop.create_datagram_endpoint(Datagrams, remote_addr=(peer, port))
        connecting = asyncio.create_task(loop.create_connection(Client, peer, silent))
        await asyncio.sleep(0.05)
        expected = len(open_)
        gaps.clear()
        say(ready=expected)
        while open_:
            await asyncio.sleep(0.01)
        answer, = await asyncio.gather(connecting, return_exceptions=True)
        counted = collections.Counter(" ".join(item) for item in lost)
        say(lost=dict(counted), connecting=type(answer).__name__, longest_gap=max(gaps), errors=errors)
        lost.clear()
        gaps.clear()
    server.close()
    paused.close()
    say(sessions=loop.statistics()["stacks"]["vpp"]["sessions"])
vppaio.run(main())
"""


class Program:
    """The service, and what it says."""

    def __init__(self, site: VppSite, *arguments: str) -> None:
        self.process = site.python("-c", SERVICE, *arguments, stdin=-1)
        self._said: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        self.process.kill()
        self._listener.join()
        self.process.__exit__(None, None, None)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)
        self._said.put("")

    def hears(self, timeout: float = 20) -> dict[str, Any]:
        line = self._said.get(timeout=timeout)
        assert line, f"the service ended with status {self.process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def echo_until_lost(peer: socket.socket) -> None:
    with peer, contextlib.suppress(OSError):
        while True:
            peer.sendall(b"x" * 100)
            if not peer.recv(100):
                return


def serves_again(site: VppSite, port: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), site.vpp.kernel_connect(site.address, port, timeout=1) as peer:
            peer.sendall(b"are you back?")
            if peer.recv(100):
                return True
        time.sleep(0.05)
    return False


@pytest.mark.trap("11: only some sessions hear that VPP died", guard="vppaio/reactor/worker.pyx: check_lost")
@pytest.mark.trap("11: closing a session after VPP died", guard="vppaio/vcl/vpp_worker.c: drain_parked")
@pytest.mark.timeout(120)
def test_service_survives_the_death_of_vpp(own_vpp: VppInstance) -> None:
    vpp, site = own_vpp, VppSite(own_vpp)
    with site.listen() as listener, site.silence() as silent:
        port = listener.getsockname()[1]
        service = Program(site, site.address, site.peer_address, str(port), str(silent[1]))
        try:
            for _ in range(ROUNDS):
                assert "serving" in service.hears()
                for number in (4000, 4001):
                    assert serves_again(site, number)
                peers = [vpp.kernel_connect(site.address, 4000) for _ in range(SERVED)]
                idle = vpp.kernel_connect(site.address, 4001)
                threads = [threading.Thread(target=echo_until_lost, args=(peer,), daemon=True) for peer in peers]
                for thread in threads:
                    thread.start()
                service.go_on()
                assert service.hears()["ready"] >= SERVED + 1 + 10 + 1
                vpp.kill()
                killed = time.monotonic()
                news = service.hears()
                elapsed = time.monotonic() - killed
                for peer in peers:
                    peer.close()
                idle.close()
                lost = news["lost"]
                assert {name.split()[1] for name in lost} <= {"ConnectionResetError", "NoneType"}, lost
                assert lost["Echo ConnectionResetError"] >= SERVED
                assert lost["Client ConnectionResetError"] == 10
                assert lost["Paused ConnectionResetError"] >= 1
                assert lost["Datagrams ConnectionResetError"] == 1
                assert news["connecting"] == "ConnectionResetError"
                assert news["errors"] == []
                assert elapsed < 2.0
                assert news["longest_gap"] < 1.5  # VCL itself sleeps for 1 s when it notices (docs/vpp.md 9.1)
                vpp.start()
            assert "serving" in service.hears()
            assert serves_again(site, 4000)
            assert service.process.stdin is not None
            service.process.stdin.close()
            assert service.hears()["sessions"] <= 2  # the last kernel clients may just be leaving
            assert service.process.wait(10) == 0
        finally:
            service.close()


TWO_LOOPS = """
import asyncio, sys, vppaio

async def serve():
    served = asyncio.Event()
    async def answer(reader, writer):
        writer.write(await reader.read(100))
        writer.close()
        served.set()
    async with await asyncio.start_server(answer, sys.argv[1], 4000):
        print("serving", flush=True)
        await served.wait()
        await asyncio.sleep(0.1)

for _ in range(2):
    vppaio.run(serve())
    sys.stdin.readline()
"""


def test_loop_made_after_a_restart_serves(vpp_instance: VppInstance) -> None:
    """The worker of the first loop lay idle while VPP came and went; the second loop gets it."""
    with subprocess.Popen(
        [sys.executable, "-c", TWO_LOOPS, vpp_instance.address],
        env=os.environ | vpp_instance.environment() | {"VPPAIO_STACK": "vpp"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for restart in (True, False):
            assert program.stdout.readline() == "serving\n"
            with vpp_instance.kernel_connect(vpp_instance.address, 4000) as peer:
                peer.sendall(b"hello")
                assert peer.recv(100) == b"hello"
            if restart:
                time.sleep(0.3)  # the loop closes
                vpp_instance.kill()
                vpp_instance.start()
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.wait(10) == 0


TWO_WORKERS = """
import asyncio, sys, threading, vppaio

async def serve(seconds):
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, sys.argv[1], 0)
    await asyncio.sleep(seconds)
    server.close()

other = threading.Thread(target=vppaio.run, args=(serve(1.5),))
other.start()
vppaio.run(serve(1))
other.join()
while True:
    print("serving", flush=True)
    if not sys.stdin.readline():
        break
    vppaio.run(serve(0.1))
"""


def test_worker_that_waits_for_a_loop_comes_along_at_each_restart(own_vpp: VppInstance) -> None:
    """VCL counts the workers that attach; with one left out the second restart ended the process by exit(1)."""
    with subprocess.Popen(
        [sys.executable, "-c", TWO_WORKERS, own_vpp.address],
        env=os.environ | own_vpp.environment() | {"VPPAIO_STACK": "vpp"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for _ in range(3):
            assert program.stdout.readline() == "serving\n"
            own_vpp.kill()
            own_vpp.start()
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.stdout.readline() == "serving\n"
        program.stdin.close()
        assert program.wait(20) == 0


HOOKED = """
import asyncio, json, logging, sys, vppaio
from tests.support.protocols import Echo

async def main():
    loop = asyncio.get_running_loop()
    loop.add_stack_listener(lambda event: print(event.stack, event.state, flush=True))
    server = await loop.create_server(Echo, sys.argv[1], 4000)
    print("serving", flush=True)
    try:
        await server.serve_forever()
    except ConnectionResetError as error:
        print("failed", error, flush=True)
        await asyncio.sleep(20)
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
vppaio.run(main())
"""


@pytest.mark.parametrize("way", ["restore", "fail"])
def test_program_hears_of_the_loss_and_chooses_what_becomes_of_its_server(own_vpp: VppInstance, way: str) -> None:
    vpp = own_vpp
    with subprocess.Popen(
        [sys.executable, "-uc", HOOKED, vpp.address],
        env=os.environ | vpp.environment() | {"VPPAIO_STACK": "vpp", "VPPAIO_ON_STACK_LOSS": way},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            lines = iter(program.stdout.readline, "")
            assert next(lines) == "serving\n"
            vpp.kill()
            said = [line for _, line in zip(range(4 if way == "fail" else 2), lines, strict=False)]
            assert "vpp lost\n" in said
            assert any(line.startswith("WARNING stack lost stack=vpp times=1") for line in said)
            if way == "fail":
                assert any(line.startswith("failed [Errno 104] VPP went away, and the listener on") for line in said)
            # Attached before VPP has its addresses: the listener has to wait for them.
            vpp.start(before_addresses=lambda: time.sleep(0.6))
            said = []
            while "vpp restored\n" not in said:
                said.append(next(lines))
            if way == "restore":
                assert serves_again(VppSite(vpp), 4000)
                waiting = [line for line in said if line.startswith("WARNING listener waiting")]
                assert len(waiting) == 1
                assert f"address={vpp.address} port=4000 retry_s=0.05 error=" in waiting[0]
            else:
                with pytest.raises(ConnectionRefusedError):
                    vpp.kernel_connect(vpp.address, 4000)
        finally:
            program.kill()
