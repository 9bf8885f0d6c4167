"""Servers and connections that tests of several folders use, with the kernel's end of each."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any

import pytest

from tests.support.protocols import Echo, Recorder
from tests.support.sites import Site, eventually, in_thread, port_of, receive_all


async def echo_server(stack: Site, port: int = 0) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(Echo, stack.address, port)


def ask(stack: Site, port: int, text: bytes = b"hello") -> bytes:
    """One connection from the kernel's side that is echoed once."""
    with stack.connect(port) as peer:
        peer.sendall(text)
        peer.shutdown(socket.SHUT_WR)
        return receive_all(peer)


def kernel_http(connection: socket.socket) -> None:
    """Keep-alive responses that name the request, until the client closes."""
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            if not (piece := connection.recv(1 << 16)):
                return
            buffer += piece
        head, buffer = buffer.split(b"\r\n\r\n", 1)
        line = head.split(b"\r\n", 1)[0]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line))


class Accepted:
    """A server with one protocol per connection; `connect` returns both ends."""

    def __init__(self, stack: Site, factory: Any = Recorder) -> None:
        self.stack = stack
        self.protocols: list[Any] = []
        self._factory = factory

    async def __aenter__(self) -> Accepted:
        def make() -> Any:
            self.protocols.append(self._factory())
            return self.protocols[-1]

        self.server = await asyncio.get_running_loop().create_server(make, self.stack.address, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def connect(self) -> tuple[Any, socket.socket]:
        have = len(self.protocols)
        peer = await in_thread(self.stack.connect, port_of(self.server))
        # The factory is called a turn before connection_made.
        await eventually(lambda: len(self.protocols) > have and getattr(self.protocols[-1], "transport", True))
        return self.protocols[-1], peer


class Connection(asyncio.Protocol):
    """Half-open when the peer has finished; keeps what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def readable(self) -> bool:
        """What a connection pool asks."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Pair:
    """A connection in either role, and the kernel's end of it."""

    def __init__(self, stack: Site, role: str) -> None:
        self.stack = stack
        self.role = role

    async def __aenter__(self) -> tuple[Connection, socket.socket]:
        loop = asyncio.get_running_loop()
        self.ours = Connection()
        if self.role == "server":
            server = await loop.create_server(lambda: self.ours, self.stack.address, 0)
            self.theirs = await in_thread(self.stack.connect, port_of(server))
            await eventually(lambda: hasattr(self.ours, "transport"))
            server.close()
        else:
            with self.stack.listen() as listener:
                await loop.create_connection(lambda: self.ours, *listener.getsockname())
                self.theirs, _ = await in_thread(listener.accept)
        return self.ours, self.theirs

    async def __aexit__(self, *_: object) -> None:
        self.ours.transport.abort()
        self.theirs.close()


both_roles = pytest.mark.parametrize("role", ["server", "client"])
