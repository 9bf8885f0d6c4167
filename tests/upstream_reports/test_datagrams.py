"""Complaints about datagram endpoints."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import HostSite, Site, eventually

# Answered elsewhere: errors of sending, and broadcast, tests/behaviour/test_datagrams.py.


class Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.news: list[Any] = []
        self.datagrams: list[tuple[bytes, Any]] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.news.append(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.news.append("lost")


def test_connected_endpoint_does_not_send_elsewhere(stack: Site) -> None:
    """uvloop#319."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer, stack.datagrams() as other:
            transport, _ = await loop.create_datagram_endpoint(Heard, remote_addr=peer.getsockname())
            with pytest.raises(ValueError, match="Invalid address"):
                transport.sendto(b"x", other.getsockname())
            transport.sendto(b"to the peer", peer.getsockname())
            assert await asyncio.to_thread(peer.recv, 100) == b"to the peer"
            transport.close()

    stack.run(main)


def test_ipv6_endpoints_do_not_refuse_their_peers_address() -> None:
    """uvloop#108, zuvloop#66: flow and scope included, as recvfrom gives it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
            peer.bind(("::1", 0))
            transport, ours = await loop.create_datagram_endpoint(Heard, remote_addr=("::1", peer.getsockname()[1]))
            transport.sendto(b"x")
            _, address = await asyncio.to_thread(peer.recvfrom, 100)
            peer.sendto(b"back", address)
            await eventually(lambda: ours.datagrams)
            assert ours.datagrams == [(b"back", peer.getsockname())]
            transport.sendto(b"again", peer.getsockname())
            assert await asyncio.to_thread(peer.recv, 100) == b"again"
            transport.close()

    HostSite().run(main)


def test_unix_datagrams_are_not_missing(stack: Site, tmp_path: Path) -> None:
    """uvloop#196."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        receiver, ours = await loop.create_datagram_endpoint(Heard, local_addr=path, family=socket.AF_UNIX)
        sender, _ = await loop.create_datagram_endpoint(Heard, remote_addr=path, family=socket.AF_UNIX)
        sender.sendto(b"hello")
        await eventually(lambda: ours.datagrams)
        assert ours.datagrams[0][0] == b"hello"
        sender.close()
        receiver.close()

    stack.run(main)


def test_pause_reading_is_not_missing(stack: Site) -> None:
    """zuvloop#26."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer:
            transport, ours = await loop.create_datagram_endpoint(Heard, (stack.address, 0))
            transport.pause_reading()
            assert not transport.is_reading()
            peer.sendto(b"waits", transport.get_extra_info("sockname"))
            await asyncio.sleep(0.1)
            assert not ours.datagrams
            transport.resume_reading()
            await eventually(lambda: ours.datagrams)
            transport.close()

    stack.run(main)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_is_received_after_close(stack: Site, end: str) -> None:
    """zuvloop#77: not even what is there already."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer:
            transport, ours = await loop.create_datagram_endpoint(Heard, (stack.address, 0))
            for _ in range(10):
                peer.sendto(b"too late", transport.get_extra_info("sockname"))
            stack.settle()
            getattr(transport, end)()
            await asyncio.sleep(0.1)
            assert ours.news == ["lost"]
            assert not ours.datagrams
            transport.sendto(b"too late, too", peer.getsockname())

    stack.run(main)
