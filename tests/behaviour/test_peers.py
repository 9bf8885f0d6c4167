"""Peers that misbehave: they reset at any moment, vanish, never read, and come by the thousand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.protocols import Echo
from tests.support.sites import (
    Site,
    VppSite,
    eventually,
    in_thread,
    port_of,
    receive_all,
    receive_exactly,
    reset,
    sessions,
)

TCP_REPAIR = 19  # linux/tcp.h: a socket closed while it is on says nothing to its peer
BIG = 20 << 20  # bytes: more than both ends' buffers hold


class Recorder(asyncio.Protocol):
    """What a server's end hears; `made` is called with it once it is connected."""

    def __init__(self, made: Callable[[Recorder], None]) -> None:
        self.made = made
        self.received = bytearray()
        self.paused = False
        self.eof = False
        self.keeps_open = False
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made(self)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.eof = True
        return self.keeps_open

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def recorded(stack: Site, made: Callable[[Recorder], None] = lambda end: None) -> tuple[Any, list[Recorder]]:
    """A server, and its ends in the order of their connections."""
    ends: list[Recorder] = []

    def keep(end: Recorder) -> None:
        ends.append(end)
        made(end)

    return await asyncio.get_running_loop().create_server(lambda: Recorder(keep), stack.address, 0), ends


# ---- resets ----------------------------------------------------------------------------------------------------------


def keep_open(end: Recorder) -> None:
    end.keeps_open = True


