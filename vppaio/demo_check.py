"""The demo's client: asks for everything the demo offers and compares. An ordinary aiohttp program, too."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

_LIMIT_S: Final = 30
Connect = Callable[..., aiohttp.ClientSession]  # a session on the service's URL
_COUNTING: Final = bytes(range(251))


class Wrong(Exception):
    """The answer is not the right one."""


def _expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise Wrong(f"{what}: {seen!r}, not {wanted!r}")


async def _greet(session: aiohttp.ClientSession) -> None:
    async with session.get("/") as response:
        _expect("status", response.status, 200)
        _expect("greeting", (await response.json())["hello"], "world")


async def greeting(connect: Connect) -> None:
    """GET / answers in JSON"""
    async with connect() as session:
        await _greet(session)


async def downloads(connect: Connect) -> None:
    """GET /bytes/N delivers 0 B to 30 MB unharmed"""
    for size in (0, 1, 65536, 1_000_003, 30_000_000):
        async with connect() as session, session.get(f"/bytes/{size}") as response:
            digest = hashlib.sha256()
            async for chunk in response.content.iter_any():
                digest.update(chunk)
        wanted = hashlib.sha256((_COUNTING * (size // len(_COUNTING) + 1))[:size])
        _expect(f"hash of {size} bytes", digest.hexdigest(), wanted.hexdigest())


async def uploads(connect: Connect) -> None:
    """POST /echo returns 0 B to 8 MB unharmed"""
    for size in (0, 1, 65536, 8_000_000):
        body = random.Random(size).randbytes(size)
        async with connect() as session, session.post("/echo", data=body) as response:
            _expect(f"{size} bytes echoed", (await response.read()) == body, True)


async def keep_alive(connect: Connect) -> None:
    """1000 requests share one connection"""
    opened = 0

    async def count(*_: object) -> None:
        nonlocal opened
        opened += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with connect(trace_configs=[trace]) as session:
        for _ in range(1000):
            await _greet(session)
    _expect("connections", opened, 1)


async def crowd(connect: Connect) -> None:
    """100 connections at a time"""
    async with connect(connector=aiohttp.TCPConnector(limit=100)) as session:
        await asyncio.gather(*(_greet(session) for _ in range(300)))


async def websocket(connect: Connect) -> None:
    """a websocket returns text and 1 MB of bytes, and closes"""
    async with connect() as session, session.ws_connect("/ws", max_msg_size=64 << 20) as socket:
        await socket.send_str("over VPP?")
        _expect("text", await socket.receive_str(), "over VPP?")
        data = random.Random(1).randbytes(1_000_000)
        await socket.send_bytes(data)
        _expect("1 MB returned", (await socket.receive_bytes()) == data, True)
        await socket.close()
        _expect("close code", socket.close_code, 1000)


async def refusals(connect: Connect) -> None:
    """what is not there is 404"""
    async with connect() as session, session.get("/nothing") as response:
        _expect("status", response.status, 404)


CHECKS: Final[tuple[Callable[[Connect], Awaitable[None]], ...]] = (
    greeting,
    downloads,
    uploads,
    keep_alive,
    crowd,
    websocket,
    refusals,
)


async def check(url: str, report: Callable[[bool, str], None]) -> bool:
    """Make every check against `url`; `report` gets one line for each."""
    good = True
    for one in CHECKS:
        fault = ""
        try:
            async with asyncio.timeout(_LIMIT_S):
                await one(functools.partial(aiohttp.ClientSession, url))
        except TimeoutError:
            fault = f": not done after {_LIMIT_S} s"
        except (Wrong, OSError, aiohttp.ClientError) as error:
            fault = f": {error}"
        good &= not fault
        report(not fault, f"{one.__doc__}{fault}")
    return good
