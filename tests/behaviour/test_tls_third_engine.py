"""A kind of engine that vppaio does not know: added in one line, and slow wherever an engine may be."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.sites import Site, in_thread, port_of
from vppaio.tls import engine

ECHOED = bytes(range(256)) * 1000


class Context:
    """A context that is none of ssl's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def wrap_bio(self, *arguments: Any, **named: Any) -> Reluctant:
        return Reluctant(self.context.wrap_bio(*arguments, **named))


class Reluctant:
    """An engine that takes and gives a little at a time, and every third write wants to read first."""

    def __init__(self, inner: ssl.SSLObject) -> None:
        self.inner = inner
        self.writes = 0

    def read(self, size: int, buffer: Any = None) -> Any:
        if buffer is None:
            return self.inner.read(min(size, 1000))
        return self.inner.read(min(size, 1000), buffer)

    def write(self, data: Any) -> int:
        assert data
        self.writes += 1
        if self.writes % 3 == 0 and self.inner.version() == "TLSv1.2":
            raise ssl.SSLWantReadError
        return self.inner.write(data[:500])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def third_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        engine, "KINDS", [*engine.KINDS, lambda context: context if isinstance(context, Context) else None]
    )


class Echo(asyncio.Protocol):
    """Reads all, then answers at once: what is left over after a write has nobody else to write it."""

    def __init__(self, size: int) -> None:
        self.missing = size
        self.heard = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.missing -= len(data)
        if not self.missing:
            self.transport.write(self.heard)


class BufferedEcho(asyncio.BufferedProtocol, Echo):  # type: ignore[misc]
    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(3000)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


@pytest.mark.parametrize("protocol", [Echo, BufferedEcho])
@pytest.mark.parametrize("upgrade", [False, True])
def test_a_third_kind_of_engine_serves(
    stack: Site, certificates: Certificates, third_kind: None, protocol: type[Echo], upgrade: bool
) -> None:
    context = Context(certificates.server())

    def client(port: int) -> bytes:
        with stack.connect(port) as peer:
            with certificates.client().wrap_socket(peer, server_hostname="localhost") as tls:
                tls.sendall(ECHOED)
                answer = b""
                while len(answer) < len(ECHOED):
                    answer += tls.recv(1 << 16)
                return answer

    class Upgrading(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.pause_reading()  # start_tls resumes it
            loop = asyncio.get_running_loop()
            self.upgrading = loop.create_task(self.upgrade(loop, transport))

        async def upgrade(self, loop: Any, transport: Any) -> None:
            echo = protocol(len(ECHOED))
            echo.connection_made(await loop.start_tls(transport, echo, context, server_side=True))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if upgrade:
            server = await loop.create_server(Upgrading, stack.address, 0)
        else:
            server = await loop.create_server(lambda: protocol(len(ECHOED)), stack.address, 0, ssl=context)  # type: ignore[arg-type]
        async with server:
            assert await in_thread(client, port_of(server)) == ECHOED

    stack.run(main)


def test_what_is_no_context_is_refused(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener:
            transport, protocol = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
            with contextlib.closing(transport), pytest.raises(TypeError, match="sslcontext"):
                await loop.start_tls(transport, protocol, object())  # type: ignore[arg-type]

    stack.run(main)
