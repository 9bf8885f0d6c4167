"""create_server and the Server object.

A server is asyncio's own `Server` over socket objects: the kernel's for addresses of the host stack, `SessionSocket`
for VPP's. asyncio's rules about serving, closing and waiting come with it, per Python version. What is ours is the
accepting: a `Listener` on a session, and transports made without a task in between.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import weakref
from asyncio import constants
from collections.abc import Callable, Iterable
from socket import (
    AF_UNSPEC,
    AI_PASSIVE,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
)
from typing import Any, cast

from vppaio.loop.base import StackLoop
from vppaio.loop.sockets import adopt_bound, give_back
from vppaio.private import BaseServer, SelectorLoop
from vppaio.reactor.session import Session
from vppaio.tls.protocol import TlsProtocol
from vppaio.transports.listener import Listener
from vppaio.transports.pseudosocket import SessionSocket
from vppaio.transports.stream import StreamTransport

logger = logging.getLogger("vppaio")
_GONE = "VPP went away, and the listener on {} with it (on_stack_loss=fail)"


class Server(BaseServer):
    """asyncio's server, with `close_clients` and `abort_clients` on every Python version (asyncio has them from
    3.13)."""

    def _fail(self, exc: OSError) -> None:
        """Close, and let `serve_forever` raise `exc`."""
        if self._sockets is None:
            return
        logger.error('server failed error="%s"', exc)
        serving = self._serving_forever_fut
        if serving is not None and not serving.done():
            serving.set_exception(exc)
        self.close()

    if not hasattr(BaseServer, "close_clients"):

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

        def _attach(self, transport: Any = None) -> None:
            super()._attach()
            if transport is not None:
                self._transports.add(transport)

        def _detach(self, transport: Any = None) -> None:
            if transport is not None:
                self._transports.discard(transport)
            super()._detach()

        def close_clients(self) -> None:
            """Close all connections, as their transports' `close` does."""
            for transport in self._transports.copy():
                transport.close()

        def abort_clients(self) -> None:
            """Drop all connections, as their transports' `abort` does."""
            for transport in self._transports.copy():
                transport.abort()


async def create_server(
    loop: StackLoop,
    protocol_factory: Callable[[], Any],
    host: str | Iterable[str] | None = None,
    port: int | None = None,
    *,
    family: int = AF_UNSPEC,
    flags: int = AI_PASSIVE,
    sock: Any = None,
    backlog: int = 100,
    ssl: Any = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    **options: Any,
) -> Server:
    """As asyncio's, on the stacks that the routes name for the addresses.

    Of the options, `reuse_address`, `reuse_port` and `keep_alive` have no effect on VPP: an address has one application
    there, and its TCP has no keepalive.

    Raises:
        OSError: EADDRINUSE, EADDRNOTAVAIL and others, naming the address.
    """

    async def kernel_sockets(**where: Any) -> list[Any]:
        """As asyncio makes them, checks of the arguments included."""
        server = await SelectorLoop.create_server(
            loop,
            protocol_factory,
            backlog=backlog,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            start_serving=False,
            **where,
            **options,
        )
        return list(cast(BaseServer, server)._sockets or ())

    sockets: list[Any] = []
    given = sock
    try:
        if sock is not None and host is None and port is None:
            sock = await adopt_bound(loop, sock)
        if sock is not None or (host is None and port is None) or not loop._stacks.with_vpp:
            sockets = await kernel_sockets(host=host, port=port, family=family, flags=flags, sock=sock)
        else:
            _check_options(ssl, ssl_handshake_timeout, ssl_shutdown_timeout, **options)
            for af, address in await _resolve(loop, host, port, family, flags):
                if loop._stacks.stack_for(address[0]) == "host":
                    sockets += await kernel_sockets(host=address[0], port=address[1], family=af, flags=flags)
                else:
                    await loop._stacks.ready("vpp")
                    sockets.append(_vpp_socket(loop, af, address, **options))
        server = Server(loop, sockets, protocol_factory, ssl, backlog, ssl_handshake_timeout, ssl_shutdown_timeout)
        if start_serving:
            server._start_serving()
            # Skip one loop iteration so that all listeners go through, as asyncio does.
            await asyncio.sleep(0)
    except BaseException:
        for item in sockets:
            if item is not given or item in loop._listeners:
                loop._stop_serving(item)
        give_back(sock, given)
        raise
    return server


