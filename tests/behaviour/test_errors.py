"""Bad addresses and unlucky ones: the OSError and errno that asyncio gives, and a text that names the address."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vppaio
from tests.support.sites import Site, VppSite, no_sessions, port_of
from vppaio.config import Config


@contextlib.contextmanager
def fails(kind: type[OSError], code: int, *texts: object) -> Iterator[None]:
    """The block raises `kind` with errno `code`, and its text names all of `texts`."""
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.errno == code, caught.value
    for text in texts:
        assert str(text) in str(caught.value)


async def connect(host: str, port: int, **options: Any) -> None:
    await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port, **options)


async def serve(host: Any, port: int, **options: Any) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, **options)


def free_port(stack: Site) -> int:
    """A port of the peer's on which nobody listens."""
    with stack.listen() as listener:
        port: int = listener.getsockname()[1]
        return port


# ---- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["300.1.1.1", "no such host", "host.invalid", "fe80::1%nowhere", "1.2.3.4.5"])
def test_malformed_or_unknown_host_is_a_resolver_error(stack: Site, host: str) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            await connect(host, 80)
        with pytest.raises(socket.gaierror):
            await serve(host, 0)

    stack.run(main)


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_port_out_of_range_is_an_overflow_error(stack: Site, port: int) -> None:
    """asyncio's answer, which comes from the socket module."""

    async def main() -> None:
        with pytest.raises((OverflowError, socket.gaierror)):
            await connect(stack.peer_address, port)
        with pytest.raises((OverflowError, socket.gaierror)):
            await serve(stack.address, port)

    stack.run(main)


def test_port_in_use(stack: Site) -> None:
    async def main() -> None:
        first = await serve(stack.address, 0)
        port = port_of(first)
        async with first:
            with fails(OSError, errno.EADDRINUSE, stack.address, port):
                await serve(stack.address, port)
        async with await serve(stack.address, port):
            pass

    stack.run(main)


# From 3.13 on asyncio takes it for an address family that is switched off, and leaves it out.
LEAVES_OUT = "EADDRNOTAVAIL" in asyncio.BaseEventLoop.create_server.__code__.co_names


def test_address_that_is_not_the_stacks_own(stack: Site) -> None:
    async def main() -> None:
        if stack.name == "host" and LEAVES_OUT:
            with pytest.raises(OSError, match=f"could not bind on any address out of .*{stack.foreign_address}"):
                await serve(stack.foreign_address, 4000)
            async with await serve([stack.address, stack.foreign_address], 4001) as server:
                assert [sock.getsockname() for sock in server.sockets] == [(stack.address, 4001)]
            return
        with fails(OSError, errno.EADDRNOTAVAIL, stack.foreign_address):
            await serve(stack.foreign_address, 4000)
        with fails(OSError, errno.EADDRNOTAVAIL, stack.foreign_address):
            await serve([stack.address, stack.foreign_address], 4001)

    stack.run(main)


def test_local_address_that_is_not_the_stacks_own(stack: Site) -> None:
    async def main() -> None:
        with stack.listen() as listener, pytest.raises(OSError, match=stack.foreign_address):
            await connect(*listener.getsockname(), local_addr=(stack.foreign_address, 0))

    stack.run(main)


# ---- connecting ------------------------------------------------------------------------------------------------------


def test_refused(stack: Site) -> None:
    async def main() -> None:
        port = free_port(stack)
        with fails(ConnectionRefusedError, errno.ECONNREFUSED, stack.peer_address, port):
            await connect(stack.peer_address, port)

    stack.run(main)


def test_silent_host_with_a_timeout_around_it(stack: Site) -> None:
    async def main() -> None:
        with stack.silence() as address:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await connect(*address)
        await no_sessions()  # it refuses now, so nothing is left to wait for

    stack.run(main)


def test_unroutable(stack: Site) -> None:
    # TCP to a multicast address is ENETUNREACH in the kernel; VPP has no route to it and no reason to give.
    host, code = ("224.0.0.1", errno.ENETUNREACH) if stack.name == "host" else ("192.0.2.1", errno.EHOSTUNREACH)

    async def main() -> None:
        with fails(OSError, code, host, 80):
            await connect(host, 80)

    stack.run(main)


def test_every_address_that_failed_is_named(stack: Site) -> None:
    async def main() -> None:
        port = free_port(stack)
        with pytest.raises(ExceptionGroup) as caught:
            await connect(stack.peer_address, port, all_errors=True)
        (error,) = caught.value.exceptions
        assert isinstance(error, ConnectionRefusedError)
        assert str(port) in str(error)

    if "all_errors" in asyncio.BaseEventLoop.create_connection.__kwdefaults__:
        stack.run(main)


@pytest.mark.vpp
def test_address_of_vpp_itself_without_a_listener_fails_within_a_timeout(vpp_site: VppSite) -> None:
    """VPP drops a SYN to itself: nothing is heard for 66 s (docs/vpp.md 8.2). So the orphan stays for as long."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await connect(vpp_site.address, 1)

    vpp_site.run(main, orphans=1)


# ---- settings and files ----------------------------------------------------------------------------------------------


def test_unknown_stack_is_named() -> None:
    with pytest.raises(ValueError, match="stack: 'kernel' is not allowed; use auto, vpp or host"):
        Config(stack="kernel")  # type: ignore[arg-type]


def test_route_to_vpp_on_a_loop_without_it() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8=vpp"):
        vppaio.new_event_loop(Config(stack="host", routes="10.0.0.0/8=vpp"))


def test_unreadable_certificate(stack: Site, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with fails(FileNotFoundError, errno.ENOENT):
        context.load_cert_chain(tmp_path / "missing.pem")

    async def main() -> None:
        # A context without a certificate serves nobody, and neither the server nor the client hangs.
        server = await serve(stack.address, 0, ssl=context)
        async with server:
            client = ssl.create_default_context()

            def handshake() -> None:
                with stack.connect(port_of(server)) as peer, pytest.raises(ssl.SSLError):
                    client.wrap_socket(peer, server_hostname="localhost")

            await asyncio.to_thread(handshake)

    stack.run(main)


def test_ssl_that_is_no_context(stack: Site) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="SSLContext"):
            await serve(stack.address, 0, ssl=True)

    stack.run(main)
