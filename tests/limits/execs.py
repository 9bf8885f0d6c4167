"""A service that replaces itself by exec, again and again, and what is open each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from vppaio.testing.vppinstance import VppInstance

ROOT: Final = Path(__file__).parents[2]
CODE: Final = """
import asyncio, os, sys, vppaio

async def main(address):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, address, 0)
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(address, 0))
    peer = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", os.environ["VPP_NAMESPACE"], sys.executable, "-I", "-S", "-c",
        "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)",
        address, str(server.sockets[0].getsockname()[1]))
    assert await peer.wait() == 0  # now there are segments
    await asyncio.sleep(0.4)  # VPP dies of an application that leaves sooner after an accept
    left = int(sys.argv[2])
    print(len(os.listdir("/proc/self/fd")), len(before), flush=True)
    if left:
        os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], address, str(left - 1)])

before = os.listdir("/proc/self/fd")
vppaio.run(main(sys.argv[1]))
"""


def count_after(vpp: VppInstance, times: int) -> list[tuple[int, int]]:
    """Descriptors of the service when it serves, and before it began, each of the times."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "VPPAIO_STACK": "vpp"} | vpp.environment()
    done = subprocess.run(
        [sys.executable, "-c", CODE, vpp.address, str(times)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60 + 5 * times,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == times + 1, done.stdout
    return [(serving, before) for serving, before in found]
