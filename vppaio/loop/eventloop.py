"""EventLoop: asyncio's loop, with network endpoints on sessions.

asyncio.SelectorEventLoop brings scheduling, subprocesses, signals, pipes, unix sockets, add_reader, executors and
debug mode, each as the running Python has it. Overridden is what opens network endpoints, and the selector it sleeps
on. This class is the table of contents: the work is in serve, connect, endpoints and sockets.
"""

import asyncio
import contextlib
import inspect
import os
import signal
import socket
from asyncio import constants
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar, cast

from vppaio.config import Config
from vppaio.loop import connect, endpoints, registry, serve, sockets
from vppaio.loop.base import StackLoop
from vppaio.loop.scheduler import Scheduler
from vppaio.loop.stacks import StackEvent, Stacks
from vppaio.private import SelectorLoop
from vppaio.reactor.poller import Selector
from vppaio.tls.protocol import TlsProtocol
from vppaio.transports.datagram import DatagramTransport
from vppaio.transports.pseudosocket import SessionSocket
from vppaio.transports.stream import StreamTransport

_INET = (socket.AF_INET, socket.AF_INET6)
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _forwards(method: _Method) -> _Method:
    """A method that hands its arguments on: signature and docstring are asyncio's, as the running Python has them."""
    asyncios = getattr(SelectorLoop, method.__name__)
    method.__signature__ = inspect.signature(asyncios)  # type: ignore[attr-defined]
    method.__doc__ = asyncios.__doc__
    return method


def _with_peername(extra: Any, sock: Any) -> dict[str, Any]:
    """Extra information with the peer's address, which the kernel forgets when the connection is reset."""
    if extra is not None and "peername" in extra:
        return cast(dict[str, Any], extra)
    try:
        peername = sock.getpeername()
    except OSError:
        peername = None
    return {**(extra or {}), "peername": peername}


def _leave_wakeup_fd_to_parent() -> None:
    """After a fork: what add_signal_handler has set would tell the parent of the child's signals. asyncio does the same
    from 3.12 on."""
    with contextlib.suppress(ValueError):  # in a sub-interpreter nobody may set it, so nobody has
        fd = signal.set_wakeup_fd(-1)
        if fd not in [loop._csock.fileno() for loop in registry.open_loops()]:
            signal.set_wakeup_fd(fd)


os.register_at_fork(after_in_child=_leave_wakeup_fd_to_parent)


