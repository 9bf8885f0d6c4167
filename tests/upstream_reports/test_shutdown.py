"""Complaints about ending a server: what must not happen when it closes, is cancelled, or runs out of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from typing import Any

import pytest

from tests.support.connections import Accepted
from tests.support.sites import HostSite, Site, eventually, in_thread, port_of, receive_all

CANCELLING_CLOSES_CLIENTS = "close_clients" in asyncio.Server.serve_forever.__code__.co_names  # from 3.14 on
WAITS_FOR_CLIENTS = sys.version_info >= (3, 12, 1)  # what Server.wait_closed does is the Python version's to say


def test_clients_need_not_be_closed_one_by_one(stack: Site) -> None:
    """uvloop#683: a server has `close_clients` and `abort_clients`, on every Python version."""

    async def main() -> None:
        for name in ("close_clients", "abort_clients"):
            async with Accepted(stack) as accepted:
                pairs = [await accepted.connect() for _ in range(3)]
                getattr(accepted.server, name)()
                for ours, theirs in pairs:
                    assert await ours.lost is None
                    with theirs, contextlib.suppress(ConnectionResetError):
                        assert await in_thread(receive_all, theirs) == b""

    stack.run(main)


def test_silent_clients_do_not_hold_up_a_shutdown_for_ever(stack: Site) -> None:
    """uvloop#180, cpython gh-104344: waiting for all is as bad as waiting for none; README's recipe has an end."""

    async def main() -> None:
        accepted = Accepted(stack)
        await accepted.__aenter__()
        ours, theirs = await accepted.connect()
        server = accepted.server
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 0.1)
        assert not ours.lost.done()
        server.abort_clients()  # type: ignore[attr-defined]
        await server.wait_closed()
        await ours.lost
        theirs.close()

    stack.run(main)


def test_wait_closed_does_not_deviate_from_the_running_python(stack: Site) -> None:
    """cpython gh-104344, gh-113538, websockets#1608, uvicorn#2145: from 3.12.1 on it waits for every client, before for
    none; a program is written for the one it runs on."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            accepted.server.close()
            waiting = asyncio.create_task(accepted.server.wait_closed())
            await asyncio.sleep(0.05)
            assert waiting.done() == (not WAITS_FOR_CLIENTS)
            theirs.close()
            await ours.lost
            await waiting
            assert accepted.server.sockets == ()

    stack.run(main)


def test_serve_forever_does_not_hang_when_another_task_closes_the_server(stack: Site) -> None:
    """zuvloop#31."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            serving = asyncio.create_task(accepted.server.serve_forever())
            await asyncio.sleep(0.01)
            accepted.server.close()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(serving, 5)

    stack.run(main)


def test_cancelled_serve_forever_does_with_the_clients_what_asyncio_does(stack: Site) -> None:
    """zuvloop#156 and #179, cpython gh-123720: no new clients, and those that are there are served on, or closed."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            serving = asyncio.create_task(accepted.server.serve_forever())
            await asyncio.sleep(0.01)
            serving.cancel()
            if CANCELLING_CLOSES_CLIENTS:
                with theirs, pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(serving, 5)
                assert await ours.lost is None
                return
            await asyncio.sleep(0.05)
            assert not accepted.server.is_serving()
            assert not ours.lost.done()
            ours.transport.write(b"still here")
            assert await in_thread(theirs.recv, 100) == b"still here"
            theirs.close()
            await ours.lost
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(serving, 5)

    stack.run(main)


def test_running_out_of_descriptors_does_not_stop_or_stall_the_server() -> None:
    """uvicorn#1030, zuvloop#78, #88 and #89: accept backs off, the loop goes on, and serves again. (A connection on VPP
    takes no descriptor.)"""
    stack = HostSite()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        problems: list[Any] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        async with Accepted(stack) as accepted:
            (_, first), (_, second) = await accepted.connect(), await accepted.connect()
            waiting = stack.kernel_socket()
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
            try:
                await in_thread(waiting.connect, (stack.address, port_of(accepted.server)))
                await eventually(lambda: problems)
                await asyncio.wait_for(asyncio.sleep(0.1), 0.5)  # still responsive
                assert len(accepted.protocols) == 2
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            assert len(problems) == 1
            assert "out of system resource" in problems[0]["message"]
            await eventually(lambda: len(accepted.protocols) == 3)
            for sock in (first, second, waiting):
                sock.close()

    stack.run(main)
