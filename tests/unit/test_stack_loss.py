"""What a program hears when a stack is lost and restored, and what becomes of its servers: on the fake, without VPP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import vppaio
from tests.fakes.vcl import FakeVcl
from tests.faults.places import FakePlace
from tests.faults.table import Faults
from vppaio import Config, StackEvent

LOST, RESTORED = StackEvent("vpp", "lost"), StackEvent("vpp", "restored")
Main = Callable[[Any, Faults, FakeVcl], Awaitable[None]]


def play(main: Main, **settings: Any) -> None:
    """Run `main(loop, faults, fake)` on a loop over the fake; `faults.lose` takes the stack away."""
    place = FakePlace()

    async def on_loop() -> None:
        loop: Any = asyncio.get_running_loop()
        loop._poller.retry_lost_ns = 1_000_000
        async with asyncio.timeout(10):
            await main(loop, faults, place.fake)

    with place.troubled(0, {}) as faults:
        vppaio.run(on_loop(), config=Config(stack="vpp", **settings))


async def eventually(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def can_connect(loop: Any, port: int) -> bool:
    with contextlib.suppress(OSError):
        transport, _ = await loop.create_connection(asyncio.Protocol, "10.0.0.1", port)
        transport.abort()
        return True
    return False


def test_listeners_hear_of_loss_and_return_in_order_until_they_are_removed() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        first: list[StackEvent] = []
        second: list[StackEvent] = []
        loop.add_stack_listener(first.append)
        loop.add_stack_listener(second.append)
        server = await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        faults.lose(3)
        await eventually(lambda: len(first) == 2)
        assert first == second == [LOST, RESTORED]
        assert loop.remove_stack_listener(second.append)
        assert not loop.remove_stack_listener(second.append)
        faults.lose(3)
        await eventually(lambda: len(first) == 4)
        assert first == [LOST, RESTORED] * 2
        assert second == [LOST, RESTORED]
        assert loop.statistics()["stacks"]["fake"]["restored"] == 2
        server.close()

    play(main)


def test_listener_that_fails_is_reported_and_hurts_nobody() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        heard: list[StackEvent] = []
        reported: list[Any] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        loop.add_stack_listener(lambda event: 1 // 0)
        loop.add_stack_listener(heard.append)
        await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        faults.lose(2)
        await eventually(lambda: len(heard) == 2)
        assert [type(exc) for exc in reported] == [ZeroDivisionError] * 2

    play(main)


def test_connections_hear_before_the_listeners() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        order: list[Any] = []

        class Client(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                order.append(type(exc))

        await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        await loop.create_connection(Client, "10.0.0.1", 80)
        loop.add_stack_listener(order.append)
        faults.lose(2)
        await eventually(lambda: len(order) == 3)
        assert order == [ConnectionResetError, LOST, RESTORED]

    play(main)


def test_restored_server_serves_on_its_port() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        server = await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        faults.lose(2)
        await eventually(lambda: loop.statistics()["stacks"]["fake"]["restored"])
        assert await can_connect(loop, 80)
        assert server.is_serving()

    play(main)


def test_server_waits_for_its_address_with_back_off_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vppaio")

    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        fake.fail("session_listen", errno.EADDRNOTAVAIL, times=3)
        faults.lose(2)
        await eventually(lambda: "listener serving" in caplog.text)
        assert await can_connect(loop, 80)

    play(main)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "vppaio"]
    texts = [text for _, text in lines]
    assert texts[0].startswith("stack lost stack=vpp times=1")
    assert texts[1].startswith("listener waiting stack=fake address=10.0.0.1 port=80 retry_s=0.05 error=")
    assert texts[2].startswith("stack restored stack=vpp after_s=")
    assert [text.split("retry_s=")[1].split()[0] for text in texts if "retry_s" in text] == ["0.05", "0.1", "0.2"]
    assert texts[-1].startswith("listener serving stack=fake address=10.0.0.1 port=80")
    # One line for who does not look closely.
    assert [level for level, text in lines if "waiting" in text] == ["WARNING", "DEBUG", "DEBUG"]


def test_stack_that_is_lost_again_before_it_could_serve() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        heard: list[StackEvent] = []
        loop.add_stack_listener(heard.append)
        await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        fake.fail("session_listen", errno.EADDRNOTAVAIL)
        faults.lose(2)
        await eventually(lambda: RESTORED in heard)
        faults.lose(200)  # gone when the listener tries again
        await eventually(lambda: heard.count(RESTORED) == 2)
        await eventually(lambda: loop.statistics()["stacks"]["fake"]["listeners"])
        assert await can_connect(loop, 80)

    play(main)


def test_server_that_is_to_fail_is_closed_and_serve_forever_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        server = await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        faults.lose(2)
        with pytest.raises(ConnectionResetError, match=r"listener on \('10\.0\.0\.1', 80\).*on_stack_loss=fail"):
            await serving
        assert server.sockets == ()
        assert not server.is_serving()
        await server.wait_closed()
        await eventually(lambda: loop.statistics()["stacks"]["fake"]["restored"])
        assert not await can_connect(loop, 80)

    play(main, on_stack_loss="fail")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "server failed error=\"[Errno 104] VPP went away, and the listener on ('10.0.0.1', 80) with it "
        '(on_stack_loss=fail)"'
    ]


def test_server_that_is_to_fail_without_serve_forever() -> None:
    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        server = await loop.create_server(asyncio.Protocol, "10.0.0.1", 80)
        faults.lose(2)
        await eventually(lambda: not server.sockets)
        await server.wait_closed()

    play(main, on_stack_loss="fail")


@pytest.mark.parametrize("busy_poll_us", [0, 1000])
def test_loss_is_noticed_while_events_wait_for_their_turn(busy_poll_us: int) -> None:
    """VPP may be back at the next look, before the events of the last one were used up."""

    async def main(loop: Any, faults: Faults, fake: FakeVcl) -> None:
        heard: list[StackEvent] = []
        loop.add_stack_listener(heard.append)
        left = 30

        class Slow(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                nonlocal left
                left -= 1
                time.sleep(0.001)  # twice the loop's budget for a turn's events is gone after two
                if left == 25:
                    faults.lose(1)

        await loop.create_server(Slow, "10.0.0.1", 80)
        clients = [(await loop.create_connection(asyncio.Protocol, "10.0.0.1", 80))[0] for _ in range(left)]
        await asyncio.sleep(0.01)
        for client in clients:
            client.write(b"x")
        await eventually(lambda: len(heard) == 2)
        await eventually(lambda: loop.statistics()["stacks"]["fake"]["listeners"])
        assert loop.statistics()["stacks"]["fake"]["sessions"] == 1
        assert await can_connect(loop, 80)

    play(main, busy_poll_us=busy_poll_us)


@pytest.mark.parametrize("value", ["", "Restore", "retry"])
def test_unknown_way_to_go_on_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"on_stack_loss.*restore or fail"):
        Config(on_stack_loss=value)  # type: ignore[arg-type]
