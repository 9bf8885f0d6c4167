"""3,000 connects at once, through the wire, with the settings that Config has: none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.sites import ROOT, VppSite, eventually, in_thread, port_of, sessions

pytestmark = [pytest.mark.vpp, pytest.mark.timeout(60)]
COUNT = 3000
# Both are plain asyncio on the kernel's side.
CLIENTS = """
import asyncio, collections, json, sys

async def one(number):
    try:
        reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
        writer.write(b"%04d" % number)
        answer = await reader.readexactly(4)
        return writer, None if answer == b"%04d" % number else f"{number} got {answer}"
    except (OSError, asyncio.IncompleteReadError) as error:
        return None, repr(error)

async def main():
    answers = await asyncio.gather(*(one(number) for number in range(int(sys.argv[3]))))
    print(json.dumps(collections.Counter(failure for _, failure in answers if failure)), flush=True)
asyncio.run(main())
"""
SERVER = """
import asyncio, socket, sys
from tests.support.protocols import Echo

async def main():
    server = await asyncio.get_running_loop().create_server(Echo, sys.argv[1], 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""
CROWD = """
import asyncio, sys, vppaio

address, port, nobody, count = sys.argv[1], *map(int, sys.argv[2:])

async def one(number):
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(b"%04d" % number)
    assert await reader.readexactly(4) == b"%04d" % number
    return writer

async def main():
    writers = await asyncio.gather(*(one(number) for number in range(count)))
    print(len(writers), "connected", flush=True)
    refused = (asyncio.open_connection(address, nobody) for _ in range(300))
    print({type(answer).__name__ for answer in await asyncio.gather(*refused, return_exceptions=True)})
vppaio.run(main())
"""


@contextlib.contextmanager
def serving(site: VppSite) -> Iterator[int]:
    """The port of an echo server on the kernel's side."""
    with site.popen(
        [sys.executable, "-c", SERVER, site.peer_address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield int(server.stdout.readline())
        server.stdin.close()
        assert server.wait(10) == 0


class Loop:
    """What the loop went through: errors that nobody took, and the longest time between two ticks of a timer."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.longest_gap = 0.0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Loop]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(str(context)))
        ticking = asyncio.create_task(self._tick())
        try:
            yield self
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now


class Echo(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: Any) -> None:
        Echo.made += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asks(asyncio.Protocol):
    def __init__(self, number: int) -> None:
        self.question = b"%04d" % number
        self.answer = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(self.question)

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data == self.question)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionAbortedError())


def test_server_takes_all_who_come_at_once(site: VppSite) -> None:
    async def main() -> None:
        Echo.made = 0
        async with Loop().watched() as loop:
            server = await asyncio.get_running_loop().create_server(Echo, site.address, 0)
            done = await in_thread(
                site.command, [sys.executable, "-c", CLIENTS, site.address, str(port_of(server)), str(COUNT)]
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {}
            assert Echo.made == COUNT
            await eventually(lambda: sessions() == 1)
            server.close()
        assert loop.errors == []
        assert loop.longest_gap < 1.0

    site.run(main)


def test_client_reaches_all_it_connects_to_at_once(site: VppSite) -> None:
    async def one(number: int, port: int) -> Any:
        transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: Asks(number), site.peer_address, port
        )
        return transport, await protocol.answer

    async def main(port: int) -> None:
        async with Loop().watched() as loop:
            answers = await asyncio.gather(*(one(number, port) for number in range(COUNT)), return_exceptions=True)
            assert [answer for answer in answers if isinstance(answer, BaseException)] == []
            assert all(right for _, right in answers)
            for transport, _ in answers:
                transport.close()
            await eventually(lambda: sessions() == 0)
        assert loop.errors == []
        assert loop.longest_gap < 1.0

    with serving(site) as port:
        site.run(lambda: main(port))


def test_who_is_refused_because_the_event_queue_is_full_tries_again(site: VppSite) -> None:
    """VPP says it with a peer's own words; the queue here has room for a third of the answers. A peer's own stay."""
    environment = os.environ | site.interpreter_environment
    environment |= {"PYTHONPATH": str(ROOT), "VPPAIO_EVENT_QUEUE_SIZE": "16384"}
    with serving(site) as port, site.kernel_socket() as nobody:
        nobody.bind((site.peer_address, 0))
        command = [sys.executable, "-c", CROWD, site.peer_address, str(port), str(nobody.getsockname()[1]), str(COUNT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{COUNT} connected\n{{'ConnectionRefusedError'}}\n"
