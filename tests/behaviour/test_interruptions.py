"""A callback that is interrupted, or fails, was told of what it has not read yet for the only time."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import vppaio
from tests.support.sites import HostSite, Site, eventually, port_of

SIZE = 400_000  # more than one read


def run_interrupted(stack: Site, begin: Any, finish: Any) -> None:
    """Run `begin` until it is interrupted, then `finish`, on one loop."""
    loop = vppaio.new_event_loop(stack.config)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait_for(begin(), 20))
        loop.run_until_complete(asyncio.wait_for(finish(), 20))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
    finally:
        loop.close()


def test_rest_of_a_stream_is_read_by_a_loop_that_runs_again(stack: Site) -> None:
    received = 0
    servers: list[Any] = []

    class Interrupted(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(0.3, transport.resume_reading)

        def data_received(self, data: bytes) -> None:
            nonlocal received
            first, received = not received, received + len(data)
            if first:
                raise KeyboardInterrupt

    with socket.socket() as unused:
        peers = [unused]

        async def begin() -> None:
            servers.append(await asyncio.get_running_loop().create_server(Interrupted, stack.address, 0))
            peers.append(await asyncio.to_thread(stack.connect, port_of(servers[0])))
            await asyncio.to_thread(peers[-1].sendall, bytes(SIZE))
            await asyncio.sleep(10)

        async def finish() -> None:
            await eventually(lambda: received == SIZE)
            peers[-1].close()
            servers[0].close()

        run_interrupted(stack, begin, finish)


def test_rest_of_the_datagrams_is_read_by_a_loop_that_runs_again(stack: Site) -> None:
    received: list[bytes] = []
    transports: list[Any] = []

    class Interrupted(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            received.append(data)
            if len(received) == 1:
                raise KeyboardInterrupt

    async def begin() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Interrupted, local_addr=(stack.address, 0))
        transports.append(transport)
        with stack.datagrams() as peer:
            for data in (b"1", b"2", b"3"):
                peer.sendto(data, transport.get_extra_info("sockname"))
        stack.settle()
        await asyncio.sleep(10)

    async def finish() -> None:
        await eventually(lambda: len(received) == 3)
        transports[0].close()

    run_interrupted(stack, begin, finish)


def test_datagrams_behind_an_error_are_read_though_error_received_fails() -> None:
    """On the host stack, where one socket brings both."""
    stack = HostSite()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        failed: list[Any] = []
        received: list[bytes] = []
        loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))

        class Fails(asyncio.DatagramProtocol):
            def error_received(self, exc: Exception) -> None:
                raise RuntimeError from exc

            def datagram_received(self, data: bytes, addr: Any) -> None:
                received.append(data)

        with stack.datagrams() as peer:
            name = peer.getsockname()
        transport, _ = await loop.create_datagram_endpoint(Fails, remote_addr=name)
        transport.sendto(b"nobody is there")
        with stack.datagrams(name[1]) as peer:
            for _ in range(3):
                peer.sendto(b"x", transport.get_extra_info("sockname"))
            await eventually(lambda: len(received) == 3)
        assert [type(exc) for exc in failed] == [RuntimeError]
        transport.close()

    stack.run(main)
