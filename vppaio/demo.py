"""A small web service on aiohttp: an ordinary asyncio program, there is nothing of vppaio in it.

`python vppaio/demo.py` serves it on stock asyncio, `vppaio demo` serves the same on vppaio.

    /           a greeting as JSON; says which event loop serves
    /bytes/N    N bytes that count up, for downloads
    /echo       returns what is posted
    /ws         returns every websocket message
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import WSMsgType, web

MOST_BYTES = 1 << 30
_COUNTING = bytes(range(251)) * 256  # 251 is prime: no block size hides a byte that went missing


async def hello(_: web.Request) -> web.Response:
    loop = type(asyncio.get_running_loop())
    return web.json_response({"hello": "world", "loop": f"{loop.__module__}.{loop.__qualname__}"})


async def download(request: web.Request) -> web.StreamResponse:
    size = int(request.match_info["size"])
    if size > MOST_BYTES:
        raise web.HTTPBadRequest(text=f"{size} is too many, ask for at most {MOST_BYTES} bytes\n")
    response = web.StreamResponse(headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"})
    await response.prepare(request)
    while size > 0:
        await response.write(_COUNTING[:size])
        size -= len(_COUNTING)
    await response.write_eof()
    return response


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/octet-stream")


async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=64 << 20)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def make_app() -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/", hello)
    app.router.add_get(r"/bytes/{size:\d{1,12}}", download)
    app.router.add_post("/echo", echo)
    app.router.add_get("/ws", websocket)
    return app


def url_of(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}/" if len(address) == 4 else f"http://{host}:{port}/"


def announce(address: tuple[Any, ...]) -> None:
    print(f"demo on {type(asyncio.get_running_loop()).__name__}: {url_of(address)}", flush=True)


async def serve(host: str, port: int, announce: Callable[[tuple[Any, ...]], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` gets the address once connections are accepted."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(make_app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, shutdown_timeout=2).start()
        announce(runner.addresses[0])
        await stopped.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None, announce: Callable[[tuple[Any, ...]], None] = announce) -> None:
    parser = argparse.ArgumentParser(description="A small aiohttp service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.host, options.port, announce))


if __name__ == "__main__":
    main()
