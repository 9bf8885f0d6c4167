"""Open many connections, echo a message on each, and hold them: the idle ones of benchmarks.scale.

    python -m benchmarks.hold --address A --port P --connections N

Says "ready" when all stand and have answered; each line on stdin asks all of them for another echo and is answered by
the number that gave it. The end of stdin ends it. Kernel sockets, so it can stand in any network namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, Final

import vppaio
from vppaio import Config

AT_A_TIME: Final = 64  # connects under way: less than anybody's backlog
MESSAGE: Final = bytes(range(64))
PATIENCE_S: Final = 30.0


class Held(asyncio.Protocol):
    """A connection, and what it has been sent since the last question."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self.answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= len(MESSAGE) and self.answered and not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.answered and not self.answered.done():
            self.answered.set_result(None)

    async def echo(self) -> bool:
        """Whether the message comes back, whole and alone."""
        if self.lost:
            return False
        self.received = b""
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(MESSAGE)
        try:
            await asyncio.wait_for(self.answered, PATIENCE_S)
        except TimeoutError:
            return False
        return self.received == MESSAGE


async def hold(address: str, port: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    at_a_time = asyncio.Semaphore(AT_A_TIME)

    async def connect() -> Held:
        async with at_a_time:
            _, held = await loop.create_connection(Held, address, port)
            if not await held.echo():
                raise SystemExit("a new connection gave no echo")
            return held

    async def echo(held: Held) -> bool:
        async with at_a_time:
            return await held.echo()

    all_held = await asyncio.gather(*(connect() for _ in range(connections)))
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(sum(await asyncio.gather(*map(echo, all_held))), flush=True)
    for held in all_held:
        held.transport.abort()  # a reset leaves no TIME_WAIT behind that the next run would meet


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hold")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    o = parser.parse_args()
    vppaio.run(hold(o.address, o.port, o.connections), config=Config(stack="host"))


if __name__ == "__main__":
    main()
