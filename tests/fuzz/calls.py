"""Random calls of the whole public API, in any state and with odd arguments too.

A `Player` holds what a sequence has made so far (sockets, transports, servers, readers, peers, tasks) and draws the
next call on one of them. What a call answers is not looked at: it may refuse in any way but by breaking.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from typing import Any, Final

import vppaio
from tests.fuzz.places import IP_FREEBIND, Place
from vppaio.transports.pseudosocket import SessionSocket

ODD: Final[tuple[Any, ...]] = (None, -1, 0, 1 << 40, "", "x", b"", (), object(), 1.5, ("", 0), ("10.0.0.1",), "::1")
SIZES: Final = (0, 1, 10, 1000, 1400, 20_000, 300_000)
OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
    (socket.SOL_SOCKET, socket.SO_ERROR),
    (socket.SOL_SOCKET, socket.SO_TYPE),
    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
    (socket.SOL_SOCKET, socket.SO_LINGER),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_BROADCAST),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
)


class _Ends:
    """What a protocol does when it is called, drawn too."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.player.keep(self.player.transports, transport)
        self.react(0.2)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.react(0.1)

    def react(self, chance: float, data: bytes = b"x") -> None:
        rng = self.player.rng
        if rng.random() > chance:
            return
        match rng.randrange(7):
            case 0:
                self.transport.close()
            case 1:
                self.transport.abort()
            case 2:
                raise ZeroDivisionError("of the protocol")
            case 3 if hasattr(self.transport, "pause_reading"):
                self.transport.pause_reading()
            case 4 if hasattr(self.transport, "write"):
                self.transport.write(data * rng.choice((1, 100)))
            case 5 if hasattr(self.transport, "write_eof"):
                self.transport.write_eof()
            case 6:
                self.player.loop.call_soon(self.transport.close)


