"""A loop costs descriptors and memory, and nothing else counts how many there are."""

from __future__ import annotations

import asyncio
import contextlib

import vppaio

LOOPS = 400  # VCL's workers, and once ours, end at 128


def test_129th_loop_with_network_is_not_refused() -> None:
    config = vppaio.Config(stack="host")

    async def echo_once() -> int:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(100))
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        return 1

    with contextlib.ExitStack() as stack:
        loops = []
        for _ in range(LOOPS):
            loops.append(vppaio.new_event_loop(config))
            stack.callback(loops[-1].close)
            assert loops[-1].run_until_complete(echo_once())
        # All are open, and each has what is its own.
        for loop in (loops[0], loops[127], loops[128], loops[-1]):
            assert loop.run_until_complete(echo_once())
