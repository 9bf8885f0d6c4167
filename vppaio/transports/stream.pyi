import asyncio
import socket
from typing import Any

from vppaio.reactor.session import Session

class StreamTransport(asyncio.Transport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        sock: Any = None,
    ) -> None: ...
    def take_back(self, data: bytes) -> None: ...
    def kernel_socket(self) -> socket.socket | None: ...
    sending: asyncio.Task[int] | None
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...
