"""What is bound to a loopback address stays on the kernel's stack, also while everything else is on VPP."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import vppaio
from vppaio.config import Config
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp


@pytest.mark.parametrize("loopback", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_server_on_loopback_is_not_reachable_through_vpp(vpp_instance: VppInstance, loopback: str) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        assert loop.stacks == ("host", "vpp")
        inner = await loop.create_server(asyncio.Protocol, loopback, 0)
        datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(loopback, 0))
        exposed = await loop.create_server(asyncio.Protocol, vpp_instance.address, 0)
        try:
            found = loop.statistics()["stacks"]
            assert found["vpp"]["sessions"] == found["vpp"]["listeners"] == 1
            assert await asyncio.to_thread(reachable, exposed.sockets[0].getsockname()[1])
            for sock in inner.sockets:
                port = sock.getsockname()[1]
                assert not await asyncio.to_thread(reachable, port)
                socket.create_connection(sock.getsockname()[:2], 5).close()  # it does serve, here
                listeners = await asyncio.to_thread(vpp_instance.ctl, "show session")
                assert f":{port}" not in listeners
        finally:
            datagrams.close()
            inner.close()
            exposed.close()

    def reachable(port: int) -> bool:
        """Through any address of VPP's, from its other side."""
        answers = 0
        for address in (
            vpp_instance.address,
            vpp_instance.address6,
            vpp_instance.loop_address,
            vpp_instance.loop_address6,
        ):
            try:
                vpp_instance.kernel_connect(address, port, 2).close()
                answers += 1
            except ConnectionRefusedError:
                continue
        return answers > 0

    vppaio.run(main(), config=Config(stack="vpp", app_socket=vpp_instance.app_socket))
