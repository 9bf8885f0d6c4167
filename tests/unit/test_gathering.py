"""Small writes of one turn leave together where a write can wake the stack: on the fake, which shows VPP's traps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import vppaio
from tests.fakes.vcl import FakeVcl
from tests.faults.places import FakePlace
from vppaio import Config

QUICK = 200  # callbacks in every turn that do nothing: they make it quick, on average


class Scene:
    """Connections on the fake, and turns of the loop with many callbacks."""

    def __init__(self, loop: Any, fake: FakeVcl) -> None:
        self.loop = loop
        self.others: Callable[[], Any] = lambda: None
        self.busy = True
        self.transports: list[Any] = []
        self._fake = fake
        self._fill()

    def _fill(self) -> None:
        if self.busy:
            for _ in range(QUICK):
                self.loop.call_soon(self.others)
            self.loop.call_soon(self._fill)

    @property
    def writes(self) -> int:
        return self._fake.calls["session_write"]

    async def connected(self) -> tuple[Any, asyncio.StreamReader]:
        """A transport, and what its peer reads."""
        arrived: asyncio.Future[Any] = self.loop.create_future()
        server = await asyncio.start_server(lambda *streams: arrived.set_result(streams), "10.0.0.1", 80)
        _, writer = await asyncio.open_connection("10.0.0.1", 80)
        reader, peer = await arrived
        self.transports += [writer.transport, peer.transport]
        server.close()
        await self.turn()
        return writer.transport, reader

    async def turn(self, *callbacks: Callable[[], Any]) -> None:
        """Run the callbacks in one turn and return after it."""
        for callback in callbacks:
            self.loop.call_soon(callback)
        for _ in range(3):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.busy = False
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0.01)


def play(main: Callable[[Scene], Awaitable[None]]) -> None:
    place = FakePlace()

    async def on_loop() -> None:
        scene = Scene(asyncio.get_running_loop(), place.fake)
        try:
            async with asyncio.timeout(20):
                await main(scene)
        finally:
            await scene.close()

    with place.troubled(0, {}):
        vppaio.run(on_loop(), config=Config(stack="vpp"))


def test_writes_of_several_callbacks_leave_at_the_end_of_the_turn_in_order():
    async def main(scene: Scene) -> None:
        transport, reader = await scene.connected()
        seen: list[tuple[int, int]] = []

        def write(data: bytes) -> None:
            transport.write(data)
            seen.append((scene.writes, transport.get_write_buffer_size()))

        before = scene.writes
        await scene.turn(lambda: write(b"one "), lambda: None, lambda: write(b"two "), lambda: None)
        # The second write of a transport sends its first one.
        assert seen == [(before, 0), (before + 1, 0)]
        assert scene.writes == before + 2
        assert await reader.readexactly(8) == b"one two "

    play(main)


@pytest.mark.parametrize(
    ("end", "rest"),
    [("close", b""), ("write_eof", b""), ("abort", b""), ("writelines", b"more"), ("get_extra_info", b"")],
)
def test_whatever_else_is_done_with_the_transport_sends_what_is_held_first(end, rest):
    async def main(scene: Scene) -> None:
        transport, reader = await scene.connected()
        arguments = {"writelines": ([rest],), "get_extra_info": ("socket",)}.get(end, ())
        sent = []

        def write_and_end() -> None:
            before = scene.writes
            transport.write(b"held")
            held = scene.writes == before
            getattr(transport, end)(*arguments)
            sent.append((held, scene.writes > before))

        await scene.turn(write_and_end, lambda: None)
        assert sent == [(True, True)]
        assert await reader.readexactly(4 + len(rest)) == b"held" + rest

    play(main)


def test_protocol_that_fails_after_a_write_has_written():
    async def main(scene: Scene) -> None:
        transport, reader = await scene.connected()

        def write_and_fail() -> None:
            transport.write(b"last words")
            transport._fatal_error(OSError("the end"))

        await scene.turn(write_and_fail, lambda: None)
        assert await reader.read() == b"last words"

    play(main)


def test_writes_are_made_at_once_after_a_turn_of_slow_callbacks():
    async def main(scene: Scene) -> None:
        transport, _ = await scene.connected()
        at_once = []

        def write() -> None:
            before = scene.writes
            transport.write(b"x")
            at_once.append(scene.writes > before)

        await scene.turn(write)
        scene.others = lambda: time.sleep(0.00002)
        await scene.turn()
        await scene.turn(write)
        scene.others = lambda: None
        await scene.turn()
        await scene.turn(write)
        assert at_once == [False, True, False]

    play(main)


def test_nothing_is_held_for_long_while_callbacks_run():
    async def main(scene: Scene) -> None:
        transport, _ = await scene.connected()
        began = 0.0
        delays = []

        def write() -> None:
            nonlocal began
            began = scene.loop.time()
            transport.write(b"x")

        def look() -> None:
            time.sleep(0.00005)
            if not delays and scene.writes > before:
                delays.append(scene.loop.time() - began)

        before = scene.writes
        await scene.turn(write, *[look] * 100)
        assert len(delays) == 1
        assert delays[0] < 0.0035  # the whole turn takes 5 ms

    play(main)


def test_large_writes_and_those_outside_a_turn_of_several_callbacks_are_made_at_once():
    async def main(scene: Scene) -> None:
        transport, _ = await scene.connected()
        at_once = []

        def write(size: int) -> None:
            before = scene.writes
            transport.write(bytes(size))
            at_once.append(scene.writes > before)

        await scene.turn(lambda: write(4097), lambda: write(4096))
        transport.set_write_buffer_limits(high=10)
        await scene.turn(lambda: write(11), lambda: write(10))
        scene.busy = False
        await asyncio.sleep(0.01)
        scene.loop.call_soon(write, 1)
        await asyncio.sleep(0.01)
        assert at_once == [True, False, True, False, True]

    play(main)
