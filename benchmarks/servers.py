"""The servers under test: the same code for every loop, as one process on one core.

    python -m benchmarks.servers --loop uvloop --workload echo-protocol --address 127.0.0.1 --port 7000 --cpu 0

Says "ready" on stdout once it listens; SIGTERM ends it. aiohttp, uvicorn and the loops are imported when they are asked
for, and nothing else of this package is, so that a server's memory is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

READ_SIZE = 256 * 1024  # what uvloop's own benchmark asks for


# ---- echo ------------------------------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, n: int) -> None:
        self.transport.write(self.view[:n])


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_SIZE):
        writer.write(data)
    writer.close()


async def echo_socket(loop: asyncio.AbstractEventLoop, sock: Any) -> None:
    with sock:
        while data := await loop.sock_recv(sock, READ_SIZE):
            await loop.sock_sendall(sock, data)


async def echo_protocol(o: argparse.Namespace) -> None:
    await asyncio.get_running_loop().create_server(Echo, o.address, o.port, backlog=1024)


async def echo_buffered(o: argparse.Namespace) -> None:
    await asyncio.get_running_loop().create_server(BufferedEcho, o.address, o.port, backlog=1024)


async def echo_streams(o: argparse.Namespace) -> None:
    await asyncio.start_server(echo_stream, o.address, o.port, backlog=1024)


async def echo_tls(o: argparse.Namespace) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(o.certificate)
    await asyncio.get_running_loop().create_server(Echo, o.address, o.port, backlog=1024, ssl=context)


async def echo_udp(o: argparse.Namespace) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, local_addr=(o.address, o.port))


async def echo_sock(o: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    if o.loop == "vppaio-vpp":
        import vppaio

        listener = vppaio.socket()  # VPP's sockets are not the kernel's
        listener.bind((o.address, o.port))
        listener.listen(1024)
    else:
        listener = socket.create_server((o.address, o.port), backlog=1024)
        listener.setblocking(False)

    async def accept() -> None:
        tasks = set()
        while True:
            sock, _ = await loop.sock_accept(listener)
            if o.loop != "vppaio-vpp":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(echo_socket(loop, sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    o.keep = loop.create_task(accept())


# ---- HTTP: the body's size is the path -------------------------------------------------------------------------------


async def http_aiohttp(o: argparse.Namespace) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.match_info["size"]))

    app = web.Application()
    app.router.add_get("/{size}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, o.address, o.port, backlog=1024).start()


async def http_uvicorn(o: argparse.Namespace) -> None:
    import uvicorn

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        body = b"x" * int(scope["path"][1:])
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app, o.address, o.port, http="httptools", lifespan="off", access_log=False, log_level="error", backlog=1024
    )
    server = uvicorn.Server(config)
    o.keep = asyncio.get_running_loop().create_task(server._serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)


# ---- idle connections: both ends are loops ---------------------------------------------------------------------------


async def hold_connections(o: argparse.Namespace) -> None:
    """The client's side of idle-memory."""
    context = None
    if o.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    o.keep = [await loop.create_connection(asyncio.Protocol, o.address, o.port, ssl=context) for _ in range(o.warm_up)]
    print("started", flush=True)
    sys.stdin.readline()  # the harness has looked at our memory
    for _ in range(o.connections):
        o.keep.append(await loop.create_connection(asyncio.Protocol, o.address, o.port, ssl=context))


WORKLOADS: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "echo-protocol": echo_protocol,
    "echo-buffered": echo_buffered,
    "echo-streams": echo_streams,
    "echo-sock": echo_sock,
    "echo-tls": echo_tls,
    "echo-udp": echo_udp,
    "http-aiohttp": http_aiohttp,
    "http-uvicorn": http_uvicorn,
    "connect": echo_protocol,
    "idle-memory": hold_connections,
}


# ---- loops -----------------------------------------------------------------------------------------------------------


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if name == "rloop":
        import rloop

        return rloop.new_event_loop
    if name == "aiofastnet":
        import aiofastnet

        return aiofastnet.loop_factory()
    if name.startswith("vppaio"):
        import vppaio

        return vppaio.new_event_loop
    return asyncio.new_event_loop


async def serve(o: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await WORKLOADS[o.workload](o)
    print("ready", flush=True)
    await stopped.wait()
    if o.loop == "asyncio-ldp":
        await asyncio.sleep(0.4)  # VPP 26.06 dies when an application leaves before VPP has digested its last accept


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--certificate", help="PEM file with key and certificate, for TLS")
    parser.add_argument("--tls", action="store_true", help="idle-memory: connect with TLS")
    parser.add_argument("--connections", type=int, default=1, help="idle-memory: how many to open and hold")
    parser.add_argument("--warm-up", type=int, default=0, help="idle-memory: how many more before the first look")
    o = parser.parse_args()
    if o.cpu is not None:
        os.sched_setaffinity(0, {o.cpu})
    with asyncio.Runner(loop_factory=loop_factory(o.loop)) as runner:
        runner.run(serve(o))


if __name__ == "__main__":
    main()