class EventLoop(Scheduler, StackLoop):
    """An asyncio event loop whose TCP, TLS and UDP endpoints live on VPP where the routes say so, and on the kernel
    otherwise.

    Args:
        config: settings; by default from the environment.

    Raises:
        ValueError: a setting is wrong; names it.
    """

    def __init__(self, config: Config | None = None) -> None:
        if not (config is None or isinstance(config, Config)):
            raise TypeError(f"config: {config!r} is not allowed; use a vppaio.Config, or None for the environment's")
        self._config = Config() if config is None else config
        selector = Selector(self._config.busy_poll_us)
        self.sleep_on(selector)
        self._stack_listeners: list[Callable[[StackEvent], object]] = []
        self._stacks = Stacks(self._config, self._poller, self._tell_stack_listeners)
        self._listeners: dict[Any, Any] = {}
        super().__init__(selector)
        registry.register(self)

    # ---- what vppaio adds to asyncio's loop --------------------------------------------------------------------

    @property
    def stacks(self) -> tuple[str, ...]:
        """("host",) or ("host", "vpp"). Attaches if nothing was opened yet.

        Raises:
            OSError: VPP is configured and cannot be attached.
        """
        return self._stacks.names

    def statistics(self) -> dict[str, Any]:
        """Counters since the loop was made: turns, sleeps, and for each stack sessions, bytes, events and polls.

        vppaio.loop.statistics says what each number is, and its unit. May be called from any thread.
        """
        return self._poller.statistics()

    def add_stack_listener(self, callback: Callable[[StackEvent], object]) -> None:
        """Let `callback(event)` be called soon after VPP was lost, and after it is back; see StackEvent."""
        self._check_closed()
        self._stack_listeners.append(callback)

    def remove_stack_listener(self, callback: Callable[[StackEvent], object]) -> bool:
        """Stop telling `callback`; returns whether it was told."""
        if callback not in self._stack_listeners:
            return False
        self._stack_listeners.remove(callback)
        return True

    def _tell_stack_listeners(self, event: StackEvent) -> None:
        for callback in self._stack_listeners:
            self.call_soon(callback, event)

    def close(self) -> None:
        super().close()
        self._listeners.clear()  # of servers that nobody closed: their sockets are their owners'

    # ---- the turn: loop.scheduler ------------------------------------------------------------------------------

    def _report_slow(self, handler: object, seconds: float) -> None:
        """Debug mode: a protocol took long over an event of its session."""
        logger.warning("Executing %r took %.3f seconds", handler, seconds)

    # ---- servers -----------------------------------------------------------------------------------------------

    @_forwards
    async def create_server(self, *args: Any, **kwargs: Any) -> serve.Server:
        return await serve.create_server(self, *args, **kwargs)

    def _start_serving(self, protocol_factory: Callable[[], Any], sock: Any, *args: Any, **kwargs: Any) -> None:
        if sock.family in _INET:
            serve.start_serving(self, protocol_factory, sock, *args, **kwargs)
        else:
            super()._start_serving(protocol_factory, sock, *args, **kwargs)

    def _stop_serving(self, sock: Any) -> None:
        if sock in self._listeners:
            self._listeners.pop(sock).close()
        elif isinstance(sock, SessionSocket):
            sock.close()  # it was not served yet: creating the server failed
        elif sock.fileno() != -1:
            super()._stop_serving(sock)

    # ---- connections -------------------------------------------------------------------------------------------

    def _connect_sock(self, exceptions: Any, addr_info: Any, local_addr_infos: Any = None) -> Any:
        # No coroutine of its own: its frame, with `exceptions`, would be in their tracebacks, and in a cycle with them.
        try:
            stack = self._stacks.stack_for(addr_info[4][0])
        except OSError as exc:  # from the attach, in the first network call
            exceptions.append([exc])
            raise
        if stack == "host":
            return super()._connect_sock(exceptions, addr_info, local_addr_infos)
        return connect.connect_sock(self, exceptions, addr_info, local_addr_infos)

    def _make_socket_transport(
        self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
    ) -> Any:
        made = sockets.take(self, sock)
        if made is not None:
            io = made._io  # sock_* may have read more than it was asked for
            extra = _with_peername(extra, made)
            transport = StreamTransport(self, made.session, protocol, waiter, extra, server, made)
            if io is not None:
                transport.take_back(io.take_kept())
            return transport
        if sock.family in _INET and sock.type == socket.SOCK_STREAM:
            self._ensure_fd_no_transport(sock)
            extra = _with_peername(extra, sock)
            session = self._stacks.worker("host").adopt_fd(sock.fileno())
            with contextlib.suppress(OSError):  # of a stream that is not TCP, such as SCTP's
                session.set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return StreamTransport(self, session, protocol, waiter, extra, server, sock)
        return super()._make_socket_transport(sock, protocol, waiter, extra=extra, server=server)

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
    ) -> Any:
        ssl_protocol = TlsProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server)
        return ssl_protocol._app_transport

    @_forwards
    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **options: Any) -> Any:
        return await connect.start_tls(self, transport, protocol, sslcontext, **options)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> Any:
        if type(transp) is StreamTransport:
            return await sockets.sendfile(self, transp, file, offset, count)
        return await super()._sendfile_native(transp, file, offset, count)

    async def _sock_sendfile_native(self, sock: Any, file: Any, offset: int, count: int | None) -> Any:
        if sockets.session_socket(self, sock) is not None:
            # asyncio then reads and sends. The kernel would send to what fileno() gives: a descriptor for polling.
            raise asyncio.SendfileNotAvailableError("a session has no sendfile")
        return await super()._sock_sendfile_native(sock, file, offset, count)

    async def _sendfile_fallback(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        fallback = super()._sendfile_fallback
        if type(transp) is StreamTransport:
            return await sockets.as_native(fallback, transp, file, offset, count)
        return await fallback(transp, file, offset, count)

    async def _sock_sendfile_fallback(self, sock: Any, file: Any, offset: int, count: int | None) -> int:
        fallback = super()._sock_sendfile_fallback
        if sockets.session_socket(self, sock) is not None:
            return await sockets.as_native(fallback, sock, file, offset, count)
        return await fallback(sock, file, offset, count)

    # ---- datagrams ---------------------------------------------------------------------------------------------

    @_forwards
    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> Any:
        return await endpoints.create_datagram_endpoint(self, *args, **kwargs)

    def _make_datagram_transport(
        self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> Any:
        made = sockets.take(self, sock)
        if made is not None:
            return DatagramTransport(self, made.session, protocol, address, waiter, extra, made)
        if sock.family not in _INET:
            return super()._make_datagram_transport(sock, protocol, address, waiter, extra)
        self._ensure_fd_no_transport(sock)
        session = self._stacks.worker("host").adopt_fd(sock.fileno())
        return DatagramTransport(self, session, protocol, address, waiter, extra, sock)

    # ---- sockets that the caller owns ---------------------------------------------------------------------------

    @_forwards
    async def sock_connect(self, sock: Any, address: Any) -> None:
        await sockets.sock_connect(self, sock, address)

    @_forwards
    async def sock_accept(self, sock: Any) -> Any:
        return await sockets.perform(self, "sock_accept", sock)

    @_forwards
    async def sock_recv(self, sock: Any, n: int) -> Any:
        return await sockets.perform(self, "sock_recv", sock, n)

    @_forwards
    async def sock_recv_into(self, sock: Any, buf: Any) -> Any:
        return await sockets.perform(self, "sock_recv_into", sock, buf)

    @_forwards
    async def sock_recvfrom(self, sock: Any, bufsize: int) -> Any:
        return await sockets.perform(self, "sock_recvfrom", sock, bufsize)

    @_forwards
    async def sock_recvfrom_into(self, sock: Any, buf: Any, nbytes: int = 0) -> Any:
        return await sockets.perform(self, "sock_recvfrom_into", sock, buf, nbytes)

    @_forwards
    async def sock_sendall(self, sock: Any, data: Any) -> None:
        await sockets.perform(self, "sock_sendall", sock, data)

    @_forwards
    async def sock_sendto(self, sock: Any, data: Any, address: Any) -> Any:
        return await sockets.perform(self, "sock_sendto", sock, data, address)

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        super()._ensure_fd_no_transport(fd)
        self._stacks.ensure_fd_no_transport(fd)
