"""What tests put in the place of a loop's parts takes effect, as on asyncio's loop.

Each way runs the same programs on both loops: one that waits for timers, and one whose data comes through sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import inspect
import time
from asyncio import base_events
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

import vppaio

LOOPS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "vppaio": lambda: vppaio.new_event_loop(vppaio.Config(stack="host")),
}
DAY = 24 * 3600.0


class Clock:
    """Stands still until it is set; what the loop would sleep, it jumps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self, *_: object) -> float:
        return self.now

    def select(self, original: Callable[[float | None], Any], timeout: float | None = None) -> Any:
        ready = original(0 if timeout != 0 and timeout is not None else timeout)
        if not ready and timeout:
            self.now += timeout
        return ready


class RealClock(Clock):
    """Looks at what passes, and changes nothing."""

    def time(self, *_: object) -> float:
        return time.monotonic()

    def select(self, original: Callable[[float | None], Any], timeout: float | None = None) -> Any:
        return original(timeout)


class TimeModule:
    """What asyncio.base_events sees in the place of the module `time`."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.time

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def on_the_loop(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(loop, "time", clock.time)


@contextlib.contextmanager
def by_assignment(loop: Any, clock: Clock) -> Iterator[None]:
    loop.time = clock.time
    yield
    del loop.time


def on_its_class(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(type(loop), "time", clock.time)


def on_asyncios_class(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(asyncio.BaseEventLoop, "time", clock.time)


def on_the_time_module(loop: Any, clock: Clock) -> Any:
    return mock.patch("time.monotonic", clock.time)


def on_the_name_in_base_events(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(base_events, "time", TimeModule(clock))


@contextlib.contextmanager
def on_a_mixed_class(loop: Any, clock: Clock) -> Iterator[None]:
    """looptime's way."""

    class Mixed(type(loop)):  # type: ignore[misc]
        def time(self) -> float:
            return clock.time()

    before, loop.__class__ = loop.__class__, Mixed
    yield
    loop.__class__ = before


CLOCKS = [
    on_the_loop,
    by_assignment,
    on_its_class,
    on_asyncios_class,
    on_the_time_module,
    on_the_name_in_base_events,
    on_a_mixed_class,
]


def on_the_selector(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(loop._selector, "select", functools.partial(clock.select, loop._selector.select))


class Around:
    """A selector around another."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        return self._clock.select(self._inner.select, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def around_the_selector(loop: Any, clock: Clock) -> Any:
    return mock.patch.object(loop, "_selector", Around(loop._selector, clock))


def turn(self: Any) -> None:
    """nest_asyncio's: a turn of its own."""
    ready, scheduled = self._ready, self._scheduled
    while scheduled and scheduled[0]._cancelled:
        heapq.heappop(scheduled)
    timeout = None
    if ready or self._stopping:
        timeout = 0.0
    elif scheduled:
        timeout = min(max(scheduled[0]._when - self.time(), 0), DAY)
    self._process_events(self._selector.select(timeout))
    end = self.time() + self._clock_resolution
    while scheduled and scheduled[0]._when < end:
        ready.append(heapq.heappop(scheduled))
    for _ in range(len(ready)):
        handle = ready.popleft()
        if not handle._cancelled:
            handle._run()


@contextlib.contextmanager
def in_a_turn_of_its_own(loop: Any, clock: Clock) -> Iterator[None]:
    with on_the_selector(loop, clock), mock.patch.object(type(loop), "_run_once", turn):
        yield


SLEEPS = [on_the_selector, around_the_selector, in_a_turn_of_its_own]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = LOOPS[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("way", CLOCKS, ids=lambda way: way.__name__)
def test_timers_do_not_ignore_another_clock(loop: Any, way: Callable[..., Any]) -> None:
    clock = Clock()
    fired: list[str] = []

    async def main() -> None:
        assert loop.time() == 1000.0
        timer = loop.call_later(DAY, fired.append, "later")
        assert timer.when() == 1000.0 + DAY
        loop.call_at(1000.0 + 2 * DAY, fired.append, "at")
        loop.call_later(0.001, fired.append, "soon")
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.003)  # noqa: ASYNC251  the clock stands still
        assert fired == []
        clock.now += 1.0
        for _ in range(3):
            await asyncio.sleep(0)
        assert fired == ["soon"]
        clock.now += 3 * DAY
        for _ in range(3):
            await asyncio.sleep(0)
        assert fired == ["soon", "later", "at"]

    with way(loop, clock):
        loop.run_until_complete(main())
    assert abs(loop.time() - time.monotonic()) < 60


@pytest.mark.parametrize("way", SLEEPS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("clock_way", [on_the_loop, on_a_mixed_class], ids=lambda way: way.__name__)
def test_sleep_through_another_select_does_not_hang(loop: Any, way: Any, clock_way: Any) -> None:
    clock = Clock()

    async def main() -> None:
        await asyncio.sleep(30 * DAY)
        async with asyncio.timeout(DAY):
            await asyncio.sleep(DAY / 2)

    started = time.monotonic()
    with way(loop, clock), clock_way(loop, clock):
        loop.run_until_complete(main())
    assert clock.now == pytest.approx(1000 + 30.5 * DAY)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("way", SLEEPS, ids=lambda way: way.__name__)
def test_data_does_not_wait_behind_another_select(loop: Any, way: Callable[..., Any]) -> None:
    """Sessions, kernel descriptors and calls from threads; also if it is put there in the middle of a turn."""
    clock = RealClock()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with way(loop, clock):
                for size in (1, 1000, 100_000):
                    writer.write(bytes(size))
                    assert await asyncio.wait_for(reader.readexactly(size), 30) == bytes(size)
                assert await loop.run_in_executor(None, abs, -5) == 5
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("name", ["call_soon", "call_at", "call_later", "call_soon_threadsafe", "create_task"])
def test_methods_of_the_loop_are_not_gone_past(loop: Any, name: str) -> None:
    async def main() -> None:
        if name == "create_task":
            await asyncio.create_task(asyncio.sleep(0))
        elif name == "call_soon_threadsafe":
            await loop.run_in_executor(None, abs, 1)
        else:
            loop.call_later(0, lambda: None)
            await asyncio.sleep(0.001)

    with mock.patch.object(loop, name, wraps=getattr(loop, name)) as called:
        loop.run_until_complete(main())
    # asyncio's call_later calls call_at; and a compiled future calls call_soon of whatever loop it has.
    assert called.call_count >= 1


def test_timers_that_are_run_ahead_of_time_are_handles_as_asyncios(loop: Any) -> None:
    """As Home Assistant's tests move time on."""
    heard: list[int] = []
    for number in range(3):
        loop.call_later(DAY, heard.append, number)
    for timer in sorted(loop._scheduled):
        assert timer.when() > loop.time()
        assert timer._args
        assert inspect.isbuiltin(timer._callback)
        timer._run()
        timer.cancel()
        assert timer.cancelled()
    assert heard == [0, 1, 2]
    loop.run_until_complete(asyncio.sleep(0))
    assert heard == [0, 1, 2]
