"""When the first data comes: asyncio introduces a transport in one turn of the loop and reads in the next.

What goes on in between, and in which order, is compared with asyncio itself, turn by turn, for every way in which a
transport is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import trustme

import vppaio
from tests.support.sites import HostSite, Site, eventually

TURNS: Final = 9  # of the loop, that are written down from the moment on that the protocol is made
GREETING: Final = b"welcome"

# What connection_made does, and whoever waited for the connection when it goes on.
IN_MADE: Final = ("nothing", "task", "call_soon", "pause", "pause and resume", "set_protocol", "raise")
AFTER: Final = (
    "nothing", "set_protocol", "task", "pause and resume", "set_protocol in a task", "pause, set_protocol, resume",
)  # fmt: skip
SENT: Final = ("before", "in the factory", "in connection_made")  # the greeting


class Trace:
    """What happened, with a mark between the turns of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, in_made: str, after: str, greet: Callable[[str], None]) -> None:
        self.loop = loop
        self.in_made, self.after = in_made, after
        self.greet = greet
        self.seen: list[str] = []
        self.transport: Any = None
        self.tasks: list[asyncio.Task[None]] = []
        self.ended = loop.create_future()
        self.kind: type[Recorder] = Plain

    def note(self, what: str) -> None:
        self.seen.append(what)

    def protocol(self) -> Recorder:
        """The factory."""
        self.note("made")
        self.turn(TURNS)
        self.greet("in the factory")
        return self.kind(self, "first")

    def turn(self, left: int) -> None:
        self.note("-")
        if left:
            self.loop.call_soon(self.turn, left - 1)
        else:
            self.ended.set_result(None)

    def act(self, what: str) -> None:
        transport = self.transport
        if what == "call_soon":
            self.loop.call_soon(self.note, "soon")
        elif what == "pause":
            transport.pause_reading()
            self.loop.call_soon(lambda: self.loop.call_soon(transport.resume_reading))
        elif what == "pause and resume":
            transport.pause_reading()
            transport.resume_reading()
        elif what == "set_protocol":
            transport.set_protocol(self.kind(self, "second"))
        elif what == "task":
            self.tasks.append(self.loop.create_task(self.go_on("task")))
        elif what == "set_protocol in a task":
            self.tasks.append(self.loop.create_task(self.go_on("set_protocol")))
        elif what == "pause, set_protocol, resume":
            transport.pause_reading()
            self.loop.call_soon(self.act, "set_protocol")
            self.loop.call_soon(transport.resume_reading)
        elif what == "raise":
            raise ZeroDivisionError

    async def go_on(self, what: str) -> None:
        self.note("task goes on")
        if what == "set_protocol":
            self.act(what)
        await asyncio.sleep(0)
        self.note("task ends")


class Recorder(asyncio.BaseProtocol):
    def __init__(self, trace: Trace, name: str) -> None:
        self.trace, self.name = trace, name

    def connection_made(self, transport: Any) -> None:
        self.trace.transport = transport
        self.trace.note("connection_made")
        self.trace.greet("in connection_made")
        self.trace.act(self.trace.in_made)

    def got(self, data: bytes) -> None:
        self.trace.note(f"{self.name} got {data!r}")


