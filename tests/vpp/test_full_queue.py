"""VPP does not look, and a burst of messages fills its queue: the loop goes on, VPP finds all when it looks again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.vpp.programs import ECHO, Program, serves
from vppaio.testing.vppinstance import VppInstance

pytestmark = [pytest.mark.vpp, pytest.mark.timeout(60)]
COUNT = 2200  # VPP has no shorter queue than one for 2048
CLOSES_ALL = (
    ECHO
    + """
transports = []

class Kept(Echo):
    def connection_made(self, transport):
        super().connection_made(transport)
        transports.append(transport)

async def main():
    loop = asyncio.get_running_loop()
    loop.add_stack_listener(lambda event: print(event.state, flush=True))
    await loop.create_server(Kept, address, 4000)
    print("serving", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for transport in transports:
        transport.write(b"!")
    for transport in transports:
        transport.close()
    await asyncio.sleep(0)
    print("closed", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
vppaio.run(main())
"""
)


@pytest.fixture(params=["use-private-rx-mqs", ""])
def slow_vpp(request: pytest.FixtureRequest, vpp_installed: None) -> Iterator[VppInstance]:
    """One whose queue is the application's own, with an eventfd, and one with a queue for all, and a mutex."""
    with VppInstance(session=f"{request.param} event-queue-length 2048") as vpp:
        yield vpp


@contextlib.contextmanager
def stuck(vpp: VppInstance) -> Iterator[tuple[Program, list[socket.socket]]]:
    """A program that closes more connections than the queue of a VPP that does not run has room for, and its peers."""
    with (
        Program(vpp, CLOSES_ALL, VPPAIO_EVENT_QUEUE_SIZE="256") as program,
        contextlib.ExitStack() as peers,
    ):
        assert program.hears() == "serving"
        connected = [peers.enter_context(vpp.kernel_connect(vpp.address, 4000)) for _ in range(COUNT)]
        for peer in connected:
            peer.sendall(b"?")
            assert peer.recv(1) == b"?"
        os.kill(vpp.pid, signal.SIGSTOP)
        program.say("close")
        time.sleep(0.5)
        yield program, connected
        assert serves(vpp, 4000)
        program.ends()


def receive_all(peer: socket.socket) -> bytes:
    data = b""
    while part := peer.recv(100):
        data += part
    return data


@pytest.mark.trap(
    "beyond: VCL waits for room, and takes what is to wake VPP", guard="vppaio/vcl/vpp_queue.c: wait_for_room"
)
def test_vpp_that_comes_to_its_queue_late_finds_all_of_it(slow_vpp: VppInstance) -> None:
    with stuck(slow_vpp) as (program, peers):
        assert program.hears() == "closed"
        os.kill(slow_vpp.pid, signal.SIGCONT)
        assert all(receive_all(peer) == b"!" for peer in peers)


def test_vpp_that_never_comes_to_its_queue_is_not_waited_for(slow_vpp: VppInstance) -> None:
    with stuck(slow_vpp) as (program, _):
        assert program.hears() == "closed"
        slow_vpp.kill()
        assert program.hears() == "lost"
        slow_vpp.start()
        assert program.hears() == "restored"


@pytest.mark.trap("beyond: VPP hangs, and its queue is full", guard="vppaio/vcl/vpp_overflow.c: vpp_overflow")
def test_the_process_ends_while_the_queue_of_vpp_is_full(slow_vpp: VppInstance) -> None:
    with Program(slow_vpp, CLOSES_ALL, VPPAIO_EVENT_QUEUE_SIZE="256") as program, contextlib.ExitStack() as peers:
        assert program.hears() == "serving"
        for _ in range(COUNT):
            peer = peers.enter_context(slow_vpp.kernel_connect(slow_vpp.address, 4000))
            peer.sendall(b"?")
            assert peer.recv(1) == b"?"
        os.kill(slow_vpp.pid, signal.SIGSTOP)
        program.say("close")
        assert program.hears() == "closed"
        begin = time.monotonic()
        program.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        program.process.stdin.close()  # a thread may read it, and asyncio waits for its threads
        assert program.process.wait(20) != 0
        assert time.monotonic() - begin < 5
        os.kill(slow_vpp.pid, signal.SIGCONT)
        assert slow_vpp.alive(), slow_vpp.log_tail()
        assert slow_vpp.ctl("show version", timeout=20)  # it has two thousand ends to see to first
        assert slow_vpp.alive(), slow_vpp.log_tail()
