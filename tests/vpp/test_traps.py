"""Traps of VCL that no other test walks into: each shows what stands between a program and the trap.

`pytest --co -m trap` lists all traps with their guards and tests. A test that could take this process down with it runs
in one of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stacks.sites import VppSite, in_thread, port_of
from tests.vppinstance import VppInstance

pytestmark = pytest.mark.vpp
ROOT = Path(__file__).parents[2]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture
def site(vpp_instance: VppInstance) -> VppSite:
    return VppSite(vpp_instance)


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


@pytest.mark.trap("3: parked events do not wake the worker's descriptor", guard="vppaio/reactor/poller.pyx: _ask")
def test_events_that_a_listen_took_out_of_the_queue_are_not_slept_over(site: VppSite) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, site.address, 0)
        with site.connect(port_of(server)) as peer:
            peer.sendall(b"1")
            assert await in_thread(peer.recv, 1) == b"1"
            for _ in range(20):
                peer.sendall(b"2")
                site.settle()  # it is in VCL's queue, and the loop has not turned
                other = await loop.create_server(Echo, site.address, 0, start_serving=False)
                other._start_serving()  # type: ignore[attr-defined]  # listen flushes the queue
                started = time.monotonic()
                assert await in_thread(peer.recv, 1) == b"2"
                assert time.monotonic() - started < 0.5
                other.close()
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


@pytest.mark.trap(
    "10: read_segments starves a writer through shared memory", guard="vppaio/vcl/libvppcom.c: session_read"
)
def test_20_mb_there_and_back_through_shared_memory(site: VppSite) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, site.address, 0)
        done = await in_thread(python, site.vpp, THROUGH_MEMORY, site.address, str(port_of(server)))
        assert "same bytes" in done.stdout
        server.close()

    site.run(main)


AWAY = """
import asyncio, errno, json, sys, time, vppaio
from vppaio.vcl._vcl import ffi, lib

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, sys.argv[1], 4000)
    lost = asyncio.Event()
    loop.add_stack_listener(lambda event: lost.set())
    print("serving", flush=True)
    await lost.wait()
    ops = lib.vppaio_vpp_ops()
    peer = ffi.new("vcl_endpoint *")
    for handle in range(8):  # VCL: SIGSEGV
        assert ops.session_accept(handle, peer) in (-errno.ENETDOWN, -errno.EBADF)
    assert ops.session_create(0, 0, 1) == -errno.ENETDOWN
    before, turns = time.process_time(), loop.statistics()["turns"]
    await asyncio.sleep(2)
    print(json.dumps({"cpu": time.process_time() - before, "turns": loop.statistics()["turns"] - turns}), flush=True)
vppaio.run(main())
"""


@pytest.mark.trap("11: accept while VPP is away", guard="vppaio/vcl/libvppcom.c: session_accept")
@pytest.mark.trap("11: the worker's descriptor is readable for good", guard="vppaio/reactor/poller.pyx: _retry_lost")
def test_while_vpp_is_away_nothing_crashes_and_nothing_spins() -> None:
    if reason := VppInstance.unavailable():
        pytest.skip(reason)
    with VppInstance() as vpp:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "VPPAIO_APP_SOCKET": vpp.app_socket}
        with subprocess.Popen(
            [sys.executable, "-c", AWAY, vpp.address],
            env=environment | {"VPPAIO_STACK": "vpp"},
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "serving\n"
            vpp.kill()
            said = json.loads(program.stdout.readline())
            assert said["cpu"] < 0.3  # of 2 s
            assert said["turns"] < 40
            assert program.wait(10) == 0
