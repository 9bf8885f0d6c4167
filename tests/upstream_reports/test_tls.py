"""Complaints about TLS: downloads that do not end, noise, memory, bytes and ends that get lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import struct
import time
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.protocols import Recorder
from tests.support.sites import Site, eventually, in_thread, port_of, receive_all, reset
from vppaio.tls.protocol import TlsProtocol


class Served:
    """A TLS server with one protocol per connection, and a TLS client's socket for each."""

    def __init__(self, stack: Site, certificates: Certificates, factory: Any = Recorder) -> None:
        self.stack = stack
        self.certificates = certificates
        self.protocols: list[Any] = []
        self._factory = factory

    async def __aenter__(self) -> Served:
        def make() -> Any:
            self.protocols.append(self._factory())
            return self.protocols[-1]

        self.server = await asyncio.get_running_loop().create_server(
            make, self.stack.address, 0, ssl=self.certificates.server()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def connect(self) -> tuple[Any, ssl.SSLSocket]:
        def shake_hands() -> ssl.SSLSocket:
            peer = self.stack.connect(port_of(self.server))
            return self.certificates.client().wrap_socket(peer, server_hostname="localhost")

        tls = await in_thread(shake_hands)
        await eventually(lambda: self.protocols and self.protocols[-1].transport)
        return self.protocols[-1], tls


def test_closing_does_not_go_on_downloading(stack: Site, certificates: Certificates) -> None:
    """uvloop#471, aiohttp#6762: a peer that keeps sending held a closed connection until the timeout of 30 s."""

    async def main() -> None:
        async with Served(stack, certificates) as served:
            ours, tls = await served.connect()

            def send_on() -> int:
                sent = 0
                with contextlib.suppress(OSError):
                    while True:
                        sent += tls.send(bytes(1 << 16))
                return sent

            sending = asyncio.create_task(in_thread(send_on))
            await eventually(lambda: len(ours.heard) > 1 << 20)
            started = time.monotonic()
            ours.transport.close()
            await ours.lost
            assert time.monotonic() - started < 5
            await sending
            tls.close()

    stack.run(main)


@pytest.mark.parametrize("keep_open", [False, True])
def test_eof_is_not_kept_from_the_protocol(stack: Site, certificates: Certificates, keep_open: bool) -> None:
    """uvloop#385: eof_received is called, and its result ignored."""

    async def main() -> None:
        async with Served(stack, certificates, lambda: Recorder(keep_open)) as served:
            ours, tls = await served.connect()
            tls.sendall(b"all")
            (await in_thread(tls.unwrap)).close()
            assert await ours.lost is None
            assert ours.heard == b"all"
            assert ours.news == ["made", "eof", "lost"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            logging.getLogger("asyncio"), "disabled", True
        )  # "returning true from eof_received() has no effect"
        stack.run(main)


def test_connections_do_not_outlive_their_end_in_memory(stack: Site, certificates: Certificates) -> None:
    """uvloop#565, #220 and #237, cpython gh-109534; and none holds asyncio's 256 KiB read buffer."""

    def alive() -> list[TlsProtocol]:
        return [item for item in gc.get_objects() if type(item) is TlsProtocol]

    async def main() -> None:
        async with Served(stack, certificates) as served:
            for how in ("close", "reset", "abort"):
                for _ in range(10):
                    ours, tls = await served.connect()
                    assert not any(isinstance(value, bytearray) and value for value in vars(alive()[0]).values())
                    if how == "reset":
                        reset(tls)
                    else:
                        getattr(ours.transport, how)()
                        tls.close()
                    await ours.lost
                    served.protocols.clear()
            del ours
            await asyncio.sleep(0.05)
            gc.collect()
            assert not alive()

    stack.run(main)


def test_shutting_down_twice_does_not_raise(stack: Site, certificates: Certificates) -> None:
    """uvloop#255: "NoneType has no attribute cancel"."""

    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with Served(stack, certificates) as served:
            for ways in (("close", "close"), ("close", "abort"), ("abort", "abort"), ("abort", "close")):
                ours, tls = await served.connect()
                for way in ways:
                    getattr(ours.transport, way)()
                tls.close()
                await ours.lost
                for way in ways:
                    getattr(ours.transport, way)()
        assert not problems

    stack.run(main)


@pytest.mark.parametrize("act", ["pause_reading", "close", "abort", "write"])
def test_calls_from_data_received_do_not_trip_over_themselves(
    stack: Site, certificates: Certificates, act: str
) -> None:
    """picows#40: an IndexError in sslproto, from what a protocol did in its callback."""

    class Acting(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if act == "write":
                self.transport.write(data)
            elif not self.transport.is_closing():
                getattr(self.transport, act)()
                asyncio.get_running_loop().call_later(0.01, self.transport.resume_reading)

    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with Served(stack, certificates, Acting) as served:
            ours, tls = await served.connect()
            # Many records in one read.
            with contextlib.suppress(OSError):
                await in_thread(tls.sendall, bytes(100_000))
            if act in ("pause_reading", "write"):
                await eventually(lambda: len(ours.heard) == 100_000)
            ours.transport.close()
            with contextlib.suppress(OSError):
                await in_thread(receive_all, tls)
            tls.close()
            await ours.lost
        assert not problems

    stack.run(main)


@pytest.mark.parametrize("moment", ["handshake", "data"])
def test_connection_resets_are_no_noise(
    stack: Site, certificates: Certificates, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """cpython#257, zuvloop#174: for debug mode only."""

    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with Served(stack, certificates) as served:
            if moment == "data":
                ours, tls = await served.connect()
                reset(tls)
                assert isinstance(await ours.lost, ConnectionResetError)
            else:
                peer = await in_thread(stack.connect, port_of(served.server))
                await asyncio.sleep(0.05)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                await asyncio.sleep(0.05)
        assert not problems

    with caplog.at_level(logging.INFO):
        stack.run(main)
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_bytes_that_came_before_start_tls_are_not_lost(stack: Site, certificates: Certificates, size: int) -> None:
    """zuvloop#85: a client sends its handshake right behind STARTTLS, and the reader has it already."""

    async def main() -> None:
        async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            await eventually(lambda: len(reader._buffer) >= min(size, hello))  # type: ignore[attr-defined]
            await writer.start_tls(certificates.server())
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(upgrade, stack.address, 0) as server:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = certificates.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            first = outgoing.read()
            hello = len(first)

            def converse(peer: socket.socket) -> bytes:
                """The rest of the handshake, and one line."""
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        incoming.write(peer.recv(1 << 16))
                tls.write(b"line\n")
                peer.sendall(outgoing.read())
                while True:
                    try:
                        return tls.read(100)
                    except ssl.SSLWantReadError:
                        incoming.write(peer.recv(1 << 16))

            with stack.connect(port_of(server)) as peer:
                peer.sendall(b"STARTTLS\n" + first[:size])
                await asyncio.sleep(0.1)
                if rest := first[size:]:
                    peer.sendall(rest)
                assert await in_thread(converse, peer) == b"line\n"

    stack.run(main)
