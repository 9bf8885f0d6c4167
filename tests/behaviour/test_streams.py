"""Streams on both stacks: bytes arrive whole and in order, in both directions, whatever the peer does."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import socket
import threading
import time
from typing import Any

import pytest

from tests.support.connections import Accepted
from tests.support.protocols import BufferedRecorder, Recorder
from tests.support.sites import (
    PATIENCE,
    HostSite,
    Site,
    VppSite,
    eventually,
    in_thread,
    port_of,
    receive_all,
    receive_exactly,
    reset,
)
from vppaio.loop import eventloop
from vppaio.transports.stream import StreamTransport

MEBIBYTE = 1 << 20
BULK = 30 * 1000 * 1000


# ---- both directions -------------------------------------------------------------------------------------------------


def test_streams_server_echoes_and_passes_eof_on(stack: Site) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    def client(port: int) -> bytes:
        with stack.connect(port) as peer:
            peer.sendall(b"hello " * 1000)
            peer.shutdown(socket.SHUT_WR)
            return receive_all(peer)

    async def main() -> None:
        server = await asyncio.start_server(echo, stack.address, 0)
        async with server:
            assert await in_thread(client, port_of(server)) == b"hello " * 1000

    stack.run(main)


def test_streams_client_sends_and_hears(stack: Site) -> None:
    def echo(peer: socket.socket) -> None:
        peer.sendall(receive_all(peer)[::-1])

    async def main() -> None:
        with stack.serve(echo) as server:
            reader, writer = await asyncio.open_connection(*server.address)
            assert writer.get_extra_info("peername") == server.address
            assert writer.get_extra_info("sockname")[0] == stack.address
            writer.write(b"abc" * 1000)
            writer.write_eof()
            assert await reader.read() == b"cba" * 1000
            writer.close()
            await writer.wait_closed()

    stack.run(main)


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_buffered_protocol_gets_every_byte_in_its_own_buffer(stack: Site, size: int) -> None:
    data = random.Random(size).randbytes(300 * min(size, 1000))

    async def main() -> None:
        async with Accepted(stack, lambda: BufferedRecorder(size)) as accepted:
            protocol, peer = await accepted.connect()
            await in_thread(peer.sendall, data)
            await eventually(lambda: len(protocol.heard) == len(data))
            assert protocol.heard == data
            peer.close()
            assert await protocol.lost is None

    stack.run(main)


@pytest.mark.parametrize("factory", [Recorder, lambda: BufferedRecorder(100)])
def test_urgent_data_does_not_hold_back_what_follows(factory: Any) -> None:
    """A read ends at the urgent mark although there is more behind it, of which nothing will tell again."""

    async def main() -> None:
        async with Accepted(HostSite(), factory) as server:
            ours, peer = await server.connect()
            with peer:
                peer.sendall(b"before")
                await eventually(lambda: ours.heard == b"before")
                for number in range(3):  # here, not in a thread: the loop finds all of it at once
                    peer.sendall(b"<")
                    peer.send(b"!", socket.MSG_OOB)
                    peer.sendall(b">")
                    await eventually(lambda: ours.heard == b"before" + b"<>" * (number + 1), limit=2)  # noqa: B023
            await ours.lost

    HostSite().run(main)


def test_stream_that_has_no_nodelay_is_served_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as SCTP's, which not every kernel has: so here a session refuses the option."""

    class Refusing:
        def __init__(self, session: Any) -> None:
            self.session = session

        def set_option(self, *_: int) -> None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    class RefusingWorker:
        def __init__(self, worker: Any) -> None:
            self.adopt_fd = lambda fd: Refusing(worker.adopt_fd(fd))

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        worker = loop._stacks.worker
        monkeypatch.setattr(loop._stacks, "worker", lambda name: RefusingWorker(worker(name)))
        monkeypatch.setattr(
            eventloop, "StreamTransport", lambda loop, refusing, *rest: StreamTransport(loop, refusing.session, *rest)
        )
        with socket.create_server((HostSite.address, 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
        with peer:
            ours.setblocking(False)
            transport, _ = await loop.create_connection(Recorder, sock=ours)
            transport.write(b"hello")
            assert await in_thread(receive_exactly, peer, 5) == b"hello"
            transport.close()

    HostSite().run(main)


def test_writelines_sends_all_pieces_in_order(stack: Site) -> None:
    pieces = [bytes([n % 251]) * (n * 37 % 5000) for n in range(1000)]  # more than one writev takes, some of them empty

    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.writelines(pieces)
            protocol.transport.writelines([])
            protocol.transport.writelines([b"", bytearray(b"the "), memoryview(b"end")])
            protocol.transport.close()
            with peer:
                assert await in_thread(receive_all, peer) == b"".join(pieces) + b"the end"
            assert await protocol.lost is None

    stack.run(main)


# ---- half-close ------------------------------------------------------------------------------------------------------


def test_write_eof_ends_our_half_and_leaves_the_peers(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.write(b"last words")
            protocol.transport.write_eof()
            with peer:
                assert await in_thread(receive_all, peer) == b"last words"
                await in_thread(peer.sendall, b"still here")
                await eventually(lambda: protocol.heard == b"still here")
                with pytest.raises(RuntimeError):
                    protocol.transport.write(b"more")
                assert protocol.news == ["made"]
            assert await protocol.lost is None
            assert protocol.news == ["made", "eof", "lost"]

    stack.run(main)


def test_protocol_that_keeps_open_writes_after_the_peers_fin(stack: Site) -> None:
    data = random.Random(1).randbytes(5 * MEBIBYTE)  # more than the buffers take, so EPOLLOUT has to come after the FIN

    async def main() -> None:
        async with Accepted(stack, lambda: Recorder(keep_open=True)) as accepted:
            protocol, peer = await accepted.connect()
            with peer:
                peer.sendall(b"that was all")
                peer.shutdown(socket.SHUT_WR)
                await eventually(lambda: "eof" in protocol.news)
                assert protocol.heard == b"that was all"
                protocol.transport.write(data)
                protocol.transport.close()
                received = await in_thread(receive_all, peer)
            assert len(received) == len(data)
            assert received == data
            assert await protocol.lost is None

    stack.run(main)


def test_peer_that_closes_with_unread_data_resets_us(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack, lambda: Recorder(keep_open=True)) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.write(b"nobody reads this")
            await in_thread(peer.recv, 1, socket.MSG_PEEK)
            peer.close()  # the kernel sends RST instead of FIN
            exc = await asyncio.wait_for(protocol.lost, PATIENCE)
            assert isinstance(exc, ConnectionResetError)
            assert exc.errno == errno.ECONNRESET

    stack.run(main)


def test_reset_reaches_the_protocol_as_connection_reset(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            reset(peer)
            exc = await asyncio.wait_for(protocol.lost, PATIENCE)
            assert isinstance(exc, ConnectionResetError)
            assert exc.errno == errno.ECONNRESET
            assert protocol.news == ["made", "lost"]

    stack.run(main)


def test_reset_wakes_a_writer_that_waits_for_room(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.write(bytes(20 * MEBIBYTE))
            assert protocol.news == ["made", "pause"]
            reset(peer)
            assert isinstance(await asyncio.wait_for(protocol.lost, PATIENCE), ConnectionResetError)
            assert protocol.transport.get_write_buffer_size() == 0

    stack.run(main)


# ---- the ends --------------------------------------------------------------------------------------------------------


def test_abort_drops_what_is_buffered_and_resets_nothing_twice(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.write(bytes(20 * MEBIBYTE))
            protocol.transport.abort()
            protocol.transport.abort()
            assert protocol.news[-1] == "pause"  # connection_lost comes later, by call_soon
            assert await asyncio.wait_for(protocol.lost, PATIENCE) is None

            def drain() -> int:
                with peer:
                    try:
                        return len(receive_all(peer))
                    except ConnectionResetError:
                        return 0

            assert await in_thread(drain) < 20 * MEBIBYTE

    stack.run(main)


def test_close_sends_what_is_buffered_first(stack: Site) -> None:
    data = random.Random(2).randbytes(10 * MEBIBYTE)

    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.write(data)
            protocol.transport.close()
            assert not protocol.lost.done()
            with peer:
                assert await in_thread(receive_all, peer) == data
            assert await protocol.lost is None

    stack.run(main)


def test_set_protocol_hands_the_connection_over(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            first, peer = await accepted.connect()
            peer.sendall(b"one")
            await eventually(lambda: first.heard == b"one")
            second = BufferedRecorder(16)
            first.transport.set_protocol(second)
            assert first.transport.get_protocol() is second
            peer.sendall(b"two, longer than sixteen bytes")
            await eventually(lambda: second.heard == b"two, longer than sixteen bytes")
            third = Recorder()
            first.transport.set_protocol(third)
            peer.sendall(b"three")
            await eventually(lambda: third.heard == b"three")
            peer.close()
            assert await third.lost is None
            assert first.heard == b"one"
            assert not first.lost.done()

    stack.run(main)


# ---- flow control ----------------------------------------------------------------------------------------------------


def test_paused_reading_holds_the_sender_back(stack: Site) -> None:
    data = random.Random(3).randbytes(40 * MEBIBYTE)

    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            protocol.transport.pause_reading()
            sender = threading.Thread(target=peer.sendall, args=(data,))
            peer.settimeout(None)
            sender.start()
            await asyncio.sleep(0.5)
            assert sender.is_alive()  # buffers are full, not ours
            assert not protocol.heard
            protocol.transport.resume_reading()
            await eventually(lambda: len(protocol.heard) == len(data))
            sender.join()
            assert protocol.heard == data
            peer.close()
            await protocol.lost

    stack.run(main)


def test_writing_above_high_water_pauses_until_low_water(stack: Site) -> None:
    async def main() -> None:
        async with Accepted(stack) as accepted:
            protocol, peer = await accepted.connect()
            transport = protocol.transport
            transport.set_write_buffer_limits(high=100_000, low=50_000)
            assert transport.get_write_buffer_limits() == (50_000, 100_000)
            transport.write(bytes(20 * MEBIBYTE))
            assert transport.get_write_buffer_size() > 100_000
            assert protocol.news == ["made", "pause"]
            await in_thread(receive_exactly, peer, 20 * MEBIBYTE)
            await eventually(lambda: transport.get_write_buffer_size() == 0)
            assert protocol.news == ["made", "pause", "resume"]
            peer.close()
            await protocol.lost

    stack.run(main)


@pytest.mark.trap("4: EPOLLOUT follows an EAGAIN only", guard="vppaio/transports/stream.pyx: _flush")
@pytest.mark.parametrize("role", ["server", "client"])
def test_30_mb_each_way_with_slow_readers(stack: Site, role: str) -> None:
    ours, theirs = random.Random(4).randbytes(BULK), random.Random(5).randbytes(BULK)
    heard: dict[str, str] = {}

    def kernel_end(peer: socket.socket) -> None:
        def read() -> None:
            digest, left, n = hashlib.sha256(), BULK, 0
            while left:
                data = peer.recv(1 << 16)
                assert data, "closed early"
                digest.update(data)
                left -= len(data)
                n += 1
                if n % 64 == 0:
                    time.sleep(0.002)  # slower than the sender
            heard["kernel"] = digest.hexdigest()

        reader = threading.Thread(target=read)
        reader.start()
        peer.sendall(theirs)
        reader.join()

    async def our_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for start in range(0, BULK, 250_007):
                writer.write(ours[start : start + 250_007])
                await writer.drain()

        async def receive() -> None:
            digest, left, n = hashlib.sha256(), BULK, 0
            while left:
                data = await reader.read(1 << 16)
                assert data, "closed early"
                digest.update(data)
                left -= len(data)
                n += 1
                if n % 64 == 0:
                    await asyncio.sleep(0.002)
            heard["loop"] = digest.hexdigest()

        async with asyncio.TaskGroup() as both:
            both.create_task(send())
            both.create_task(receive())
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        if role == "client":
            with stack.serve(kernel_end) as server:
                await our_end(*await asyncio.open_connection(*server.address))
            return
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await our_end(reader, writer)
            except BaseException as error:
                served.set_exception(error)
            else:
                served.set_result(None)

        server = await asyncio.start_server(handle, stack.address, 0)
        async with server:
            with await in_thread(stack.connect, port_of(server)) as peer:
                peer.settimeout(PATIENCE * 2)
                await asyncio.gather(in_thread(kernel_end, peer), served)

    stack.run(main)
    assert heard == {"kernel": hashlib.sha256(ours).hexdigest(), "loop": hashlib.sha256(theirs).hexdigest()}


# ---- FIN and the CLOSE_WAIT timer ------------------------------------------------------------------------------------


def send_and_finish(stack: Site, port: int, data: bytes) -> socket.socket:
    """Send, and close our half. VPP does not answer the FIN once its timer has expired, so nobody waits for it."""
    peer = stack.connect(port)
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    return peer


@pytest.mark.trap("6: 2 s after the FIN unread data is dropped", guard="vppaio/transports/inbound.pyx: drain_to_inbox")
@pytest.mark.parametrize("size", [1, 900_000, 4_000_000])  # the rx FIFO has 1 MiB, so the last FIN waits in the kernel
def test_pausing_3_s_after_the_peers_fin_loses_nothing(stack: Site, size: int) -> None:
    """On VPP the CLOSE_WAIT timer drops what is unread 2 s after the FIN, without an event (docs/vpp.md 5.7)."""
    data = random.Random(size).randbytes(size)

    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async def main() -> None:
        async with Accepted(stack, Paused) as accepted:
            sender = asyncio.create_task(in_thread(send_and_finish, stack, port_of(accepted.server), data))
            await eventually(lambda: accepted.protocols)
            protocol = accepted.protocols[0]
            await asyncio.sleep(3)
            assert protocol.news == ["made"]
            assert not protocol.heard
            protocol.transport.resume_reading()
            await asyncio.wait_for(protocol.lost, PATIENCE)
            assert len(protocol.heard) == size
            assert protocol.heard == data
            assert protocol.news == ["made", "eof", "lost"]
            (await sender).close()

    stack.run(main)


def test_stream_reader_that_is_slow_after_the_fin_reads_everything(stack: Site) -> None:
    data = random.Random(7).randbytes(3_000_000)

    async def main() -> None:
        served: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard = bytearray()
            while piece := await reader.read(50_000):
                heard += piece
                await asyncio.sleep(0.05)  # 3 s in all
            writer.close()
            served.set_result(bytes(heard))

        server = await asyncio.start_server(handle, stack.address, 0)
        async with server:
            peer, heard = await asyncio.gather(in_thread(send_and_finish, stack, port_of(server), data), served)
            peer.close()
            assert heard == data

    stack.run(main)


@pytest.mark.vpp
def test_half_open_for_longer_than_vpp_allows_ends_with_an_error(vpp_site: VppSite) -> None:
    """VPP gives up a connection 2 s after the peer's FIN and says nothing; who writes then has to hear of it."""

    async def main() -> None:
        async with Accepted(vpp_site, lambda: Recorder(keep_open=True)) as accepted:
            protocol, peer = await accepted.connect()
            with peer:
                peer.shutdown(socket.SHUT_WR)
                await eventually(lambda: "eof" in protocol.news)
                await asyncio.sleep(3)
                protocol.transport.write(b"too late")
                exc = await asyncio.wait_for(protocol.lost, PATIENCE)
                assert isinstance(exc, ConnectionResetError)

    vpp_site.run(main)