class Stream(_Ends, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.react(0.5, data)

    def eof_received(self) -> bool:
        self.react(0.2)
        return self.player.rng.random() < 0.5

    def pause_writing(self) -> None:
        self.react(0.1)

    def resume_writing(self) -> None:
        self.react(0.1)


class Buffered(_Ends, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        self.room = bytearray(self.player.rng.choice((1, 100, 65536)))
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.react(0.5, bytes(self.room[:nbytes]))


class Datagrams(_Ends, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address: Any) -> None:
        if self.player.rng.random() < 0.5:
            self.transport.sendto(data, address)
        self.react(0.2)

    def error_received(self, exc: BaseException) -> None:
        self.react(0.1)


class Player:
    """One loop's part of a sequence.

    Args:
        old: things of loops that are closed, to be tried on this one.
        trace: the names of calls, for who has to find out.
        failed: gets each exception, and whether the call's arguments were odd.
    """

    def __init__(
        self,
        rng: random.Random,
        place: Place,
        old: list[Any],
        trace: list[str],
        failed: Callable[[Exception, bool], None],
    ) -> None:
        self.rng, self.place, self.old, self.trace, self.failed = rng, place, old, trace, failed
        self.is_odd = False
        self.loop: Any = asyncio.get_running_loop()
        self.sockets: list[Any] = []
        self.transports: list[Any] = []
        self.servers: list[Any] = []
        self.streams: list[Any] = []
        self.peers: list[socket.socket] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.ports: list[int] = []
        names = [name for name in dir(self) if name.startswith("do_")]
        self.calls = [(name, getattr(self, name)) for name in names for _ in range(WEIGHTS.get(name[3:], 2))]

    # ---- drawing ------------------------------------------------------------------------------------------------

    def keep(self, pool: list[Any], thing: Any) -> Any:
        if len(pool) >= 12:
            oldest = pool.pop(0)
            with contextlib.suppress(Exception):
                (oldest.cancel if isinstance(oldest, asyncio.Task) else oldest.close)()
        pool.append(thing)
        return thing

    def one(self, pool: list[Any]) -> Any:
        """One of these, at times one of another kind or of a loop that is gone."""
        if self.old and self.rng.random() < 0.03:
            self.is_odd = True
            return self.rng.choice(self.old)
        if not pool:
            raise Nothing
        return self.rng.choice(pool)

    def odd(self, usual: Any, chance: float = 0.05) -> Any:
        if self.rng.random() >= chance:
            return usual
        self.is_odd = True
        return self.rng.choice(ODD)

    def data(self) -> bytes:
        return b"d" * self.rng.choice(SIZES)

    def port(self) -> int:
        if self.ports and self.rng.random() < 0.8:
            return self.rng.choice(self.ports)
        return self.rng.choice((0, 1, 40000, 40001))

    def target(self) -> tuple[str, int]:
        """Somewhere to connect to, or to send to."""
        listening = [peer for peer in self.peers if peer.fileno() >= 0]
        if listening and self.rng.random() < 0.6:
            with contextlib.suppress(OSError):
                return (self.place.peer_address, self.rng.choice(listening).getsockname()[1])
        address = self.rng.choice((self.place.peer_address, self.place.address, self.place.address))
        return (address, self.port() or 1)

    def local(self) -> tuple[str, int]:
        address = self.place.address if self.rng.random() < 0.9 else self.rng.choice(("0.0.0.0", self.place.foreign))
        return (address, self.rng.choice((0, 0, 0, 40000, 40001, *self.ports[-1:])))

    def protocol(self) -> Any:
        return Stream(self) if self.rng.random() < 0.8 else Buffered(self)

    def tls(self) -> dict[str, Any]:
        if self.rng.random() > 0.1:
            return {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return {"ssl": context, "server_hostname": "", "ssl_handshake_timeout": self.rng.choice((0.01, 1))}

    async def call(self) -> None:
        """The next one."""
        name, method = self.rng.choice(self.calls)
        self.trace.append(name)
        self.is_odd = False
        try:
            result = method()
            if asyncio.iscoroutine(result):
                await self.wait(result)
        except Nothing:
            pass
        except Exception as exc:
            self.failed(exc, self.is_odd)

    async def wait(self, coroutine: Any) -> None:
        """Wait for it a little, or let it be a task that lives on, or is cancelled."""
        how = self.rng.random()
        task = self.keep(self.tasks, asyncio.ensure_future(coroutine))
        is_odd = self.is_odd
        task.add_done_callback(lambda task: self.done(task, is_odd))
        if how < 0.5:
            await asyncio.wait([task], timeout=self.rng.choice((0.001, 0.005)))
        elif how < 0.6:
            await asyncio.sleep(0)
            task.cancel()
        elif how < 0.65:
            task.cancel()

    def done(self, task: asyncio.Task[Any], is_odd: bool) -> None:
        if task.cancelled():
            return
        exc = task.exception()
        if isinstance(exc, Exception):
            self.failed(exc, is_odd)
        elif exc is None:
            self.note(task.result())

    def note(self, made: Any) -> None:
        """Keep what a call has given."""
        for item in made if isinstance(made, tuple) else (made,):
            if isinstance(item, (SessionSocket, socket.socket)):
                self.keep(self.sockets, item)
            elif hasattr(item, "start_serving"):
                self.keep(self.servers, item)
                for sock in item.sockets:
                    with contextlib.suppress(OSError):
                        self.keep(self.ports, sock.getsockname()[1])
            elif hasattr(item, "get_extra_info") and hasattr(item, "abort"):
                self.keep(self.transports, item)
            elif isinstance(item, (asyncio.StreamReader, asyncio.StreamWriter)):
                self.keep(self.streams, item)

    # ---- sockets ------------------------------------------------------------------------------------------------

    def do_socket(self) -> None:
        kind = self.rng.choice((socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM))
        stack: Any = self.rng.choice((None, None, None, "host", "vpp"))
        self.note(vppaio.socket(self.odd(socket.AF_INET), self.odd(kind), stack=stack))

    def do_kernel_socket(self) -> None:
        sock = socket.socket(socket.AF_INET, self.rng.choice((socket.SOCK_STREAM, socket.SOCK_DGRAM)))
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            if self.rng.random() < 0.7:
                sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
                sock.bind((self.place.address, 0))
                if self.rng.random() < 0.5:
                    sock.listen()
        self.keep(self.sockets, sock)

    def do_bind(self) -> None:
        self.one(self.sockets).bind(self.odd(self.local()))

    def do_listen(self) -> None:
        sock = self.one(self.sockets)
        sock.listen(self.odd(self.rng.choice((0, 1, 100))))
        self.keep(self.ports, sock.getsockname()[1])

    def do_direct(self) -> None:
        """A method of the socket itself."""
        sock, rng = self.one(self.sockets), self.rng
        calls: tuple[Callable[[], Any], ...] = (
            lambda: sock.recv(self.odd(rng.choice(SIZES))),
            lambda: sock.recv_into(bytearray(rng.choice(SIZES))),
            lambda: sock.recvfrom(rng.choice(SIZES)),
            lambda: sock.recvfrom_into(bytearray(rng.choice(SIZES))),
            lambda: sock.send(self.odd(self.data())),
            lambda: sock.sendto(self.data(), self.odd(self.target())),
            lambda: sock.accept(),
            lambda: sock.shutdown(self.odd(rng.randrange(3))),
            lambda: sock.getsockname(),
            lambda: sock.getpeername(),
            lambda: sock.getsockopt(*rng.choice(OPTIONS)),
            lambda: sock.setsockopt(*rng.choice(OPTIONS), self.odd(rng.choice((0, 1, 60)))),
            lambda: sock.fileno(),
            lambda: sock.dup(),
            lambda: repr(sock),
            lambda: sock.setblocking(rng.random() < 0.1 and hasattr(sock, "session")),
        )
        self.note(rng.choice(calls)())

    def do_close_socket(self) -> None:
        sock = self.one(self.sockets)
        if self.rng.random() < 0.1 and isinstance(sock, SessionSocket):
            sock.detach()
        else:
            sock.close()

    def do_sock_connect(self) -> Any:
        return self.loop.sock_connect(self.one(self.sockets), self.odd(self.target()))

    def do_sock(self) -> Any:
        sock, rng, loop = self.one(self.sockets), self.rng, self.loop
        calls: tuple[Callable[[], Any], ...] = (
            lambda: loop.sock_recv(sock, self.odd(rng.choice(SIZES))),
            lambda: loop.sock_recv_into(sock, bytearray(rng.choice(SIZES))),
            lambda: loop.sock_recvfrom(sock, rng.choice(SIZES)),
            lambda: loop.sock_recvfrom_into(sock, bytearray(100), rng.choice((0, 10, 100))),
            lambda: loop.sock_sendall(sock, self.odd(self.data())),
            lambda: loop.sock_sendto(sock, self.data(), self.odd(self.target())),
            lambda: loop.sock_accept(sock),
            lambda: self.sendfile(lambda file: loop.sock_sendfile(sock, file)),
        )
        return rng.choice(calls)()

    async def sendfile(self, send: Callable[[Any], Any]) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(self.data())
            file.seek(0)
            await send(file)

    def do_adopt(self) -> Any:
        """A socket for a transport or a server."""
        sock, rng, loop = self.odd(self.one(self.sockets), 0.02), self.rng, self.loop
        calls: tuple[Callable[[], Any], ...] = (
            lambda: loop.create_connection(self.protocol, sock=sock, **self.tls()),
            lambda: loop.connect_accepted_socket(self.protocol, sock),
            lambda: loop.create_server(self.protocol, sock=sock, start_serving=rng.random() < 0.8),
            lambda: loop.create_datagram_endpoint(lambda: Datagrams(self), sock=sock),
            lambda: asyncio.open_connection(sock=sock),
            lambda: asyncio.start_server(lambda reader, writer: self.note((reader, writer)), sock=sock),
        )
        return rng.choice(calls)()

    # ---- servers, connections, endpoints ------------------------------------------------------------------------

    def do_server(self) -> Any:
        host, port = self.local()
        return self.loop.create_server(
            self.protocol, self.odd(host), self.odd(port), start_serving=self.rng.random() < 0.9,
            backlog=self.odd(self.rng.choice((0, 1, 100))), reuse_port=self.rng.choice((None, True)),
        )  # fmt: skip

    def do_server_method(self) -> Any:
        server = self.one(self.servers)
        name = self.rng.choice(("close", "close_clients", "abort_clients", "start_serving", "serve_forever", "sockets"))
        method = getattr(server, name)
        return method() if callable(method) else [self.keep(self.sockets, sock) for sock in method if 0]

    def do_connection(self) -> Any:
        host, port = self.target()
        local = self.local() if self.rng.random() < 0.1 else None
        return self.loop.create_connection(
            self.protocol, self.odd(host), self.odd(port), local_addr=local, **self.tls()
        )

    def do_endpoint(self) -> Any:
        both = self.rng.random()
        return self.loop.create_datagram_endpoint(
            lambda: Datagrams(self),
            local_addr=self.local() if both < 0.7 else None,
            remote_addr=self.target() if both > 0.5 else None,
        )

    def do_transport(self) -> Any:
        transport, rng = self.one(self.transports), self.rng
        calls: tuple[Callable[[], Any], ...] = (
            lambda: transport.write(self.odd(self.data())),
            lambda: transport.write(self.data()),
            lambda: transport.writelines([self.odd(self.data(), 0.01) for _ in range(rng.choice((0, 1, 3, 70)))]),
            lambda: transport.write_eof(),
            lambda: transport.pause_reading(),
            lambda: transport.resume_reading(),
            lambda: transport.set_write_buffer_limits(self.odd(rng.choice((0, 1000)))),
            lambda: transport.get_write_buffer_size(),
            lambda: transport.set_protocol(Datagrams(self) if hasattr(transport, "sendto") else self.protocol()),
            lambda: transport.is_closing() and transport.is_reading(),
            lambda: self.keep(self.sockets, transport.get_extra_info("socket")),
            lambda: transport.get_extra_info(rng.choice(("peername", "sockname", "socket", "x"))),
            lambda: transport.sendto(self.data(), self.odd(self.target())),
            lambda: transport.sendto(self.data()),
            lambda: repr(transport),
        )
        return rng.choice(calls)()

    def do_end_transport(self) -> None:
        transport = self.one(self.transports)
        (transport.close if self.rng.random() < 0.6 else transport.abort)()

    def do_start_tls(self) -> Any:
        context = ssl.SSLContext(self.rng.choice((ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)))
        server_side = context.protocol == ssl.PROTOCOL_TLS_SERVER
        if not server_side:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return self.loop.start_tls(
            self.one(self.transports), self.protocol(), self.odd(context), server_side=server_side,
            server_hostname=None if server_side else "", ssl_handshake_timeout=self.rng.choice((0.01, 1)),
        )  # fmt: skip

    def do_sendfile(self) -> Any:
        transport = self.one(self.transports)
        return self.sendfile(lambda file: self.loop.sendfile(transport, file, fallback=self.rng.random() < 0.8))

    # ---- streams ------------------------------------------------------------------------------------------------

    def do_open_stream(self) -> Any:
        return asyncio.open_connection(*self.target())

    def do_start_stream_server(self) -> Any:
        return asyncio.start_server(lambda reader, writer: self.note((reader, writer)), *self.local())

    def do_stream(self) -> Any:
        end = self.one(self.streams)
        if isinstance(end, asyncio.StreamReader):
            return self.rng.choice((lambda: end.read(100), lambda: end.readexactly(5), lambda: end.readline()))()
        return self.rng.choice(
            (lambda: end.write(self.data()), end.drain, end.close, end.wait_closed, end.write_eof, lambda: repr(end))
        )()

    # ---- the loop -----------------------------------------------------------------------------------------------

    async def do_sleep(self) -> None:
        await asyncio.sleep(self.rng.choice((0, 0, 0.001)))

    def do_cancel(self) -> None:
        self.one(self.tasks).cancel()

    def do_loop(self) -> Any:
        rng, loop = self.rng, self.loop
        fd = lambda: self.one(self.sockets).fileno()  # noqa: E731
        calls: tuple[Callable[[], Any], ...] = (
            loop.statistics,
            lambda: loop.add_stack_listener(lambda event: None),
            lambda: loop.set_debug(rng.random() < 0.3),
            lambda: loop.add_reader(fd(), lambda: None),
            lambda: loop.add_writer(fd(), lambda: None),
            lambda: loop.remove_reader(fd()),
            lambda: loop.remove_writer(fd()),
        )
        rng.choice(calls)()

    # ---- outside ------------------------------------------------------------------------------------------------

    def do_peer(self) -> None:
        """The kernel connects to one of ours, or listens for us."""
        kind = self.rng.choice((socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM))
        peer = self.place.peer(kind)
        if peer is None:
            raise Nothing
        if len(self.peers) >= 12:
            self.peers.pop(0).close()
        self.peers.append(peer)
        if self.rng.random() < 0.6 and self.ports:
            peer.connect_ex((self.place.address, self.port() or 1))
        else:
            peer.bind((self.place.peer_address, 0))
            if kind == socket.SOCK_STREAM:
                peer.listen()

    def do_peer_method(self) -> None:
        if not self.peers:
            raise Nothing
        peer, rng = self.rng.choice(self.peers), self.rng
        with contextlib.suppress(OSError):
            match rng.randrange(7):
                case 0:
                    peer.send(self.data())
                case 1:
                    peer.recv(100_000)
                case 2:
                    peer.shutdown(socket.SHUT_WR)
                case 3:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.close()
                case 4:
                    peer.close()
                case 5:
                    accepted = peer.accept()[0]
                    accepted.setblocking(False)
                    self.peers.append(accepted)
                case 6:
                    peer.sendto(self.data(), (self.place.address, self.port() or 1))

    async def leave(self, at_once: bool = False) -> None:
        """Close all, in any order."""
        for peer in self.peers:
            peer.close()
        things = [*self.sockets, *self.transports, *self.servers, *self.streams, *self.tasks]
        self.rng.shuffle(things)
        for thing in things:
            with contextlib.suppress(Exception):
                if at_once and hasattr(thing, "abort"):
                    thing.abort()
                (thing.cancel if isinstance(thing, asyncio.Task) else thing.close)()
        await asyncio.sleep(0)


class Nothing(Exception):
    """There is nothing yet that the call could be made on."""


WEIGHTS: Final = {
    "sock": 8, "sock_connect": 6, "adopt": 6, "transport": 10, "connection": 5, "socket": 5, "direct": 6, "peer": 6,
    "peer_method": 6, "sleep": 6, "listen": 4, "bind": 3, "endpoint": 3, "end_transport": 3, "stream": 3,
}  # fmt: skip
