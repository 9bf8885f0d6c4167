"""Resources of VPP and VCL come to their end: new connections are refused with a reason, and the service goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import receive_exactly
from vppaio.config import Config
from vppaio.testing.vppinstance import VppInstance
from vppaio.vcl import vclconf

pytestmark = pytest.mark.vpp

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0
# An echo service that answers questions about itself: "?" and "connect".
SERVICE = """
import asyncio, json, sys, time, vppaio
from vppaio.vcl import application

errors, tasks = [], set()
BLOCK = bytes(range(256)) * 256
SIZE = 2 << 20

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        if data == b"?":
            stack = asyncio.get_running_loop().statistics()["stacks"]["vpp"]
            self.say(room=application.heap_room(), errors=errors, **stack)
        elif data == b"sleep":
            time.sleep(3)
            self.say(slept=3)
        elif data == b"send":
            for _ in range(SIZE // len(BLOCK)):
                self.transport.write(BLOCK)
        elif data == b"connect":
            task = asyncio.get_running_loop().create_task(self.connect())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            self.transport.write(data)
    def say(self, **what):
        self.transport.write(json.dumps(what).encode() + b"\\n")
    async def connect(self):
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(asyncio.Protocol, sys.argv[2], int(sys.argv[3]))
        except OSError as error:
            self.say(errno=error.errno, text=str(error))
        else:
            transport.abort()
            self.say(errno=0, text="")

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: errors.append(str(context.get("exception", context["message"]))))
    server = await loop.create_server(Echo, sys.argv[1], 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

vppaio.run(main())
"""
# Makes many connections at once through shared memory, and one echo on each.
STORM = """
import asyncio, sys, vppaio
from vppaio.vcl import application
config = vppaio.Config()

class Client(asyncio.Protocol):
    def __init__(self):
        self.done = asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        transport.write(b"hello")
    def data_received(self, data):
        self.done.set_result(data)

async def one(loop):
    transport, client = await loop.create_connection(Client, sys.argv[1], int(sys.argv[2]))
    assert await client.done == b"hello"
    return transport

async def main():
    loop = asyncio.get_running_loop()
    for transport in await asyncio.gather(*(one(loop) for _ in range(int(sys.argv[3])))):
        transport.close()

application.attach(config, cut_through=True)
vppaio.run(main(), config=config)
"""


class Service:
    """The program, and the kernel's connections to it."""

    def __init__(self, vpp: VppInstance, process: subprocess.Popen[str], port: int) -> None:
        self.vpp, self.process, self.port = vpp, process, port

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        return self.vpp.kernel_connect(self.vpp.address, self.port, timeout)

    def ask(self, question: bytes) -> Any:
        """On a connection of its own, which stays open until it has answered."""
        with self.connect() as peer:
            return ask(peer, question)


def ask(peer: socket.socket, question: bytes) -> Any:
    peer.sendall(question)
    answer = b""
    while not answer.endswith(b"\n"):
        part = peer.recv(65536)
        assert part, f"closed after {answer!r}"
        answer += part
    return json.loads(answer)


def echoes(peer: socket.socket) -> bool:
    """Whether it is alive: a refused one is reset."""
    try:
        peer.sendall(b"alive?")
        return peer.recv(6) == b"alive?"
    except (ConnectionResetError, BrokenPipeError):
        return False


@contextlib.contextmanager
def service(vpp: VppInstance, conf: Path | None = None, **settings: str) -> Iterator[Service]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VPPAIO_", "VCL_"))}
    environment |= {"PYTHONPATH": str(ROOT), "VPPAIO_STACK": "vpp"} | settings
    environment |= {"VPPAIO_VCL_CONFIG": str(conf)} if conf else {"VPPAIO_APP_SOCKET": vpp.app_socket}
    with vpp.kernel_listen() as nobody:
        command = [sys.executable, "-c", SERVICE, vpp.address, vpp.kernel_address, str(nobody.getsockname()[1])]
        with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                yield Service(vpp, process, int(process.stdout.readline()))
                assert process.poll() is None, f"ended with {process.returncode}"
            finally:
                process.terminate()


@contextlib.contextmanager
def many(running: Service, number: int) -> Iterator[list[socket.socket]]:
    """Up to `number` kernel connections, as many as are not refused at once."""
    with contextlib.ExitStack() as peers:
        made = []
        for _ in range(number):
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                made.append(peers.enter_context(running.connect()))
        yield made


def conf_of(vpp: VppInstance, folder: Path, **changes: str) -> Path:
    """Our own vcl.conf with other values."""
    lines = vclconf.own(Config(app_socket=vpp.app_socket, rx_fifo_size=4096, tx_fifo_size=4096)).splitlines()
    for key, value in changes.items():
        name = key.replace("_", "-")
        lines = [f"  {name} {value}" if line.split()[0] == name else line for line in lines]
    path = folder / "vcl.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.trap("beyond: libvppcom aborts when its heap is used up", guard="vppaio/vcl/vpp_heap.c: vpp_take_slot")
@pytest.mark.timeout(120)
def test_near_the_end_of_the_heap_connections_are_refused_and_served_again_when_others_have_ended(
    vpp_instance: VppInstance, tmp_path: Path
) -> None:
    """libvppcom aborts the process when its heap is used up (guard: vppaio/vcl/vpp_heap.c)."""
    conf = conf_of(vpp_instance, tmp_path, heapsize="4M", event_queue_size="2048")
    with service(vpp_instance, conf) as running:
        with running.connect() as first:
            with many(running, 5000) as peers:
                alive = sum(map(echoes, peers))
                assert 1000 < alive < 5000
                answer = ask(first, b"?")
                assert "heap_size" in answer["errors"][0]
                refused = ask(first, b"connect")
                assert refused["errno"] == errno.ENOMEM
                assert "heap_size" in refused["text"]
            wait_until(lambda: ask(first, b"?")["sessions"] < 10)
            room = ask(first, b"?")["room"]
            for _ in range(2):
                with many(running, 1500) as peers:  # more than one spare slot each would have to grow the pool
                    assert sum(map(echoes, peers)) > 900
                wait_until(lambda: ask(first, b"?")["sessions"] < 10)
            wait_until(lambda: ask(first, b"connect")["errno"] == 0)  # VPP has confirmed the last ends by then
            assert ask(first, b"?")["room"] > room - (64 << 10)


@pytest.mark.trap("beyond: no event after a write without FIFO memory", guard="vppaio/vcl/vpp_data.c: refused_write")
def test_writers_go_on_when_fifo_memory_is_free_again(vpp_instance: VppInstance) -> None:
    """A write that finds no memory for its FIFO: EAGAIN, and no event to follow (guard: vppaio/vcl/libvppcom.c)."""
    size = 2 << 20
    expected = bytes(range(256)) * (size // 256)
    with service(vpp_instance, VPPAIO_SEGMENT_SIZE="8M") as running, many(running, 40) as peers:
        for peer in peers:
            peer.sendall(b"send")  # 80 MB for FIFOs of 1 MB each, all in 8 MB
        time.sleep(0.5)
        found = running.ask(b"?")
        assert found["writes_waiting"] > 30
        assert found["write_starved"] > 0
        with ThreadPoolExecutor(len(peers)) as threads:
            received = list(threads.map(lambda peer: receive_exactly(peer, size), peers))
        assert all(data == expected for data in received)
        found = running.ask(b"?")
        assert found["writes_waiting"] == 0
        assert found["errors"] == []


def test_nothing_is_lost_while_user_code_blocks_the_loop(vpp_instance: VppInstance) -> None:
    """Connections, data and a FIN come while the loop does not turn for 3 s, longer than VPP's CLOSE_WAIT timer."""
    with service(vpp_instance) as running, running.connect() as sleeper:
        with contextlib.ExitStack() as peers:
            before = [peers.enter_context(running.connect()) for _ in range(20)]
            assert all(map(echoes, before))
            sleeper.sendall(b"sleep")
            time.sleep(0.3)
            for number, peer in enumerate(before):
                peer.sendall(b"%06d" % number)
            during = [peers.enter_context(running.connect()) for _ in range(300)]
            for number, peer in enumerate(during):
                peer.sendall(b"%06d" % number)
            gone = running.connect()
            gone.sendall(b"farewell")
            gone.close()
            assert ask(sleeper, b"") == {"slept": 3}
            for crowd in (before, during):
                assert [peer.recv(6) for peer in crowd] == [b"%06d" % number for number in range(len(crowd))]
        wait_until(lambda: running.ask(b"?")["sessions"] == 3)  # the listener, the sleeper and who asks
        assert running.ask(b"?")["errors"] == []


def test_a_thousand_connections_at_once_through_shared_memory(vpp_instance: VppInstance) -> None:
    """Each is several events; VPP refuses connections while a queue is full."""
    with service(vpp_instance) as running:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "VPPAIO_APP_SOCKET": vpp_instance.app_socket}
        command = [sys.executable, "-c", STORM, vpp_instance.address, str(running.port), "1000"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert running.ask(b"?")["errors"] == []
