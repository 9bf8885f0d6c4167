"""An address belongs to one application: to all loops of a process, and to no second process (see tests/ecosystem)."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.programs import free_port
from tests.support.sites import PATIENCE, VppSite

pytestmark = pytest.mark.vpp


def test_loops_of_one_process_share_an_address(site: VppSite) -> None:
    port = free_port()
    serving, done = threading.Barrier(3, timeout=PATIENCE), threading.Event()

    def serve(name: bytes) -> None:
        class Greeter(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.write(name)
                transport.close()

        async def main() -> None:
            async with await asyncio.get_running_loop().create_server(Greeter, site.address, port):
                await asyncio.to_thread(serving.wait)
                await asyncio.to_thread(done.wait)

        site.run(main)

    def who_answers() -> bytes:
        with site.connect(port) as peer:
            return peer.recv(1)

    with ThreadPoolExecutor(2) as threads:
        loops = [threads.submit(serve, name) for name in (b"a", b"b")]
        try:
            serving.wait()
            answers = [who_answers() for _ in range(20)]
        finally:
            done.set()
        for loop in loops:
            loop.result(PATIENCE)
    assert set(answers) == {b"a", b"b"}


SECOND = """
import asyncio, vppaio

async def main():
    await asyncio.start_server(print, {address!r}, {port}, reuse_port=True)

vppaio.run(main())
"""


def test_reuse_port_is_accepted_and_lets_no_second_process_in(site: VppSite) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, site.address, 0, reuse_port=True)
        async with server:
            port = server.sockets[0].getsockname()[1]
            program = SECOND.format(address=site.address, port=port)
            with site.python("-c", program, stderr=subprocess.STDOUT) as second:
                said, _ = await asyncio.to_thread(second.communicate, timeout=PATIENCE * 2)
            assert second.returncode == 1
            assert "Address already in use" in said

    site.run(main)
