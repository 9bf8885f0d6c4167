"""What vppaio uses of asyncio although asyncio does not promise it: one list, to be held against each new Python.

The classes declare what typeshed leaves out of theirs; `PRIVATE` has the other names. tests/unit/test_private.py sees
that each is there in the running interpreter, with the parameters that vppaio relies on, and that the package uses no
other. Nothing happens here.
"""

import asyncio
import socket
import ssl
from asyncio import (
    base_events,
    constants,
    events,
    format_helpers,
    futures,
    log,
    selector_events,
    sslproto,
    transports,
    trsock,
)
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple


class SelectorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop: loop.eventloop replaces what opens network endpoints, loop.scheduler the turn."""

    if TYPE_CHECKING:
        _clock_resolution: float
        _closed: bool
        _csock: socket.socket
        _current_handle: asyncio.Handle | None
        _debug: bool
        _ready: deque[asyncio.Handle]
        _scheduled: list[asyncio.TimerHandle]
        _selector: Any
        _stopping: bool
        _timer_cancelled_count: int

        def _check_closed(self) -> None: ...
        def _process_events(self, event_list: Any) -> None: ...
        def _run_once(self) -> None: ...
        def _timer_handle_cancelled(self, handle: Any) -> None: ...
        def _write_to_self(self) -> None: ...

        async def _ensure_resolved(self, address: Any, **kwargs: Any) -> list[Any]: ...
        async def _create_server_getaddrinfo(self, host: Any, port: Any, family: int, flags: int) -> list[Any]: ...
        def _connect_sock(self, exceptions: Any, addr_info: Any, local_addr_infos: Any = None) -> Any: ...
        async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> Any: ...
        async def _sock_sendfile_native(self, sock: Any, file: Any, offset: int, count: int | None) -> int: ...
        async def _sendfile_fallback(self, transp: Any, file: Any, offset: int, count: int | None) -> int: ...
        async def _sock_sendfile_fallback(self, sock: Any, file: Any, offset: int, count: int | None) -> int: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...
        def _make_socket_transport(
            self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
        ) -> Any: ...
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
            ssl_handshake_timeout: float | None = None,
            ssl_shutdown_timeout: float | None = None,
        ) -> Any: ...
        def _make_datagram_transport(
            self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
        ) -> Any: ...
        def _start_serving(self, protocol_factory: Callable[[], Any], sock: Any, *args: Any, **kwargs: Any) -> None: ...
        def _stop_serving(self, sock: Any) -> None: ...


class BaseServer(base_events.Server):
    """asyncio's server: loop.serve adds listeners on sessions."""

    if TYPE_CHECKING:
        _sockets: list[Any] | None
        _serving_forever_fut: asyncio.Future[None] | None

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def _attach(self, transport: Any = None) -> None: ...
        def _detach(self, transport: Any = None) -> None: ...
        def _start_serving(self) -> None: ...


class SslProtocol(sslproto.SSLProtocol):
    """asyncio's TLS protocol: tls.records replaces the way of the bytes, tls.protocol the buffer."""

    if TYPE_CHECKING:
        _app_protocol: Any
        _app_protocol_buffer_updated: Any
        _app_protocol_get_buffer: Any
        _app_protocol_is_buffer: bool
        _app_reading_paused: bool
        _app_transport: Any
        _app_transport_created: bool
        _app_writing_paused: bool
        _conn_lost: int
        _extra: dict[str, Any]
        _incoming: ssl.MemoryBIO
        _loop: Any
        _outgoing: ssl.MemoryBIO
        _ssl_buffer_view: memoryview
        _ssl_reading_paused: bool
        _ssl_writing_paused: bool
        _sslobj: Any
        _state: sslproto.SSLProtocolState
        _transport: Any
        _write_backlog: deque[Any]
        _write_buffer_size: int

        def _call_eof_received(self) -> None: ...
        def _control_app_writing(self) -> None: ...
        def _control_ssl_reading(self) -> None: ...
        def _do_read(self) -> None: ...
        def _do_read__buffered(self) -> None: ...
        def _do_read__copied(self) -> None: ...
        def _do_write(self) -> None: ...
        def _fatal_error(self, exc: BaseException, message: str = ...) -> None: ...
        def _get_app_transport(self) -> Any: ...
        def _get_read_buffer_size(self) -> int: ...
        def _get_write_buffer_size(self) -> int: ...
        def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None: ...
        def _process_outgoing(self) -> None: ...
        def _set_state(self, new_state: sslproto.SSLProtocolState) -> None: ...
        def _start_shutdown(self) -> None: ...
        def _write_appdata(self, list_of_data: Any) -> None: ...


class SslTransport(sslproto._SSLProtocolTransport):
    """asyncio's transport above its TLS protocol: tls.records writes through it."""

    if TYPE_CHECKING:
        _closed: bool
        _ssl_protocol: Any

        def _force_close(self, exc: BaseException | None) -> None: ...


class SslObject(ssl.SSLObject):
    """Over `_ssl`'s object, whose `read`, `write` and `pending` it calls."""

    if TYPE_CHECKING:
        _sslobj: Any


class StreamReader(asyncio.StreamReader):
    """tls.protocol takes back what was read before start_tls."""

    if TYPE_CHECKING:
        _buffer: bytearray


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """loop.connect finds the reader of a stream."""

    if TYPE_CHECKING:
        _stream_reader: asyncio.StreamReader | None


def check_ssl_socket(sock: Any) -> None:
    """Raise TypeError for an ssl.SSLSocket."""
    base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]


class Private(NamedTuple):
    """Names of a module, or of a class and its objects."""

    owner: Any
    what_for: str
    names: str


PRIVATE: Final = (
    Private(
        events.TimerHandle,
        "loop.scheduler's handles have what asyncio's have, and it runs asyncio's",
        "_args _callback _cancelled _context _loop _run _scheduled _source_traceback _when",
    ),
    Private(
        selector_events._SelectorSocketTransport,  # type: ignore[attr-defined]
        "asyncio's TLS, sendfile and debug mode ask them of transports, so ours have them",
        "_force_close _make_empty_waiter _reset_empty_waiter _start_tls_compatible",
    ),
    Private(sslproto, "tls.records", "_SSLProtocolTransport SSLAgainErrors SSLProtocol SSLProtocolState"),
    Private(transports, "base of our transports, for isinstance", "_FlowControlMixin"),
    Private(base_events, "loop.serve", "Server _check_ssl_socket"),
    Private(
        base_events,
        "loop.scheduler",
        "_MIN_CANCELLED_TIMER_HANDLES_FRACTION _MIN_SCHEDULED_TIMER_HANDLES _format_handle logger",
    ),
    Private(events, "loop.scheduler", "Handle TimerHandle"),
    Private(format_helpers, "loop.scheduler reports a callback as asyncio does", "_format_callback_source"),
    Private(futures, "transports.base wakes waiters", "_set_result_unless_cancelled"),
    Private(trsock, "what errors name", "TransportSocket"),
    Private(log, "warnings appear where asyncio's do", "logger"),
    Private(
        constants,
        "asyncio's own numbers",
        "ACCEPT_RETRY_DELAY LOG_THRESHOLD_FOR_CONNLOST_WRITES SSL_HANDSHAKE_TIMEOUT SSL_SHUTDOWN_TIMEOUT _SendfileMode",
    ),
)
