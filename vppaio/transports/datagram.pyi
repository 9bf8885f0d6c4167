import asyncio
from typing import Any

from vppaio.reactor.session import Session

class DatagramTransport(asyncio.DatagramTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        sock: Any = None,
    ) -> None: ...