def _check_options(
    ssl: Any,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
) -> None:
    """asyncio's checks, in asyncio's words."""
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    if ssl_handshake_timeout is not None and ssl is None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if ssl_shutdown_timeout is not None and ssl is None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")


async def _resolve(
    loop: StackLoop, host: str | Iterable[str] | None, port: int | None, family: int, flags: int
) -> list[tuple[int, Any]]:
    """(family, address) of everything to listen on, each once and in a stable order."""
    hosts = [None] if host == "" else [host] if isinstance(host, str) or not isinstance(host, Iterable) else list(host)
    answers = await asyncio.gather(
        *(loop._create_server_getaddrinfo(item, port, family=family, flags=flags) for item in hosts)
    )
    return list(dict.fromkeys((info[0], info[4]) for info in itertools.chain.from_iterable(answers)))


def _vpp_socket(
    loop: StackLoop,
    family: int,
    address: Any,
    reuse_address: bool | None = None,
    keep_alive: bool | None = None,
    reuse_port: bool | None = None,
) -> SessionSocket:
    sock = SessionSocket(loop._stacks.worker("vpp"), family, SOCK_STREAM)
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, reuse_address is not False)
    if reuse_port:
        sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    if keep_alive:
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def start_serving(
    loop: StackLoop,
    protocol_factory: Callable[[], Any],
    sock: Any,
    sslcontext: Any = None,
    server: Server | None = None,
    backlog: int = 100,
    *timeouts: float | None,
    **named_timeouts: float | None,
) -> None:
    """Accept on `sock`, which listens already: what asyncio's Server asks of its loop."""
    if isinstance(sock, SessionSocket):
        session = sock.session
    else:
        session = loop._stacks.worker("host").adopt_fd(sock.fileno())
        # Accepted sockets inherit it. Without, a response whose head and body are two writes waits 40 ms for an
        # acknowledgement (uvicorn: 700 requests a second instead of 7000).
        with contextlib.suppress(OSError):
            session.set_option(IPPROTO_TCP, TCP_NODELAY, 1)

    def plain(session: Session, peername: Any) -> None:
        StreamTransport(loop, session, protocol_factory(), None, {"peername": peername}, server)

    def encrypted(session: Session, peername: Any) -> None:
        _start_tls(
            loop, session, protocol_factory(), sslcontext, {"peername": peername}, server, *timeouts, **named_timeouts
        )

    def give_up() -> None:
        if server is not None:
            server._fail(ConnectionResetError(errno.ECONNRESET, _GONE.format(sock.getsockname())))
        else:
            loop._stop_serving(sock)

    restore = loop._config.on_stack_loss == "restore"
    loop._listeners[sock] = Listener(
        loop,
        session,
        sock,
        plain if sslcontext is None else encrypted,
        backlog,
        (lambda: sock.reopen(backlog)) if restore and isinstance(sock, SessionSocket) else None,
        give_up,
    )


def _start_tls(
    loop: StackLoop,
    session: Session,
    protocol: Any,
    sslcontext: Any,
    extra: dict[str, Any],
    server: Server | None,
    ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
    ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
) -> None:
    """TLS on an accepted session; the protocol hears of it when the handshake is done."""
    waiter = loop.create_future()
    waiter.add_done_callback(_ignore_handshake_failure)
    ssl_protocol = TlsProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side=True,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    StreamTransport(loop, session, ssl_protocol, None, extra, server)


def _ignore_handshake_failure(waiter: asyncio.Future[None]) -> None:
    """A client that fails the handshake is no error of ours; asyncio reports it in debug mode only, and so does
    SSLProtocol itself."""
    if not waiter.cancelled():
        waiter.exception()
