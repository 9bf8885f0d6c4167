"""Traps of VCL that no other test walks into: each shows what stands between a program and the trap.

`pytest --co -m trap` lists all traps with their guards and tests. A test that could take this process down with it runs
in one of its own.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import vppaio
from tests.support.protocols import Echo
from tests.support.sites import ROOT, VppSite, eventually, in_thread, port_of, sessions
from tests.vpp.programs import ECHO, Program, serves
from vppaio.testing.vppinstance import VppInstance
from vppaio.vcl._vcl import lib

pytestmark = pytest.mark.vpp


def python(vpp: VppInstance, code: str, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own beside `vpp`; its status is checked."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "VPPAIO_APP_SOCKET": vpp.app_socket, "VPPAIO_STACK": "vpp"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


CALLS = """
import errno, threading
from vppaio.config import Config
from vppaio.vcl import application
from vppaio.vcl._vcl import ffi, lib

ops = lib.vppaio_vpp_ops()
assert ops.session_create(0, 0, 1) == -errno.ENOTCONN       # VCL: SIGSEGV before attach
assert ops.epoll_create(0) == -errno.ENOTCONN
application.attach(Config())
assert lib.vppaio_vpp_attach(b"again") == -errno.EALREADY   # VCL 26.06: answers 0 and corrupts its state
assert ops.session_create(5, 0, 1) == -errno.ENOTCONN       # VCL: SIGSEGV without a worker
handles = []
for _ in range(3):                                          # VCL: SIGSEGV on a thread that never registered
    thread = threading.Thread(target=lambda: handles.append(ops.session_create(0, 0, 1)))
    thread.start()
    thread.join()
assert len(set(handles)) == 3 and min(handles) >= 0, handles
"""


@pytest.mark.trap("1: a thread without a worker", guard="vppaio/vcl/vpp_worker.h: enter")
@pytest.mark.trap("9: a call before attach, and a second attach", guard="vppaio/vcl/vpp_process.c: vppaio_vpp_attach")
def test_calls_that_vcl_cannot_take_are_refused_or_made_safe(vpp_instance: VppInstance) -> None:
    python(vpp_instance, CALLS)


@pytest.mark.trap("2: a positive timeout is slept to its end", guard="vppaio/vcl/vpp_worker.c: vpp_epoll_wait")
def test_waiting_is_not_done_in_vcl(vpp_instance: VppInstance) -> None:
    code = CALLS.split("assert lib")[0] + (
        "import time\n"
        "vep = ops.epoll_create(0)\n"
        "started = time.monotonic()\n"
        "for timeout in (-1, 1, 5000):\n"
        "    assert ops.epoll_wait(vep, ffi.new('struct epoll_event[4]'), 4, timeout) == -errno.EINVAL\n"
        "assert time.monotonic() - started < 1\n"
    )
    python(vpp_instance, code)


FAST_CLOCK = """
import asyncio, os, sys, vppaio
from vppaio.vcl import vclconf

with open(sys.argv[2], "w") as file:
    file.write(vclconf.own(vppaio.Config()).replace("session-timeout 5", "session-timeout 0.000001"))
del os.environ["VPPAIO_APP_SOCKET"]

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, sys.argv[1], 0)
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(sys.argv[1], 0))
    try:
        await loop.create_server(asyncio.Protocol, "192.0.2.1", 0)
    except OSError as error:
        print(error.errno)
    print(server.sockets[0].getsockname()[1], flush=True)
    sys.stdin.readline()
    transport.close()
    server.close()