STATES: dict[str, Callable[[Recorder], object]] = {
    "idle": lambda end: None,
    "paused": lambda end: end.transport.pause_reading(),
    "writing": lambda end: end.transport.write(bytes(BIG)),
    "paused and writing": lambda end: (end.transport.pause_reading(), end.transport.write(bytes(BIG))),
    "half-closed by us": lambda end: end.transport.write_eof(),
    "writing, then half-closed by us": lambda end: (end.transport.write(bytes(BIG)), end.transport.write_eof()),
    "half-closed by the peer": keep_open,
    "closing with bytes left": lambda end: (end.transport.write(bytes(BIG)), end.transport.close()),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("unread", [False, True], ids=["", "unread"])
def test_reset_in_every_state_ends_the_connection_once(stack: Site, state: str, unread: bool) -> None:
    async def main() -> None:
        server, ends = await recorded(stack, lambda end: STATES[state](end))
        peer = stack.connect(port_of(server))
        await eventually(lambda: ends)
        if state == "half-closed by the peer":
            peer.shutdown(socket.SHUT_WR)
            await eventually(lambda: ends[0].eof)
        elif unread:
            peer.sendall(b"x" * 1000)
        reset(peer)
        stack.settle()
        # As in asyncio, who does not read and does not write hears nothing of it.
        if state == "paused":
            ends[0].transport.resume_reading()
        elif state == "half-closed by the peer":
            ends[0].transport.write(b"x")
        await eventually(lambda: ends[0].lost)
        await asyncio.sleep(0.02)
        assert len(ends[0].lost) == 1
        assert isinstance(ends[0].lost[0], ConnectionResetError | BrokenPipeError | None)
        if state in ("writing", "paused and writing"):
            assert ends[0].lost[0] is not None
        server.close()

    stack.run(main)


def test_reset_before_we_have_accepted(stack: Site) -> None:
    async def main() -> None:
        server, ends = await recorded(stack)
        for _ in range(20):  # the loop does not turn meanwhile
            reset(stack.connect(port_of(server)))
        stack.settle()
        with stack.connect(port_of(server)) as good:
            await in_thread(good.sendall, b"hello")
            await eventually(lambda: any(end.received == b"hello" for end in ends))
            await eventually(lambda: sum(not end.lost for end in ends) == 1)
        server.close()

    stack.run(main)


# ---- silence ---------------------------------------------------------------------------------------------------------


def vanish(peer: socket.socket) -> None:
    """End the peer's connection without a word, as a power cut does."""
    try:
        peer.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("TCP_REPAIR needs CAP_NET_ADMIN")
    peer.close()


def test_peer_that_vanished_is_noticed_by_the_next_write(stack: Site) -> None:
    async def main() -> None:
        server, ends = await recorded(stack)
        peer = stack.connect(port_of(server))
        await eventually(lambda: ends)
        vanish(peer)
        await asyncio.sleep(0.1)
        assert ends[0].lost == []
        ends[0].transport.write(b"are you there?")
        await eventually(lambda: ends[0].lost)
        assert isinstance(ends[0].lost[0], ConnectionResetError)
        server.close()

    stack.run(main)


def test_peer_that_never_reads_costs_what_the_writer_lets_pile_up(stack: Site) -> None:
    async def main() -> None:
        server, ends = await recorded(stack)
        with stack.connect(port_of(server)):
            end = (await eventually(lambda: ends))[0]
            written = 0
            while not end.paused:
                end.transport.write(bytes(65536))
                written += 65536
                assert written < 64 << 20
            before = end.transport.get_write_buffer_size()
            assert before <= 2 * 65536
            await asyncio.sleep(0.3)
            assert end.transport.get_write_buffer_size() <= before
            assert end.lost == []
            end.transport.abort()  # closing would wait for the peer
            await eventually(lambda: end.lost)
            assert end.lost == [None]
        server.close()

    stack.run(main)


# ---- crowds ----------------------------------------------------------------------------------------------------------


def test_2000_connections_while_nobody_accepts(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, stack.address, 0, backlog=4096)
        with contextlib.ExitStack() as peers:
            # Here, not in a thread: the loop does not turn.
            crowd = [peers.enter_context(stack.connect(port_of(server))) for _ in range(2000)]
            for number, peer in enumerate(crowd):
                peer.sendall(b"%06d" % number)
            answers = await in_thread(lambda: [receive_exactly(peer, 6) for peer in crowd])
            assert answers == [b"%06d" % number for number in range(len(crowd))]
        await eventually(lambda: sessions() == 1)
        server.close()

    stack.run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_flood_of_connections_leaves_room_for_others(stack: Site, how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, stack.address, 0)
        port = port_of(server)
        stop = threading.Event()
        made = [0] * 3

        def flood(number: int) -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    peer = stack.connect(port, timeout=1)
                    peer.send(b"x" * (made[number] % 2))
                    peer.close() if how == "close" else reset(peer)
                    made[number] += 1

        with stack.connect(port) as peer:
            floods = [loop.create_task(in_thread(flood, number)) for number in range(len(made))]
            slowest = 0.0
            try:
                for _ in range(100):
                    started = time.monotonic()
                    await in_thread(peer.sendall, b"hello")
                    assert await in_thread(receive_exactly, peer, 5) == b"hello"
                    slowest = max(slowest, time.monotonic() - started)
                    await asyncio.sleep(0.01)
            finally:
                stop.set()
                await asyncio.gather(*floods)
            # Together: the backlog overflows, and whose SYN is dropped waits a second.
            assert sum(made) > 30
            assert slowest < 2.0
            await eventually(lambda: sessions() == 2)
        server.close()

    stack.run(main)


# ---- through shared memory -------------------------------------------------------------------------------------------

HALF_CLOSES = """
import asyncio, sys, vppaio
from vppaio.vcl import application
config = vppaio.Config()

async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    writer.write(bytes(range(256)) * 1000)
    writer.write_eof()
    await writer.drain()
    print("half-closed", flush=True)
    sys.stdin.readline()
    writer.close()
    await writer.wait_closed()

application.attach(config, cut_through=True)
vppaio.run(main(), config=config)
"""


def test_half_close_through_shared_memory_is_seen_when_the_peer_closes(vpp_site: VppSite) -> None:
    """VPP has no half-close there (docs/vpp.md 5.7): nothing is lost, but the end comes with the close."""
    stack = vpp_site

    async def main() -> None:
        server, ends = await recorded(stack)
        with stack.python("-c", HALF_CLOSES, stack.address, str(port_of(server)), stdin=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert await in_thread(program.stdout.readline) == "half-closed\n"
            await eventually(lambda: ends and len(ends[0].received) == 256_000)
            await asyncio.sleep(0.3)
            assert not ends[0].eof
            await in_thread(program.communicate, "\n")
            assert program.returncode == 0
        await eventually(lambda: ends[0].lost)
        assert ends[0].eof
        assert bytes(ends[0].received) == bytes(range(256)) * 1000
        server.close()

    stack.run(main)


# ---- what is kept for who does not read ------------------------------------------------------------------------------


def test_what_a_paused_reader_keeps_after_the_fin_is_bounded_by_the_fifo(stack: Site) -> None:
    """The FIN comes behind the bytes, so when it has come there are no more of them than the FIFO holds."""

    async def main() -> None:
        server, ends = await recorded(stack, lambda end: end.transport.pause_reading())
        with stack.connect(port_of(server), timeout=30) as peer:
            end = (await eventually(lambda: ends))[0]
            content = bytes(range(256)) * (3 << 12)  # 3 MiB

            def send() -> None:
                peer.sendall(content)
                peer.shutdown(socket.SHUT_WR)

            sending = asyncio.create_task(in_thread(send))
            await asyncio.sleep(0.5)
            kept = asyncio.get_running_loop().statistics()["stacks"][stack.name]["read_bytes"]  # type: ignore[attr-defined]
            assert kept <= stack.config.rx_fifo_size
            end.transport.resume_reading()
            await sending
            await eventually(lambda: end.eof)
            assert bytes(end.received) == content
            assert await in_thread(receive_all, peer) == b""
        server.close()

    stack.run(main)
