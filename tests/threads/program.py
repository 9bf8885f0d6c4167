"""The process that tests.threads starts: threads with loops of their own, all at once, drawn from a seed.

Eight threads wait at a barrier; then each makes its first loop, serves, and talks to itself over 127.0.0.1. With a seed
other than 0 they do more of what threads do: loops one after the other, loops that close while others start, threads
that end, variables of the environment and programs that are started meanwhile. A line for whatever went wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import traceback

import vppaio
from tests.support.protocols import Echo

THREADS = 8


async def serve(address: str, port: int, chance: random.Random | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, address, port)
    local = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*local.sockets[0].getsockname()[:2])
    writer.write(b"are you there?")
    assert await reader.readexactly(14) == b"are you there?"
    writer.close()
    if chance is not None:
        if chance.random() < 0.3:
            endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (address, port and port + 1))
            endpoint.close()
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.1)))
        if chance.random() < 0.3:
            return  # and leave all open
    server.close()
    local.close()


def play(number: int, address: str, chance: random.Random | None, barrier: threading.Barrier) -> None:
    barrier.wait()
    for turn in range(chance.randint(1, 3) if chance else 1):
        # VPP is this process's alone; the kernel's ports are not.
        port = 0 if address == "127.0.0.1" else 4000 + 100 * number + 10 * turn
        vppaio.run(serve(address, port, chance))


def main() -> None:
    address, seed = sys.argv[1], int(sys.argv[2])
    failures: list[str] = []

    def guarded(number: int) -> None:
        try:
            play(number, address, random.Random(seed * 100 + number) if seed else None, barrier)
        except BaseException:
            failures.append(traceback.format_exc())

    barrier = threading.Barrier(THREADS + 1)
    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    if seed:
        while any(thread.is_alive() for thread in threads):
            for number in range(50):
                os.environ[f"TESTS_THREADS_{number}"] = "x" * number
            subprocess.run([sys.executable, "-S", "-c", ""], check=True)
            for number in range(50):
                del os.environ[f"TESTS_THREADS_{number}"]
    for thread in threads:
        thread.join()
    print(*failures, sep="\n", end="")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
