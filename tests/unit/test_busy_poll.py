"""busy_poll_us: the loop that polls instead of sleeping does all that one does which sleeps."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import vppaio

LONG_US = 1_000_000


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    vppaio.run(asyncio.wait_for(main(), 20), config=vppaio.Config(stack="host", busy_poll_us=LONG_US))


def test_kernel_event_that_comes_while_polling_is_not_used_up():
    """Such as the one shot that a sock_* call waits for."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        with ours, peer:
            ours.setblocking(False)
            for _ in range(3):
                loop.call_later(0.01, peer.send, b"x")
                assert await asyncio.wait_for(loop.sock_recv(ours, 1), 5) == b"x"

    run(main)


def test_timer_is_not_late_by_the_time_that_was_polled():
    async def main():
        began = time.monotonic()
        await asyncio.sleep(LONG_US / 1e6 + 0.3)
        assert time.monotonic() - began < LONG_US / 1e6 + 0.6

    run(main)


def test_threads_have_their_turns():
    async def main():
        began = time.monotonic()
        await asyncio.to_thread(lambda: [time.sleep(0.001) for _ in range(5)])
        assert time.monotonic() - began < 0.5

    run(main)
