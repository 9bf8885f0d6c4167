"""websockets, httpx and anyio, unchanged: what they connect to, and what connects to them, is the kernel's."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.sync.server

from tests.support.connections import kernel_http
from tests.support.sites import PATIENCE, HostSite, Site, in_thread, port_of

SYNC_CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], proxy=None, max_size=None) as connection:
    connection.send(bytes(1_000_000))
    assert connection.recv(timeout=10) == bytes(1_000_000)
    for number in range(100):
        connection.send(f"{number}")
        assert connection.recv(timeout=10) == f"{number}"
print("done")
"""


def test_websockets_server(stack: Site) -> None:
    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with websockets.asyncio.server.serve(echo, stack.address, 0, max_size=None) as server:
            url = f"ws://{stack.address}:{port_of(server)}/"
            done = await in_thread(stack.command, [sys.executable, "-c", SYNC_CLIENT, url], PATIENCE * 3)
            assert done.stdout == "done\n", done.stderr

    stack.run(main)


def test_websockets_client(stack: Site) -> None:
    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    async def main() -> None:
        with stack.listen() as listener:
            host, port = listener.getsockname()
            with websockets.sync.server.serve(echo, sock=listener) as server:
                serving = asyncio.create_task(in_thread(server.serve_forever))
                async with websockets.asyncio.client.connect(f"ws://{host}:{port}/", proxy=None) as connection:
                    for number in range(100):
                        await connection.send(f"message {number}")
                        assert await connection.recv() == f"message {number}"
                server.shutdown()
                await serving

    stack.run(main)


def test_httpx(stack: Site) -> None:
    """Over anyio, which polls the descriptor of get_extra_info("socket") before it uses a connection again."""

    async def main() -> None:
        with stack.serve(kernel_http) as server:
            async with httpx.AsyncClient(
                base_url=f"http://{server.address[0]}:{server.port}", trust_env=False
            ) as client:
                for number in range(10):
                    assert (await client.get(f"/{number}")).text == f"GET /{number} HTTP/1.1"
                answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(30)))
                assert [answer.text for answer in answers] == [f"GET /{number} HTTP/1.1" for number in range(30)]

    stack.run(main)


def test_anyio_listener_and_task_group() -> None:
    """On the host stack: anyio accepts with sock_accept on the kernel socket that it made, which stays the kernel's."""
    stack = HostSite()

    async def echo(client: Any) -> None:
        async with client:
            async for data in client:
                await client.send(data)

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host=stack.address)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with await anyio.connect_tcp(stack.address, port) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"
            group.cancel_scope.cancel()
        await listener.aclose()

    stack.run(main)


def test_anyio_connects(stack: Site) -> None:
    def echo(connection: Any) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    async def main() -> None:
        with stack.serve(echo) as server:
            async with await anyio.connect_tcp(*server.address) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"
                assert client.extra(anyio.abc.SocketAttribute.remote_port) == server.port
                await client.send_eof()
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()

    stack.run(main)
