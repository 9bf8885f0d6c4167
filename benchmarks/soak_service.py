"""The service of benchmarks.soak: echo, TLS, UDP and aiohttp in one loop. Each line on stdin is answered by a line of
JSON about itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
from typing import Any, Final

from aiohttp import web

import vppaio
from vppaio.vcl import application

MIB: Final = 1 << 20
_messages = 0
_errors: list[str] = []
_status: Final = os.open("/proc/self/status", os.O_RDONLY)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        global _messages
        _messages += 1
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        global _messages
        _messages += 1
        self.transport.sendto(data, address)


async def answer(request: web.Request) -> web.Response:
    global _messages
    _messages += 1
    body = await request.read()
    return web.Response(body=body[::-1])


def about(loop: Any, heap_at_start: int) -> str:
    stacks = loop.statistics()["stacks"]
    # Held open: there may be no descriptor just now.
    lines = os.pread(_status, 65536, 0).decode().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return json.dumps(
        {
            "messages": _messages,
            "rss_mib": (kib["RssAnon"] + kib["RssFile"]) / 1024,
            "shared_mib": kib["RssShmem"] / 1024,  # FIFOs, which are VPP's memory as well, and libvppcom's heap
            "heap_mib": (heap_at_start - application.heap_room()) / MIB,
            "sessions": sum(stack["sessions"] for stack in stacks.values()),
            "errors": _errors,
        }
    )


async def serve(o: argparse.Namespace) -> None:
    loop: Any = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _errors.append(f"{context['message']} {context.get('exception')!r}"))
    heap_at_start = application.heap_room() if "vpp" in loop.stacks else 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(o.certificate)
    await loop.create_server(Echo, o.address, o.echo, backlog=1024)
    await loop.create_server(Echo, o.address, o.tls, backlog=1024, ssl=context)
    await loop.create_datagram_endpoint(DatagramEcho, local_addr=(o.address, o.udp))
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, o.address, o.http, backlog=1024).start()
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(about(loop, heap_at_start), flush=True)
    await runner.cleanup()


def arguments() -> argparse.Namespace:
    """What service and client are told."""
    parser = argparse.ArgumentParser()
    for name in ("echo", "tls", "udp", "http"):
        parser.add_argument(f"--{name}", type=int, required=True, metavar="PORT")
    parser.add_argument("--address", required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--trouble", action="store_true", help="connections may fail")
    return parser.parse_args()


if __name__ == "__main__":
    vppaio.run(serve(arguments()))
