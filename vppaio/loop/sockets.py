"""Files and sockets that the caller owns: sendfile."""

import asyncio
from typing import TYPE_CHECKING, Any

from vppaio.transports.stream import StreamTransport

if TYPE_CHECKING:
    from vppaio.loop.eventloop import EventLoop


async def sendfile(loop: "EventLoop", transport: StreamTransport, file: Any, offset: int, count: int | None) -> int:
    """What `loop.sendfile` tries first: the kernel's sendfile, for a connection on the host stack.

    Raises:
        SendfileNotAvailableError: the connection is on VPP, or it is no regular file; asyncio then reads and writes.
    """
    sock = transport.kernel_socket()
    if sock is None:
        raise asyncio.SendfileNotAvailableError("VPP has no sendfile")
    was_reading = transport.is_reading()
    transport.pause_reading()
    written = transport._make_empty_waiter()
    try:
        await written
        with loop._stacks.lent(sock.fileno()):
            return await loop.sock_sendfile(sock, file, offset, count, fallback=False)
    finally:
        transport._reset_empty_waiter()
        if was_reading:
            transport.resume_reading()
