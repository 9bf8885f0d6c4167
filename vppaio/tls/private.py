"""What vppaio's TLS uses of asyncio and ssl although they do not promise it: one list, as loop.private has one.

tests/unit/test_private.py compares it with the running interpreter, and with what tls/ uses. Nothing happens here.
"""

import asyncio
import ssl
from asyncio import sslproto
from collections import deque
from typing import TYPE_CHECKING, Any


class SslProtocol(sslproto.SSLProtocol):
    """asyncio's TLS protocol: its state machine is ours, the way of the bytes is replaced."""

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
    """asyncio's transport above it."""

    if TYPE_CHECKING:
        _closed: bool
        _ssl_protocol: Any

        def _force_close(self, exc: BaseException | None) -> None: ...


class SslObject(ssl.SSLObject):
    """Over `_ssl`'s object, whose `read`, `write` and `pending` it calls."""

    if TYPE_CHECKING:
        _sslobj: Any


class StreamReader(asyncio.StreamReader):
    if TYPE_CHECKING:
        _buffer: bytearray
