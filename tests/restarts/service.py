"""The service whose VPP dies: an echo server on VPP, and in the same loop a kernel-side HTTP server to ask how it is.

python -m tests.restarts.service ADDRESS PORT; prints the HTTP server's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from typing import Any

import vppaio
from tests.support.protocols import Echo


class Health:
    """What is asked over HTTP: one JSON object per request."""

    def __init__(self) -> None:
        self.longest_gap = 0.0  # seconds between two ticks of a 20 ms timer, since it was last asked
        self.complaints: list[str] = []
        self.events: list[str] = []

    async def tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now

    def report(self) -> dict[str, Any]:
        loop: Any = asyncio.get_running_loop()
        gc.collect()
        descriptors = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the one of the listing itself
                descriptors.append(os.readlink(f"/proc/self/fd/{fd}"))
        with open("/proc/self/status") as file:
            sizes = dict(line.split(":") for line in file)
        with open("/proc/self/maps") as file:
            mappings = [line.split(maxsplit=5)[5].strip() if line.count("/") else "" for line in file]
        gap, self.longest_gap = self.longest_gap, 0.0
        return {
            "sessions": loop.statistics()["stacks"]["vpp"]["sessions"],
            "restored": loop.statistics()["stacks"]["vpp"]["restored"],
            "fds": len(descriptors),
            "descriptors": sorted(descriptors),
            "own_kb": int(sizes["RssAnon"].split()[0]),
            "shared_kb": int(sizes["RssShmem"].split()[0]),
            "virtual_kb": int(sizes["VmSize"].split()[0]),
            "mappings": len(mappings),
            "mapped": sorted(mappings),
            "longest_gap": gap,
            "complaints": self.complaints,
            "events": self.events,
        }

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = json.dumps(self.report()).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()


async def main(address: str, port: int) -> None:
    loop: Any = asyncio.get_running_loop()
    health = Health()
    loop.set_exception_handler(lambda _, context: health.complaints.append(str(context)))
    loop.add_stack_listener(lambda event: health.events.append(event.state))
    ticking = asyncio.create_task(health.tick())
    await loop.create_server(Echo, address, port)
    http = await asyncio.start_server(health.answer, "127.0.0.1", 0)
    print(http.sockets[0].getsockname()[1], flush=True)
    await ticking


if __name__ == "__main__":
    vppaio.run(main(sys.argv[1], int(sys.argv[2])))
