"""What vppaio uses of asyncio although asyncio does not promise it: one list, to be held against each new Python.

tests/unit/test_private.py compares it with the running interpreter. Nothing happens here.
"""

import asyncio
import socket
from asyncio import base_events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vppaio.reactor.poller import Selector


class SelectorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, with the hooks that typeshed leaves out."""

    if TYPE_CHECKING:
        _csock: socket.socket
        _debug: bool
        _selector: Selector
        _signal_handlers: dict[int, asyncio.Handle]

        def _check_closed(self) -> None: ...

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
        def _make_datagram_transport(
            self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
        ) -> Any: ...
        def _start_serving(self, protocol_factory: Callable[[], Any], sock: Any, *args: Any, **kwargs: Any) -> None: ...
        def _stop_serving(self, sock: Any) -> None: ...


def check_ssl_socket(sock: Any) -> None:
    """Raise TypeError for an ssl.SSLSocket."""
    base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]


class BaseServer(base_events.Server):
    """asyncio's server, with what typeshed leaves out."""

    if TYPE_CHECKING:
        _sockets: list[Any] | None
        _serving_forever_fut: asyncio.Future[None] | None

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def _attach(self, transport: Any = None) -> None: ...
        def _detach(self, transport: Any = None) -> None: ...
        def _start_serving(self) -> None: ...