vppaio.run(main(), config=vppaio.Config(vcl_config=sys.argv[2]))
"""


@pytest.mark.trap("2: VCL's own timeouts may pass at once", guard="vppaio/vcl/vpp_session.c: wait_for_answer")
def test_listening_waits_for_vpps_answer_also_when_vcls_clock_runs_fast(site: VppSite, tmp_path: Path) -> None:
    """As it does under load, where VCL measured the processor's frequency wrong; here its timeout is short instead."""
    with site.python("-c", FAST_CLOCK, site.address, str(tmp_path / "vcl.conf"), stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert int(program.stdout.readline()) == errno.EADDRNOTAVAIL
        site.connect(int(program.stdout.readline())).close()
        program.stdin.close()
        assert program.wait(10) == 0


@pytest.mark.trap("3: parked events do not wake the worker's descriptor", guard="vppaio/reactor/poller.pyx: _ask")
def test_events_that_did_not_fit_into_one_look_are_not_slept_over(site: VppSite) -> None:
    """VCL gives 1024 of them, parks the rest in itself, and its descriptor is silent."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, site.address, 0, backlog=2000)
        with ExitStack() as closing:
            peers = [closing.enter_context(site.connect(port_of(server))) for _ in range(1300)]
            await eventually(lambda: sessions() == len(peers) + 1)
            await asyncio.sleep(0.1)
            for peer in peers:  # here, not in a thread: the loop does not turn
                peer.settimeout(2)
                peer.sendall(b"x")
            site.settle()
            assert await in_thread(lambda: [peer.recv(1) for peer in peers]) == [b"x"] * len(peers)
        server.close()

    site.run(main)


@pytest.mark.trap(
    "6: no event when a half-open connection ends", guard="vppaio/transports/stream.pyx: _look_at_half_open"
)
def test_half_open_connection_that_vpp_gave_up_ends_without_being_used(site: VppSite) -> None:
    async def main() -> None:
        lost = asyncio.get_running_loop().create_future()

        class KeepsOpen(asyncio.Protocol):
            def eof_received(self) -> bool:
                return True

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        server = await asyncio.get_running_loop().create_server(KeepsOpen, site.address, 0)
        with site.connect(port_of(server)) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert isinstance(await asyncio.wait_for(lost, 6), ConnectionResetError)  # VPP waits for 2 s
        server.close()

    site.run(main)


THROUGH_MEMORY = """
import asyncio, hashlib, sys, time, vppaio
from vppaio.vcl import application
config = vppaio.Config()
SIZE = 20 << 20

async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    block = bytes(range(256)) * 4096
    async def send():
        for _ in range(SIZE // len(block)):
            writer.write(block)
            await writer.drain()
    sending = asyncio.create_task(send())
    received = hashlib.sha256()
    left = SIZE
    while left:
        part = await reader.read(min(left, 1 << 20))
        assert part
        received.update(part)
        left -= len(part)
    await sending
    assert received.digest() == hashlib.sha256(block * (SIZE // len(block))).digest()
    writer.close()
    print("same bytes")

application.attach(config, cut_through=True)
vppaio.run(main(), config=config)
"""


@pytest.mark.trap("8: closing a session that was never used", guard="vppaio/vcl/vpp_slots.c: vpp_make_session")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket_that_is_made_and_closed_makes_no_session(site: VppSite, kind: int) -> None:
    """VCL would never free it."""

    async def main() -> None:
        asyncio.get_running_loop().stacks  # noqa: B018  attaches
        before = lib.vppaio_vpp_heap_room()
        for _ in range(20_000):  # of 256 bytes
            sock = vppaio.socket(type=kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            assert sock.getsockname() == ("0.0.0.0", 0)
            if kind == socket.SOCK_STREAM:
                sock.bind((site.address, 0))
            with pytest.raises(OSError, match="not connected"):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        assert lib.vppaio_vpp_heap_room() >= before - 65536

    site.run(main)


@pytest.mark.trap(
    "10: read_segments starves a writer through shared memory", guard="vppaio/vcl/vpp_data.c: vpp_session_read"
)
def test_20_mb_there_and_back_through_shared_memory(site: VppSite) -> None:
    """envoy-vpp#5: receiving without a copy, which VCL's users stumble over. So bytes are copied out of the FIFO."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, site.address, 0)
        done = await in_thread(python, site.vpp, THROUGH_MEMORY, site.address, str(port_of(server)))
        assert "same bytes" in done.stdout
        server.close()

    site.run(main)


AWAY = """
import asyncio, json, sys, time, vppaio

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, sys.argv[1], 4000)
    lost = asyncio.Event()
    loop.add_stack_listener(lambda event: lost.set())
    print("serving", flush=True)
    await lost.wait()
    before, turns = time.process_time(), loop.statistics()["turns"]
    await asyncio.sleep(2)
    print(json.dumps({"cpu": time.process_time() - before, "turns": loop.statistics()["turns"] - turns}), flush=True)
vppaio.run(main())
"""
OUTLIVED = """
import errno, sys, time
from tests.support.driver import NOW, Worker
from vppaio.config import Config
from vppaio.vcl import application
from vppaio.vcl._vcl import lib

application.attach(Config())
worker = Worker(lib.vppaio_vpp_ops())
ops, index = worker.ops, worker.index
listener, bound = worker.listen(sys.argv[1], 4000)

def poll_until(condition):
    while not condition():
        worker.ask(NOW)
        time.sleep(0.01)

print("listening", flush=True)
poll_until(lambda: ops.session_readable(listener) == 2)
print("two are queued", flush=True)
poll_until(lambda: ops.worker_is_detached(index) == 1)
assert worker.accept(listener)[0] == -errno.ENETDOWN
assert ops.session_create(index, 0, 1) == -errno.ENETDOWN
print("away", flush=True)
poll_until(lambda: ops.worker_is_detached(index) == 0)
assert worker.accept(listener)[0] == -errno.ENETDOWN
worker.close_session(listener)
again, _ = worker.listen(sys.argv[1], 4001)
print("back", flush=True)
worker.accepted(again)
print("accepted", flush=True)
"""


@pytest.mark.trap(
    "11: accept while VPP is away, and on a listener that outlived it",
    guard="vppaio/vcl/vpp_session.c: vpp_session_accept",
)
def test_connections_queued_when_vpp_died_are_not_accepted(own_vpp: VppInstance) -> None:
    with Program(own_vpp, OUTLIVED) as program, ExitStack() as peers:
        assert program.hears() == "listening"
        for _ in range(2):
            peers.enter_context(own_vpp.kernel_connect(own_vpp.address, 4000))
        assert program.hears() == "two are queued"
        own_vpp.kill()
        assert program.hears() == "away"
        own_vpp.start()
        assert program.hears() == "back"
        peers.enter_context(own_vpp.kernel_connect(own_vpp.address, 4001))
        assert program.hears() == "accepted"
        program.ends()


@pytest.mark.trap("11: the worker's descriptor is readable for good", guard="vppaio/reactor/poller.pyx: _retry_lost")
def test_while_vpp_is_away_nothing_spins(own_vpp: VppInstance) -> None:
    with Program(own_vpp, AWAY) as program:
        assert program.hears() == "serving"
        own_vpp.kill()
        said = json.loads(program.hears())
        assert said["cpu"] < 0.3  # of 2 s
        assert said["turns"] < 40
        program.ends()


SERVES = (
    ECHO
    + """
async def main():
    loop = asyncio.get_running_loop()
    loop.add_stack_listener(lambda event: print(event.state, flush=True))
    await loop.create_server(Echo, address, 4000)
    print("serving", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
vppaio.run(main())
"""
)


@pytest.mark.trap("beyond: VPP dies with messages for the worker", guard="vppaio/vcl/vpp_descriptors.c: only_the_end")
def test_vpp_that_dies_with_messages_on_their_way_is_lost_and_no_more() -> None:
    """Segments are on their way, and connections that are to use them, and then there is no VPP: one look finds all.

    VCL reads freed memory only if the end is listed first, and seldom dies of it, so this cannot show the fault each
    time; `python -m tests.fuzz api --stack vpp --seed 1000 --first 3508 --seeds 1` died of it in one of six runs."""
    with VppInstance() as vpp, Program(vpp, SERVES, VPPAIO_SEGMENT_SIZE="8M") as program:
        assert program.hears() == "serving"
        for _ in range(5):
            program.process.send_signal(signal.SIGSTOP)
            with ExitStack() as peers:
                for _ in range(60):
                    peers.enter_context(vpp.kernel_connect(vpp.address, 4000)).sendall(b"?" * 10000)
                time.sleep(0.2)  # VPP tells of them
                vpp.kill()
                program.process.send_signal(signal.SIGCONT)
                assert program.hears() == "lost"
            vpp.start()
            assert program.hears() == "restored"
            assert serves(vpp, 4000)
        program.ends()