class Plain(Recorder, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.got(data)


class Buffered(Recorder, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(100)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got(bytes(self.buffer[:nbytes]))


class Datagrams(Recorder, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address: Any) -> None:
        self.got(data)


class Case:
    """One way to make a transport, with one reaction at each point.

    Args:
        site: the kernel's end, and the addresses of both.
        ours: whether the loop is vppaio's.
    """

    def __init__(self, site: Site, ours: bool, in_made: str, after: str, sent: str) -> None:
        self.site, self.ours, self.sent = site, ours, sent
        self.peer: Any = None
        self.say: Callable[[], object] = lambda: self.peer.sendall(GREETING)
        self.loop = asyncio.get_running_loop()
        self.trace = Trace(self.loop, in_made, after, self.greet)

    def greet(self, moment: str) -> None:
        if moment == self.sent and self.peer is not None:
            self.say()
            self.site.settle()

    @contextlib.contextmanager
    def listening(self) -> Iterator[tuple[str, int]]:
        """A kernel listener; the peer is its first connection, taken when the protocol is made."""
        with self.site.listen() as listener:
            protocol = self.trace.protocol

            def made() -> Recorder:
                self.peer = listener.accept()[0]
                self.greet("before")
                return protocol()

            self.trace.protocol = made  # type: ignore[method-assign]
            yield listener.getsockname()[:2]

    def dial(self, port: int) -> None:
        self.peer = self.site.connect(port)
        self.greet("before")

    def socket(self, kind: int = socket.SOCK_STREAM) -> Any:
        """The stack's own socket, or the kernel's."""
        if self.ours:
            return vppaio.socket(type=kind)
        made = socket.socket(type=kind)
        made.setblocking(False)
        return made

    async def connected_socket(self, address: Any) -> Any:
        sock = self.socket()
        await self.loop.sock_connect(sock, address)
        return sock

    async def connect(self) -> None:
        with self.listening() as address:
            await self.loop.create_connection(self.trace.protocol, *address)
            self.connected()

    async def connect_a_socket(self) -> None:
        with self.listening() as address:
            sock = await self.connected_socket(address)
            await self.loop.create_connection(self.trace.protocol, sock=sock)
            self.connected()

    async def connect_a_kernel_socket(self) -> None:
        with self.listening() as address:
            sock = socket.socket()
            sock.setblocking(False)
            await self.loop.sock_connect(sock, address)
            await self.loop.create_connection(self.trace.protocol, sock=sock)
            self.connected()

    async def accept(self) -> None:
        server = await self.loop.create_server(lambda: self.trace.protocol(), self.site.address, 0)
        self.dial(server.sockets[0].getsockname()[1])
        await self.trace.ended
        server.close()

    async def accept_by_socket(self) -> None:
        listener = self.socket()
        listener.bind((self.site.address, 0))
        listener.listen()
        self.dial(listener.getsockname()[1])
        sock, _ = await self.loop.sock_accept(listener)
        listener.close()
        await self.loop.connect_accepted_socket(self.trace.protocol, sock)
        self.connected()

    async def datagrams(self, **endpoint: Any) -> None:
        """An endpoint whose peer sends to its address."""
        self.trace.kind = Datagrams
        peer = self.site.datagrams()
        if "remote_addr" in endpoint:
            endpoint["remote_addr"] = peer.getsockname()
        port = endpoint["local_addr"][1] if "local_addr" in endpoint else endpoint["sock"].getsockname()[1]
        self.say = lambda: peer.sendto(GREETING, (self.site.address, port))
        self.peer = peer
        self.greet("before")
        await self.loop.create_datagram_endpoint(self.trace.protocol, **endpoint)
        self.connected()

    async def bound_datagrams(self) -> None:
        await self.datagrams(local_addr=(self.site.address, free_port(self.site)))

    async def connected_datagrams(self) -> None:
        await self.datagrams(local_addr=(self.site.address, free_port(self.site)), remote_addr=())

    async def datagram_socket(self) -> None:
        sock = self.socket(socket.SOCK_DGRAM)
        sock.bind((self.site.address, 0))
        await self.datagrams(sock=sock)

    # ---- TLS: the peer's greeting comes in one segment with the end of its handshake ---------------------------------

    def shake_hands(self, server_side: bool) -> threading.Thread:
        """Let the peer do so, in a thread, and greet."""

        def shake() -> None:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = TLS.server() if server_side else TLS.client()
            # Who sends the last flight is the server up to TLS 1.2, the client from then on.
            version = ssl.TLSVersion.TLSv1_2 if server_side else ssl.TLSVersion.TLSv1_3
            context.minimum_version = context.maximum_version = version
            tls = context.wrap_bio(incoming, outgoing, server_side, None if server_side else NAME)
            self.peer.settimeout(10)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self.peer.sendall(outgoing.read())
                    incoming.write(self.peer.recv(1 << 16))
            tls.write(GREETING)
            self.peer.sendall(outgoing.read())

        thread = threading.Thread(target=shake, daemon=True)
        thread.start()
        return thread

    def made_by_start_tls(self) -> Recorder:
        """A protocol that does nothing before."""
        return self.trace.kind(Trace(self.loop, "nothing", "nothing", lambda moment: None), "first")

    async def start_tls(self, transport: Any, protocol: Any, context: ssl.SSLContext, **options: Any) -> None:
        protocol.trace = self.trace
        self.trace.transport = transport
        self.trace.transport = await self.loop.start_tls(transport, protocol, context, **options)
        self.connected()

    async def tls_connect(self) -> None:
        with self.site.listen() as listener:

            def made() -> Recorder:
                self.peer = listener.accept()[0]
                self.shake_hands(server_side=True)
                return self.trace.kind(self.trace, "first")

            await self.loop.create_connection(made, *listener.getsockname()[:2], ssl=TLS.client(), server_hostname=NAME)
            self.connected()

    async def start_tls_as_client(self) -> None:
        with self.site.listen() as listener:
            transport, protocol = await self.loop.create_connection(self.made_by_start_tls, *listener.getsockname()[:2])
            self.peer = listener.accept()[0]
            self.shake_hands(server_side=True)
            await self.start_tls(transport, protocol, TLS.client(), server_hostname=NAME)

    async def tls_accept(self) -> None:
        server = await self.loop.create_server(
            lambda: self.trace.kind(self.trace, "first"), self.site.address, 0, ssl=TLS.server()
        )
        self.dial(server.sockets[0].getsockname()[1])
        self.shake_hands(server_side=False)
        await eventually(lambda: self.trace.transport is not None)
        server.close()

    async def start_tls_as_server(self) -> None:
        protocols: list[Recorder] = []

        def made() -> Recorder:
            protocols.append(self.made_by_start_tls())
            return protocols[0]

        server = await self.loop.create_server(made, self.site.address, 0)
        self.dial(server.sockets[0].getsockname()[1])
        await eventually(lambda: protocols and protocols[0].trace.transport is not None)
        server.close()
        self.shake_hands(server_side=False)
        await self.start_tls(protocols[0].trace.transport, protocols[0], TLS.server(), server_side=True)

    def connected(self) -> None:
        self.trace.note("connected")
        self.trace.act(self.trace.after)

    async def play(self, way: str, kind: type[Recorder]) -> list[str]:
        self.trace.kind = kind
        self.loop.set_exception_handler(lambda loop, context: self.trace.note(type(context["exception"]).__name__))
        try:
            await getattr(self, way)()
            if "tls" in way:
                await eventually(lambda: any("got" in entry for entry in self.trace.seen))
                self.trace.turn(3)
            await self.trace.ended
        finally:
            self.loop.set_exception_handler(None)
            if self.trace.transport is not None:
                self.trace.transport.abort()
            if self.peer is not None:
                self.peer.close()
            await asyncio.gather(*self.trace.tasks)
            await asyncio.sleep(0)
        # How many turns a handshake takes is the network's.
        return [entry for entry in self.trace.seen if entry != "-" or "tls" not in way]


def free_port(site: Site) -> int:
    with site.datagrams() as sock:
        port: int = sock.getsockname()[1]
        return port


class Tls:
    """Contexts of both sides."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert(NAME)

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


NAME: Final = "vppaio.test"
TLS: Final = Tls()
STREAMS: Final = ("connect", "connect_a_socket", "connect_a_kernel_socket", "accept", "accept_by_socket")
TLS_STREAMS: Final = ("tls_connect", "tls_accept", "start_tls_as_client", "start_tls_as_server")
DATAGRAMS: Final = ("bound_datagrams", "connected_datagrams", "datagram_socket")


def cases() -> Iterator[tuple[str, type[Recorder], str, str, str]]:
    for way in STREAMS + DATAGRAMS:
        for kind in (Plain, Buffered) if way in STREAMS else (Datagrams,):
            # An accepted connection has nobody who waits for it.
            for in_made, after, sent in itertools.product(IN_MADE, ("nothing",) if way == "accept" else AFTER, SENT):
                if way in DATAGRAMS and ("pause" in in_made or "pause" in after):
                    continue  # asyncio's interface has it for streams only
                if sent == "before" and way in ("bound_datagrams", "connected_datagrams"):
                    continue  # nobody has the address yet
                yield way, kind, in_made, after, sent
    for way in TLS_STREAMS:
        for in_made, after in itertools.product(IN_MADE, AFTER):
            # A handshake fails with connection_made; an accepted connection has nobody who waits for it, and start_tls
            # does not call it.
            if in_made != "raise" and not (way == "tls_accept" and after != "nothing"):
                if not ("start_tls" in way and in_made != "nothing"):
                    yield way, Plain, in_made, after, "with the handshake"


def play_all(loop_factory: Callable[[], Any], site: Site, ours: bool, chosen: list[Any]) -> list[list[str]]:
    async def main() -> list[list[str]]:
        traces = []
        for way, kind, *reactions in chosen:
            traces.append(await Case(site, ours, *reactions).play(way, kind))
        return traces

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


def compare(stack: Site, chosen: list[Any]) -> None:
    expected = play_all(asyncio.SelectorEventLoop, HostSite(), False, chosen)
    seen = play_all(lambda: vppaio.new_event_loop(stack.config), stack, True, chosen)
    for case, theirs, ours in zip(chosen, expected, seen, strict=True):
        assert sum("got" in entry for entry in theirs) == 1, case  # or it would show nothing
        assert ours == theirs, case
    print(f"{len(chosen)} cases on {stack.name}")


@pytest.mark.parametrize("way", STREAMS + TLS_STREAMS + DATAGRAMS)
def test_no_data_before_those_that_the_connection_woke(stack: Site, way: str) -> None:
    compare(stack, [case for case in cases() if case[0] == way])


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio's own, which it leaves to be freed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_factory_that_fails_goes_unreported(stack: Site) -> None:
    """asyncio tells of it in debug mode only: differences.md. The connection ends on both."""

    async def main(site: Site) -> list[str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda loop, context: told.append(repr(context["exception"])))

        def factory() -> asyncio.Protocol:
            raise ZeroDivisionError

        server = await loop.create_server(factory, site.address, 0)
        with site.connect(server.sockets[0].getsockname()[1]) as peer:
            assert await asyncio.to_thread(peer.recv, 1) == b""
        server.close()
        await server.wait_closed()
        return told

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main(HostSite())) == []
    assert stack.run(lambda: main(stack)) == ["ZeroDivisionError()"]
