import asyncio
import socket
from typing import Any, Self

from vppaio.reactor.session import Session

class StreamTransport(asyncio.Transport):
    max_size: int
    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        sock: Any = None,
    ) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # not asyncio.Transport's
    def take_back(self, data: bytes) -> None: ...
    def kernel_socket(self) -> socket.socket | None: ...
    sending: asyncio.Task[int] | None
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...
