"""Small writes of one batch leave together where a write can wake the stack: on the fake, which shows VPP's traps."""

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

NEVER_SLOW = 10**12  # the fake's calls go through Python, so its handlers would count as slow
Handler = Callable[[Any], object]  # gets its transport


class Served(asyncio.Protocol):
    """The server's side of a connection: what it does with the next data is to order."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.handler: Handler = lambda transport: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.handler(self.transport)


class Scene:
    """Connections over the fake, whose servers are told to do something in one batch."""

    def __init__(self, loop: Any, fake: FakeVcl) -> None:
        self.loop = loop
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []
        self.served: list[Served] = []
        self._fake = fake

    async def connect(self, count: int) -> None:
        def serve() -> Served:
            self.served.append(Served())
            return self.served[-1]

        server = await self.loop.create_server(serve, "10.0.0.1", 80)
        self.gathering = self.loop._stacks.worker("vpp").gathering
        self.gathering.quick_ns = NEVER_SLOW
        for number in range(count):
            reader, writer = await asyncio.open_connection("10.0.0.1", 80)
            self.readers.append(reader)
            self.writers.append(writer)
            while len(self.served) <= number or self.served[number].transport is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        server.close()
        await self.batch()  # a first one, to show that handlers are quick

    @property
    def writes(self) -> int:
        return self._fake.calls["session_write"]

    async def batch(self, *handlers: Handler) -> None:
        """Let the servers hear of something at once, and each do its part; those that have none do nothing."""
        called = []

        def noted(handler: Handler) -> Handler:
            return lambda transport: (called.append(handler), handler(transport))

        for number, served in enumerate(self.served):
            served.handler = noted(handlers[number] if number < len(handlers) else lambda transport: None)
        open_ones = [writer for writer, served in zip(self.writers, self.served, strict=True) if served.transport]
        for writer in open_ones:
            writer.write(b"!")
        while len(called) < len(open_ones):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def close(self) -> None:
        for transport in (*(s.transport for s in self.served), *(w.transport for w in self.writers)):
            transport.abort()
        await asyncio.sleep(0.01)


def play(main: Callable[[Scene], Awaitable[None]], connections: int = 3) -> None:
    place = FakePlace()

    async def on_loop() -> None:
        scene = Scene(asyncio.get_running_loop(), place.fake)
        try:
            async with asyncio.timeout(20):
                await scene.connect(connections)
                await main(scene)
        finally:
            await scene.close()

    with place.troubled(0, {}):
        vppaio.run(on_loop(), config=Config(stack="vpp"))


class Writes:
    """A handler that writes, and notes whether that was done at once."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.at_once: list[bool] = []

    def __call__(self, transport: Any, data: bytes = b"answer") -> None:
        before = self._scene.writes
        transport.write(data)
        assert transport.get_write_buffer_size() == 0
        self.at_once.append(self._scene.writes > before)


def test_answers_of_a_batch_leave_at_its_end():
    async def main(scene: Scene) -> None:
        write = Writes(scene)
        await scene.batch(write, write, write)
        assert write.at_once == [False] * 3
        assert [await reader.readexactly(6) for reader in scene.readers] == [b"answer"] * 3

    play(main)


def test_second_write_sends_the_first():
    async def main(scene: Scene) -> None:
        counts = []

        def twice(transport: Any) -> None:
            before = scene.writes
            transport.write(b"one ")
            transport.write(b"two ")
            counts.append(scene.writes - before)

        await scene.batch(twice)
        assert counts == [1]
        assert await scene.readers[0].readexactly(8) == b"one two "

    play(main)


@pytest.mark.parametrize(
    ("end", "arguments", "rest"),
    [
        ("close", (), b""),
        ("write_eof", (), b""),
        ("abort", (), b""),
        ("writelines", ([b"more"],), b"more"),
        ("get_extra_info", ("socket",), b""),
        ("_fatal_error", (OSError("the protocol failed"),), b""),
    ],
)
def test_whatever_else_is_done_with_the_transport_sends_what_is_held_first(end, arguments, rest):
    async def main(scene: Scene) -> None:
        write = Writes(scene)
        sent = []

        def write_and_end(transport: Any) -> None:
            write(transport)
            before = scene.writes
            getattr(transport, end)(*arguments)
            sent.append(scene.writes > before)

        await scene.batch(write_and_end)
        assert write.at_once == [False]
        assert sent == [True]
        assert await scene.readers[0].readexactly(6 + len(rest)) == b"answer" + rest

    play(main)


def test_no_more_than_16_are_held():
    async def main(scene: Scene) -> None:
        write = Writes(scene)
        sent: list[int] = []
        before = 0

        def write_and_count(transport: Any) -> None:
            write(transport)
            sent.append(scene.writes - before - 20)  # 20 of the clients

        for _ in range(5):  # a handler that is off the processor counts as slow, and ends the gathering
            before = scene.writes
            sent.clear()
            await scene.batch(*[write_and_count] * 20)
            if sent == [0] * 15 + [16] * 5:
                return
        assert sent == [0] * 15 + [16] * 5

    play(main, connections=20)


def test_writes_are_made_at_once_after_a_batch_of_slow_handlers():
    async def main(scene: Scene) -> None:
        write = Writes(scene)
        scene.gathering.quick_ns = 2_000_000
        await scene.batch(write, lambda _: time.sleep(0.02))
        await scene.batch(write)
        await scene.batch(write)
        assert write.at_once == [False, True, False]

    play(main)


def test_answer_of_a_protocol_that_is_slow_for_the_first_time_waits_until_it_returns():
    """What differences.md says: nobody knows before that it will be slow."""

    async def main(scene: Scene) -> None:
        write = Writes(scene)
        scene.gathering.quick_ns = 2_000_000
        sent = []

        def write_and_compute(transport: Any) -> None:
            before = scene.writes
            write(transport)
            time.sleep(0.02)
            sent.append(scene.writes > before)

        await scene.batch(write_and_compute)
        assert await scene.readers[0].readexactly(6) == b"answer"
        await scene.batch(write_and_compute)
        assert sent == [False, True]

    play(main)


def test_large_writes_and_those_of_one_handler_or_of_none_are_made_at_once():
    async def main(scene: Scene) -> None:
        write = Writes(scene)
        await scene.batch(
            lambda transport: write(transport, bytes(4097)), lambda transport: write(transport, bytes(4096))
        )
        scene.served[0].transport.set_write_buffer_limits(high=10)
        await scene.batch(lambda transport: write(transport, bytes(11)))
        await scene.batch(lambda transport: write(transport, bytes(10)))
        write(scene.served[0].transport)  # in a task
        assert write.at_once == [True, False, True, False, True]
        scene.served[0].handler = write
        scene.writers[0].write(b"!")
        while len(write.at_once) == 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert write.at_once[5]

    play(main)
