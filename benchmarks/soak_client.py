"""The mix of benchmarks.soak, on the kernel's side: TLS, HTTP, datagrams, connects, half-finished transfers, aborts.
Each line on stdin is answered by a line of JSON: how many, and what came back wrong."""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import aiohttp

from benchmarks.soak_service import arguments

PATIENCE_S: Final = 30.0
PATIENCE_IN_TROUBLE_S: Final = 5.0
FAILURES: Final = (OSError, EOFError, TimeoutError, aiohttp.ClientError)  # of connections, and not of content
_kinds: collections.Counter[str] = collections.Counter()
_wrong: list[str] = []


async def echo(address: str, port: int, size: int, rounds: int, context: ssl.SSLContext | None) -> None:
    reader, writer = await asyncio.open_connection(address, port, ssl=context)
    try:
        for _ in range(rounds):
            data = os.urandom(size)
            writer.write(data)
            assert await reader.readexactly(size) == data, "wrong echo"
    finally:
        writer.close()
        await writer.wait_closed()


async def abort(address: str, port: int) -> None:
    """Leave in the middle of a transfer, with a reset or a FIN."""
    _, writer = await asyncio.open_connection(address, port)
    writer.write(os.urandom(random.choice((10, 100_000, 2_000_000))))
    await asyncio.sleep(random.random() * 0.05)
    if random.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self.answer = answer

    def datagram_received(self, data: bytes, address: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(data)


async def datagram(address: str, port: int) -> None:
    """Datagrams may be lost, but not change."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(answer), remote_addr=(address, port))
    try:
        data = os.urandom(random.randint(1, 1400))
        transport.sendto(data)
        async with asyncio.timeout(1):
            assert await answer == data, "wrong datagram"
    except TimeoutError:
        _kinds["lost datagrams"] += 1
    finally:
        transport.close()


async def http(session: aiohttp.ClientSession, address: str, port: int) -> None:
    data = os.urandom(random.randint(0, 100_000))
    async with session.post(f"http://{address}:{port}/", data=data) as response:
        assert await response.read() == data[::-1], "wrong answer"


async def keep_doing(kind: str, act: Callable[[], Coroutine[Any, Any, None]], in_trouble: bool) -> None:
    while True:
        try:
            async with asyncio.timeout(PATIENCE_IN_TROUBLE_S if in_trouble else PATIENCE_S):
                await act()
            _kinds[kind] += 1
        except ConnectionResetError:
            if kind != "abort" and not in_trouble:
                raise
        except Exception as error:
            if not (in_trouble and isinstance(error, FAILURES)):
                _wrong.append(f"{kind}: {error!r}")
                return
            _kinds[f"{kind} {type(error).__name__}"] += 1
        await asyncio.sleep(0.01)


async def mix(o: argparse.Namespace) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    session = aiohttp.ClientSession()
    acts = {
        "tls": lambda: echo(o.address, o.tls, random.randint(1, 200_000), 5, context),
        "echo": lambda: echo(o.address, o.echo, random.randint(1, 200_000), 5, None),
        "connect": lambda: echo(o.address, o.echo, 10, 1, None),
        "abort": lambda: abort(o.address, o.echo),
        "udp": lambda: datagram(o.address, o.udp),
        "http": lambda: http(session, o.address, o.http),
    }
    tasks = [asyncio.create_task(keep_doing(kind, act, o.trouble)) for kind, act in acts.items()]
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        _wrong.extend(repr(task.exception()) for task in tasks if task.done() and task.exception())
        print(json.dumps({"mixed": _kinds.total(), "kinds": _kinds, "wrong": _wrong}), flush=True)
    for task in tasks:
        task.cancel()
    await session.close()


if __name__ == "__main__":
    asyncio.run(mix(arguments()))
