"""What a BufferedProtocol may hand out: whatever can be written to, and not nothing."""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import mmap
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.sites import Site, eventually, in_thread, port_of, receive_all

DATA = bytes(range(256)) * 40
BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(1000),
    "view": lambda: memoryview(bytearray(1000)),
    "view of integers": lambda: memoryview(array.array("Q", bytes(1000))),
    "array": lambda: array.array("I", bytes(1000)),
    "mmap": lambda: mmap.mmap(-1, 1000),
    "ctypes": lambda: (ctypes.c_int * 250)(),
}


class Keeper(asyncio.BufferedProtocol):
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.heard = b""
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> Any:
        self.buffer = self.make()
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        with memoryview(self.buffer).cast("B") as view:
            self.heard += view[:nbytes]
        if isinstance(self.buffer, bytearray):
            self.buffer.clear()  # nobody holds it any more

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


async def keep(stack: Site, make: Callable[[], Any], paused: bool) -> Keeper:
    """What became of DATA and a FIN. Paused until both are there, VPP's are taken out of its FIFO meanwhile."""
    keepers: list[Keeper] = []

    def factory() -> Keeper:
        keepers.append(Keeper(make))
        return keepers[-1]

    async with await asyncio.get_running_loop().create_server(factory, stack.address, 0) as server:
        with stack.connect(port_of(server)) as peer:
            await eventually(lambda: keepers and keepers[0].transport)
            if paused:
                keepers[0].transport.pause_reading()
            with contextlib.suppress(OSError):  # an empty buffer may have ended it
                peer.sendall(DATA)
                peer.shutdown(socket.SHUT_WR)
            if paused:
                await asyncio.sleep(0.1)
                assert not keepers[0].heard
                keepers[0].transport.resume_reading()
            await asyncio.wait_for(asyncio.shield(keepers[0].lost), 10)
            with contextlib.suppress(OSError):
                await in_thread(receive_all, peer)
    return keepers[0]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("kind", BUFFERS)
def test_every_kind_of_buffer_gets_the_bytes(stack: Site, kind: str, paused: bool) -> None:
    async def main() -> None:
        keeper = await keep(stack, BUFFERS[kind], paused)
        assert keeper.lost.result() is None
        assert keeper.heard == DATA

    stack.run(main)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("make", [bytearray, lambda: memoryview(b""), lambda: array.array("I")])
def test_an_empty_buffer_is_an_error(stack: Site, make: Callable[[], Any], paused: bool) -> None:
    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
        keeper = await keep(stack, make, paused)
        assert keeper.lost.result() is not None
        assert [keeper.lost.result()] == problems

    stack.run(main)
