"""create_datagram_endpoint."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vppaio.loop.eventloop import EventLoop


async def create_datagram_endpoint(loop: "EventLoop", *args: Any, **kwargs: Any) -> Any:
    return await asyncio.SelectorEventLoop.create_datagram_endpoint(loop, *args, **kwargs)
