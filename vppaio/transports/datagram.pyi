import asyncio
from typing import Any, Self

from vppaio.reactor.session import Session

class DatagramTransport(asyncio.DatagramTransport):
    max_size: int
    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        sock: Any = None,
    ) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # not asyncio.Transport's
