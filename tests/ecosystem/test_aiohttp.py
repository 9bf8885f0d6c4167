"""aiohttp, unchanged: a server asked by curl and by its own client, a client asking the kernel, WebSockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

import vppaio
from tests.support.connections import kernel_http
from tests.support.sites import PATIENCE, Site, in_thread, receive_all


async def echo(request: Any) -> Any:
    return web.Response(body=await request.read(), headers={"X-Method": request.method})


async def chunks(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(100):
        await response.write(b"%d\n" % number)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def web_socket(request: Any) -> Any:
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        await connection.send_str(message.data.upper())
    return connection


async def serving(stack: Site, sslcontext: ssl.SSLContext | None = None, file: Path | None = None) -> tuple[Any, int]:
    """A running application and its port."""

    async def download(request: Any) -> Any:
        return web.FileResponse(file)

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/echo", echo)
    application.router.add_get("/chunks", chunks)
    application.router.add_get("/ws", web_socket)
    application.router.add_get("/file", download)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, stack.address, 0, ssl_context=sslcontext).start()
    return runner, runner.addresses[0][1]


def curl(stack: Site, *arguments: str) -> str:
    done = stack.command(["curl", "-sS", "-m", "20", *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_server_answers_curl(stack: Site, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(os.urandom(2_000_000))

    async def main() -> None:
        runner, port = await serving(stack, file=tmp_path / "upload")
        url = f"http://{stack.address}:{port}"
        assert await in_thread(curl, stack, "-d", "hello", f"{url}/echo") == "hello"
        assert (await in_thread(curl, stack, f"{url}/chunks")).split() == [str(n) for n in range(100)]
        for source, options in (("echo", ["--data-binary", f"@{tmp_path / 'upload'}"]), ("file", [])):
            await in_thread(curl, stack, "-o", str(tmp_path / "download"), *options, f"{url}/{source}")
            assert (tmp_path / "download").read_bytes() == (tmp_path / "upload").read_bytes()
        three = ["-o", "/dev/null", f"{url}/chunks"] * 3
        assert await in_thread(curl, stack, "-w", "%{num_connects}", *three) == "100"  # one connection for all
        await runner.cleanup()

    stack.run(main)


def test_server_answers_curl_over_tls(stack: Site, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(stack.address).configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def main() -> None:
        runner, port = await serving(stack, context)
        url = f"https://{stack.address}:{port}/echo"
        assert await in_thread(curl, stack, "--cacert", str(tmp_path / "ca.pem"), "-d", "hello", url) == "hello"
        await runner.cleanup()

    stack.run(main)


def test_client_keeps_connections_alive(stack: Site) -> None:
    async def main() -> None:
        with stack.serve(kernel_http) as server:
            async with aiohttp.ClientSession(f"http://{server.address[0]}:{server.port}") as session:

                async def ask(number: int) -> None:
                    async with session.get(f"/{number}") as response:
                        assert await response.text() == f"GET /{number} HTTP/1.1"

                for number in range(20):
                    await ask(number)
                await asyncio.gather(*(ask(number) for number in range(100, 150)))

    stack.run(main)


def kernels(info: Any) -> socket.socket:
    """What users make of it: options that have to be set before the handshake."""
    made = socket.socket(*info[:3])
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@pytest.mark.parametrize("make", [kernels, lambda info: vppaio.socket(*info[:2])], ids=["kernel", "vppaio"])
def test_client_connects_sockets_of_a_factory(stack: Site, make: Any) -> None:
    """aiohttp#10520, #10534, #10962: socket_factory of TCPConnector. On VPP a session stands in for a kernel socket."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        asked: list[Any] = []

        def factory(info: Any) -> Any:
            asked.append(info[4])
            return make(info)

        with stack.serve(kernel_http) as server:
            connector = aiohttp.TCPConnector(socket_factory=factory)
            url = f"http://{server.address[0]}:{server.port}"
            async with aiohttp.ClientSession(url, connector=connector) as session:
                for number in range(3):
                    async with session.get(f"/{number}") as response:
                        assert await response.text() == f"GET /{number} HTTP/1.1"
                assert asked == [server.address]
                assert loop.statistics()["stacks"][stack.name]["sessions"] == 1

    stack.run(main)


def test_client_times_out_and_goes_on(stack: Site) -> None:
    async def main() -> None:
        timeout = aiohttp.ClientTimeout(total=0.3)
        with stack.serve(receive_all) as mute, stack.serve(kernel_http) as server:
            async with aiohttp.ClientSession() as session:
                with pytest.raises(asyncio.TimeoutError):
                    await session.get(f"http://{mute.address[0]}:{mute.port}/", timeout=timeout)
                async with session.get(f"http://{server.address[0]}:{server.port}/ok") as response:
                    assert response.status == 200

    stack.run(main)


def test_web_sockets(stack: Site) -> None:
    """The client in a process on the kernel's side, on asyncio's own loop."""
    program = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.ws_connect(sys.argv[1]) as connection:
        for number in range(100):
            await connection.send_str(f"message {number}")
            assert (await connection.receive_str()) == f"MESSAGE {number}"
    print("done")
asyncio.run(main())
"""

    async def main() -> None:
        runner, port = await serving(stack)
        url = f"http://{stack.address}:{port}/ws"
        done = await in_thread(stack.command, [sys.executable, "-c", program, url], PATIENCE * 3)
        assert done.stdout == "done\n", done.stderr
        await runner.cleanup()

    stack.run(main)
