"""Strangers on the other side of a transport: TLS records, HTTP that is cut off, datagrams of every size.

A case is a connection, or a datagram, from a plain kernel socket. Afterwards the service must still serve a good
client, hold no session of a stranger, and have reported nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import socket
import ssl
import struct
import tempfile
from pathlib import Path
from typing import Any, Final

import trustme
from aiohttp import web

from tests.fuzz.mutation import corpus, mutate
from tests.support.protocols import DatagramEcho, Echo

PATIENCE_S: Final = 10.0
CHECK_EVERY: Final = 50  # cases
GOOD: Final = b"a good one"
HELLO: Final = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Service:
    """What the targets share: a place, a corpus, the check.

    Args:
        site: where to serve and how strangers get there, see tests/support/sites.py.
    """

    target: str

    def __init__(self, site: Any) -> None:
        self.site = site
        self.seeds = corpus(self.target)
        self.cases = 0
        self.reported: list[str] = []

    async def __aenter__(self) -> Service:
        self.loop: Any = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.reported.append(str(context)))
        self.folder = tempfile.TemporaryDirectory(prefix="vppaio-fuzz-")
        await self.open()
        self.sessions = self.count()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        self.folder.cleanup()

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def send(self, rng: random.Random, data: bytes) -> None:
        raise NotImplementedError

    async def good_client(self) -> None:
        raise NotImplementedError

    def count(self) -> int:
        return sum(stack["sessions"] for stack in self.loop.statistics()["stacks"].values())

    async def case(self, rng: random.Random) -> None:
        await self.send(rng, mutate(rng, self.seeds))
        self.cases += 1
        if self.cases % CHECK_EVERY == 0:
            await self.check()

    async def corpus(self) -> None:
        for number, seed in enumerate(self.seeds):
            await self.send(random.Random(number), seed)
        await self.check()

    async def check(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.good_client()
            while self.count() > self.sessions:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        assert self.reported == []

    # ---- the stranger -------------------------------------------------------------------------------------------

    async def connect(self, port: int) -> socket.socket:
        peer: socket.socket = await asyncio.to_thread(self.site.connect, port)
        return peer

    async def pour(self, rng: random.Random, port: int, data: bytes) -> None:
        """Send in pieces, look at what comes or not, and leave with a FIN or a reset, early or late."""
        peer = await self.connect(port)
        peer.settimeout(0.05)
        with contextlib.suppress(OSError):  # it may throw us out at any byte
            rest = data
            while rest:
                size = rng.choice((len(rest), len(rest), rng.randint(1, len(rest)), 1 + len(rest) // 2))
                peer.send(rest[:size])
                rest = rest[size:]
                await asyncio.sleep(rng.choice((0, 0, 0.001)))
                if rng.random() < 0.1:
                    break
            if rng.random() < 0.3:
                peer.shutdown(socket.SHUT_WR)
            if rng.random() < 0.3:
                await asyncio.to_thread(peer.recv, 65536)
        if rng.random() < 0.4:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()


class Tls(Service):
    """A TLS server: corpus/tls is what clients begin with; half of the cases are real handshakes, bent on their way."""

    target = "tls"

    async def open(self) -> None:
        path = Path(self.folder.name) / "certificate.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        self.server = await self.loop.create_server(Echo, self.site.address, 0, ssl=context, ssl_handshake_timeout=2)
        self.port = self.server.sockets[0].getsockname()[1]
        self.client_context = ssl.create_default_context()
        self.client_context.check_hostname = False
        self.client_context.verify_mode = ssl.CERT_NONE

    async def close(self) -> None:
        self.server.close()

    async def send(self, rng: random.Random, data: bytes) -> None:
        if rng.random() < 0.5:
            await self.pour(rng, self.port, data)
        else:
            await asyncio.to_thread(self.bend, rng, await self.connect(self.port))

    def bend(self, rng: random.Random, peer: socket.socket) -> None:
        """Shake hands, and change what leaves from some point on."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.client_context.wrap_bio(incoming, outgoing)
        spared = rng.choice((0, 1, 1, 2, 3))  # flights
        peer.settimeout(0.05)
        with peer, contextlib.suppress(OSError, ssl.SSLError):
            for flight in range(5):
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    tls.write(rng.randbytes(rng.choice((1, 1000, 20000))))
                data = outgoing.read()
                peer.sendall(mutate(rng, [data]) if flight >= spared else data)
                incoming.write(peer.recv(65536))

    async def good_client(self) -> None:
        def talk() -> bytes:
            with self.client_context.wrap_socket(self.site.connect(self.port)) as peer:
                peer.sendall(b"hello")
                return peer.recv(5)

        assert await asyncio.to_thread(talk) == b"hello"


class Http(Service):
    """aiohttp: requests that are no requests, and connections cut in the middle of good ones."""

    target = "http"

    async def open(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            return web.Response(body=b"x" * 200_000 if request.path == "/large" else body or b"hello")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, keepalive_timeout=1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.site.address, 0)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def close(self) -> None:
        await self.runner.cleanup()

    async def send(self, rng: random.Random, data: bytes) -> None:
        await self.pour(rng, self.port, data)

    async def good_client(self) -> None:
        def talk() -> bytes:
            with self.site.connect(self.port) as peer:
                peer.sendall(HELLO)
                return b"".join(iter(lambda: peer.recv(65536), b""))

        answer = await asyncio.to_thread(talk)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"hello")


class Datagrams(Service):
    """An echo endpoint: datagrams of every size, empty ones and what the stack takes apart included."""

    target = "datagrams"

    async def open(self) -> None:
        self.transport, self.echo = await self.loop.create_datagram_endpoint(
            DatagramEcho, local_addr=(self.site.address, 0)
        )
        self.port = self.transport.get_extra_info("sockname")[1]
        self.peer = self.site.datagrams()
        self.peer.settimeout(0.02)
        self.sent: collections.deque[bytes] = collections.deque(maxlen=200)

    async def close(self) -> None:
        self.transport.close()
        self.peer.close()

    async def send(self, rng: random.Random, data: bytes) -> None:
        size = rng.choice((0, len(data), rng.randrange(1473), rng.randrange(65508), 65535))
        data = data or b"x"
        await asyncio.to_thread(self.exchange, (data * (size // len(data) + 1))[:size])
        assert all(isinstance(error, OSError) for error in self.echo.errors)  # EMSGSIZE of what VPP would split
        self.echo.errors.clear()

    def exchange(self, data: bytes) -> None:
        self.sent.append(data)
        with contextlib.suppress(TimeoutError, OSError):  # lost, or more than the kernel sends
            self.peer.sendto(data, (self.site.address, self.port))
            answer = self.peer.recv(65536)
            assert answer in (GOOD, *self.sent), "not what was sent"  # just now or a little while ago

    async def good_client(self) -> None:
        def talk() -> bool:
            for _ in range(100):
                with contextlib.suppress(TimeoutError):
                    self.peer.sendto(GOOD, (self.site.address, self.port))
                    while self.peer.recv(65536) != GOOD:
                        pass
                    return True
            return False

        answered = await asyncio.to_thread(talk)
        assert answered, f"{self.transport!r} is silent; {self.loop.statistics()['stacks']}; {self.reported}"
