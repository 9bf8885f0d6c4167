"""The demo's client: asks for everything the demo offers and compares. An ordinary aiohttp program, too."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

_LIMIT_S: Final = 30
_COUNTING: Final = bytes(range(251))


class Wrong(Exception):
    """The answer is not the right one."""


def _expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise Wrong(f"{what}: {seen!r}, not {wanted!r}")


async def greeting(session: aiohttp.ClientSession) -> None:
    """GET / answers in JSON"""
    async with session.get("/") as response:
        _expect("status", response.status, 200)
        _expect("greeting", (await response.json())["hello"], "world")


async def downloads(session: aiohttp.ClientSession) -> None:
    """GET /bytes/N delivers 0 B to 30 MB unharmed"""
    for size in (0, 1, 65536, 1_000_003, 30_000_000):
        async with session.get(f"/bytes/{size}") as response:
            digest = hashlib.sha256()
            async for chunk in response.content.iter_any():
                digest.update(chunk)
        wanted = hashlib.sha256((_COUNTING * (size // len(_COUNTING) + 1))[:size])
        _expect(f"hash of {size} bytes", digest.hexdigest(), wanted.hexdigest())


async def uploads(session: aiohttp.ClientSession) -> None:
    """POST /echo returns 0 B to 8 MB unharmed"""
    for size in (0, 1, 65536, 8_000_000):
        body = random.Random(size).randbytes(size)
        async with session.post("/echo", data=body) as response:
            _expect(f"{size} bytes echoed", (await response.read()) == body, True)


async def keep_alive(session: aiohttp.ClientSession) -> None:
    """1000 requests share one connection"""
    opened = 0

    async def count(*_: object) -> None:
        nonlocal opened
        opened += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(session._base_url, trace_configs=[trace]) as own:
        for _ in range(1000):
            await greeting(own)
    _expect("connections", opened, 1)


async def crowd(session: aiohttp.ClientSession) -> None:
    """100 connections at a time"""
    async with aiohttp.ClientSession(session._base_url, connector=aiohttp.TCPConnector(limit=100)) as own:
        await asyncio.gather(*(greeting(own) for _ in range(300)))


async def websocket(session: aiohttp.ClientSession) -> None:
    """a websocket returns text and 1 MB of bytes, and closes"""
    async with session.ws_connect("/ws", max_msg_size=64 << 20) as socket:
        await socket.send_str("over VPP?")
        _expect("text", await socket.receive_str(), "over VPP?")
        data = random.Random(1).randbytes(1_000_000)
        await socket.send_bytes(data)
        _expect("1 MB returned", (await socket.receive_bytes()) == data, True)
        await socket.close()
        _expect("close code", socket.close_code, 1000)


async def refusals(session: aiohttp.ClientSession) -> None:
    """what is not there is 404"""
    async with session.get("/nothing") as response:
        _expect("status", response.status, 404)


CHECKS: Final[tuple[Callable[[aiohttp.ClientSession], Awaitable[None]], ...]] = (
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
    async with aiohttp.ClientSession(url) as session:
        for one in CHECKS:
            try:
                async with asyncio.timeout(_LIMIT_S):
                    await one(session)
            except TimeoutError:
                good = False
                report(False, f"{one.__doc__}: not done after {_LIMIT_S} s")
            except (Wrong, OSError, aiohttp.ClientError) as error:
                good = False
                report(False, f"{one.__doc__}: {error}")
            else:
                report(True, str(one.__doc__))
    return good
