"""What a message costs in vppaio and Python alone: an echo on a table with nothing behind it.

    python -m benchmarks.micro.stream [--sessions 32] [--size 64] [--kind protocol|buffered|streams] [--seconds 0.3]

Prints nanoseconds of processor time per message, the least of several runs: the figure of a quiet moment. A turn of the
loop has as many messages as there are sessions, so two numbers of sessions tell the turn's cost from the message's.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import subprocess
import time
from typing import Any

import vppaio
from benchmarks import native, servers
from vppaio.reactor.session import TCP
from vppaio.reactor.worker import Worker
from vppaio.transports.stream import StreamTransport


def table() -> Any:
    """The null table's library, compiled if need be."""
    source, target = native.HERE / "micro" / "null_table.c", native.BUILD / "null_table.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        native.BUILD.mkdir(exist_ok=True)
        flags = ["-O2", "-shared", "-fPIC", f"-I{native.TABLES}"]
        subprocess.run(["cc", *flags, "-o", str(target), str(source)], check=True)
    library = ctypes.CDLL(str(target))
    library.null_ops.restype = ctypes.c_size_t
    library.null_writes.restype = ctypes.c_uint64
    library.null_message.argtypes = [ctypes.c_size_t]
    return library


def protocol_of(kind: str, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
    if kind == "protocol":
        return servers.Echo()
    if kind == "buffered":
        return servers.BufferedEcho()
    reader = asyncio.StreamReader(loop=loop)
    return asyncio.StreamReaderProtocol(reader, servers.echo_stream, loop=loop)


async def measure(o: argparse.Namespace) -> list[float]:
    library = table()
    library.null_message(o.size)
    loop: Any = asyncio.get_running_loop()
    worker = Worker(library.null_ops())
    loop._poller.add(worker)
    keep = [StreamTransport(loop, worker.create(TCP, True), protocol_of(o.kind, loop)) for _ in range(o.sessions)]
    await asyncio.sleep(0.05)
    found = []
    for _ in range(o.rounds):
        writes, cpu = library.null_writes(), time.process_time_ns()
        await asyncio.sleep(o.seconds)
        found.append((time.process_time_ns() - cpu) / (library.null_writes() - writes))
    assert keep
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.stream")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kind", choices=("protocol", "buffered", "streams"), default="protocol")
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=7)
    o = parser.parse_args()
    loop = vppaio.new_event_loop(vppaio.Config(stack="host"))
    print(f"{min(loop.run_until_complete(measure(o))):.1f} ns/message", flush=True)
    os._exit(0)  # nobody is to say farewell to the connections


if __name__ == "__main__":
    main()
