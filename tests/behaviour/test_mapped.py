"""IPv4-mapped addresses on IPv6 sockets, as the kernel has them, and source addresses that cannot be one."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from typing import Any

import pytest

import vppaio
from tests.support.sites import Site, VppSite, in_thread

MAPPED = "::ffff:"


def test_a_stream_to_a_mapped_address(stack: Site) -> None:
    async def main() -> None:
        with stack.listen() as listener:
            address = (MAPPED + listener.getsockname()[0], listener.getsockname()[1])
            reader, writer = await asyncio.open_connection(*address)
            connection, peer = await in_thread(listener.accept)
            with connection:
                connection.sendall(b"x")
                assert await reader.readexactly(1) == b"x"
                assert writer.get_extra_info("peername") == (*address, 0, 0)
                own = writer.get_extra_info("sockname")
                assert own == (MAPPED + peer[0], peer[1], 0, 0)
                assert writer.get_extra_info("socket").family == socket.AF_INET6
                writer.close()
                await writer.wait_closed()

    stack.run(main)


def test_a_stream_from_a_mapped_address(stack: Site) -> None:
    async def main() -> None:
        with stack.listen() as listener:
            host, port = listener.getsockname()[:2]
            _, writer = await asyncio.open_connection(MAPPED + host, port, local_addr=(MAPPED + stack.address, 0))
            connection, peer = await in_thread(listener.accept)
            with connection:
                assert peer[0] == stack.address
                writer.close()
                await writer.wait_closed()

    stack.run(main)


def test_sock_connect_to_a_mapped_address(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener, vppaio.socket(socket.AF_INET6) as sock:
            host, port = listener.getsockname()[:2]
            await loop.sock_connect(sock, (MAPPED + host, port))
            connection, peer = await in_thread(listener.accept)
            assert sock.getsockname()[:2] == (MAPPED + peer[0], peer[1])
            connection.close()

    stack.run(main)


def test_a_datagram_from_an_unbound_socket_to_a_mapped_address(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer, vppaio.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            host, port = peer.getsockname()[:2]
            if stack.name == "vpp":  # as of IPv4: no source to choose
                with pytest.raises(OSError, match="wildcard address"):
                    await loop.sock_sendto(sock, b"x", (MAPPED + host, port))
                return
            await loop.sock_sendto(sock, b"x", (MAPPED + host, port))
            assert (await in_thread(peer.recvfrom, 10))[0] == b"x"

    stack.run(main)


def test_a_listener_at_a_mapped_address(stack: Site) -> None:
    """With sock_*: asyncio's create_server sets IPV6_V6ONLY, and the kernel then refuses mapped addresses."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = vppaio.socket(socket.AF_INET6)
        listener.bind((MAPPED + stack.address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with await in_thread(stack.connect, port) as peer:
            accepted, address = await loop.sock_accept(listener)
            assert address == (MAPPED + peer.getsockname()[0], peer.getsockname()[1], 0, 0)
            assert accepted.getpeername() == address
            assert accepted.getsockname()[:2] == (MAPPED + stack.address, port)
            accepted.close()
        listener.close()

    stack.run(main)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))


@pytest.mark.parametrize("connected", [False, True])
def test_datagrams_at_and_to_mapped_addresses(stack: Site, connected: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer:
            peer.settimeout(5)
            host, port = peer.getsockname()[:2]
            where: dict[str, Any] = {"local_addr": (MAPPED + stack.address, 0)}
            if connected:
                where["remote_addr"] = (MAPPED + host, port)
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, **where)
            transport.sendto(b"ping", None if connected else (MAPPED + host, port))
            data, address = await in_thread(peer.recvfrom, 100)
            assert (data, address[0]) == (b"ping", stack.address)
            assert transport.get_extra_info("sockname")[:2] == (MAPPED + stack.address, address[1])
            await in_thread(peer.sendto, b"pong", address)
            assert await protocol.received.get() == (b"pong", (MAPPED + host, port, 0, 0))
            transport.close()

    stack.run(main)


@pytest.mark.vpp
def test_a_session_with_an_ipv6_address_reaches_no_ipv4(vpp_site: VppSite) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vpp_site.datagrams() as peer:
            host, port = peer.getsockname()[:2]
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = vppaio.socket(socket.AF_INET6, kind, stack="vpp")
                sock.bind((vpp_site.vpp.address6, 0))
                send = loop.sock_connect(sock, (MAPPED + host, port))
                if kind == socket.SOCK_DGRAM:
                    send.close()
                    send = loop.sock_sendto(sock, b"x", (MAPPED + host, port))
                with pytest.raises(OSError, match=r"Network is unreachable|Connect call failed") as caught:
                    await send
                assert caught.value.errno == errno.ENETUNREACH
                sock.close()

    vpp_site.run(main)


# ---- sources ---------------------------------------------------------------------------------------------------------


async def _create_connection(local: str, remote: Any) -> None:
    await asyncio.open_connection(*remote, local_addr=(local, 0))


async def _endpoint(local: str, remote: Any) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=(local, 0), remote_addr=remote)
    transport.close()


async def _sock_connect(local: str, remote: Any) -> None:
    with vppaio.socket(socket.AF_INET6 if ":" in local else socket.AF_INET, stack="vpp") as sock:
        sock.bind((local, 0))
        await asyncio.get_running_loop().sock_connect(sock, remote)


async def _sock_connect_datagram(local: str, remote: Any) -> None:
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    with vppaio.socket(family, socket.SOCK_DGRAM, stack="vpp") as sock:
        sock.bind((local, 0))
        await asyncio.get_running_loop().sock_connect(sock, remote)


async def _adopted(local: str, remote: Any) -> None:
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        sock.bind((local, 0))
        await asyncio.get_running_loop().sock_connect(sock, remote)


@pytest.mark.vpp
@pytest.mark.parametrize(
    "how",
    [_create_connection, _endpoint, _sock_connect, _sock_connect_datagram, _adopted],
    ids=lambda how: how.__name__,
)
@pytest.mark.parametrize("local", ["127.0.0.1", "127.8.9.1", "10.99.0.1", "10.76.0.2", "224.0.0.1", "::1", "fd99::1"])
def test_a_source_that_is_not_vpps_fails_at_once(vpp_site: VppSite, how: Any, local: str) -> None:
    async def main() -> None:
        remote = vpp_site.vpp.kernel_address6 if ":" in local else vpp_site.vpp.kernel_address
        begin = time.monotonic()
        with pytest.raises(OSError, match=local) as caught:
            await how(local, (remote, 9))
        assert time.monotonic() - begin < 3
        assert caught.value.errno == errno.EADDRNOTAVAIL

    vpp_site.run(main)
