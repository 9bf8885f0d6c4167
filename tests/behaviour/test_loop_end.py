"""When a loop ends, sockets stay their owners': as with asyncio, which closes none of them.

What has no descriptor, a session of VPP's, ends with its loop, and says so.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import vppaio
from tests.support.sites import HostSite, Site, VppSite

KINDS = ["open_connection", "create_connection", "connect_accepted_socket", "start_server", "create_datagram_endpoint"]


@pytest.fixture(params=["asyncio", "vppaio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """asyncio.run, or ours on the host stack."""
    if request.param == "asyncio":
        return asyncio.run
    return lambda main: vppaio.run(main, config=HostSite.config)


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket | None, Any]]:
    """A socket, its peer, and what gives it to the running loop."""
    kind: str = request.param
    theirs = None
    if kind == "start_server":
        ours = socket.create_server(("127.0.0.1", 0))
    elif kind == "create_datagram_endpoint":
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.bind(("127.0.0.1", 0))
    else:
        ours, theirs = connected()

    async def give() -> Any:
        loop = asyncio.get_running_loop()
        match kind:
            case "open_connection":
                return await asyncio.open_connection(sock=ours)
            case "start_server":
                return await asyncio.start_server(lambda *_: None, sock=ours)
            case "create_datagram_endpoint":
                return await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
            case "connect_accepted_socket":
                return await loop.connect_accepted_socket(asyncio.Protocol, ours)
            case _:
                return await loop.create_connection(asyncio.Protocol, sock=ours)

    yield ours, theirs, give
    ours.close()
    if theirs is not None:
        theirs.close()


def test_socket_of_the_owner_is_not_closed_with_the_loop(run: Any, given: Any) -> None:
    ours, theirs, give = given
    kept = run(give())
    assert ours.fileno() >= 0
    if theirs is not None:
        ours.send(b"still connected")
        assert theirs.recv(100) == b"still connected"
    elif ours.type == socket.SOCK_STREAM:
        socket.create_connection(ours.getsockname(), 5).close()
    else:
        ours.sendto(b"to itself", ours.getsockname())
        assert ours.recv(100) == b"to itself"
    # Another loop takes it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        again = run(give())
        assert ours.fileno() >= 0
        del kept, again
        gc.collect()


def test_socket_ends_with_a_transport_that_nobody_has_any_more(run: Any, given: Any) -> None:
    """And with a ResourceWarning; a server's stays open until it is closed."""
    ours, _, give = given

    async def main() -> None:
        await give()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main())
        gc.collect()
    is_listener = ours.fileno() >= 0 and ours.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert (ours.fileno() >= 0) == bool(is_listener)


def test_server_that_is_closed_after_its_loop_closes_its_socket(run: Any) -> None:
    ours = socket.create_server(("127.0.0.1", 0))

    async def main() -> Any:
        return await asyncio.start_server(lambda *_: None, sock=ours)

    server = run(main())
    server.close()
    assert ours.fileno() == -1


def test_server_that_nobody_has_does_not_wait_for_the_garbage_collector(run: Any) -> None:
    async def main() -> Any:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        return server.sockets[0].getsockname()

    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            address = run(main())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)
    finally:
        gc.enable()


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_session_of_a_closed_loop_does_not_fail_without_a_reason(stack: Site) -> None:
    """vppaio.socket, on either stack; each call names the cause."""

    async def main() -> Any:
        sock = vppaio.socket()
        with stack.listen() as listener:
            await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())
            listener.accept()[0].close()
        return sock

    with pytest.raises(AssertionError, match="sessions were left open"):  # that is what is tried here
        stack.run(main)
    holder: list[Any] = []

    async def keep() -> None:
        holder.append(await main())

    vppaio.run(keep(), config=stack.config)
    sock = holder.pop()

    async def use() -> None:
        loop = asyncio.get_running_loop()
        for attempt in (
            lambda: loop.sock_recv(sock, 10),
            lambda: loop.sock_recv_into(sock, bytearray(10)),
            lambda: loop.sock_sendall(sock, b"x"),
            lambda: loop.sock_connect(sock, (stack.peer_address, 9)),
            lambda: loop.create_connection(asyncio.Protocol, sock=sock),
        ):
            with pytest.raises(OSError, match="ended with its event loop, which is closed") as caught:
                await attempt()
            assert caught.value.errno == errno.EBADF

    vppaio.run(use(), config=stack.config)
    sock.close()


def test_kernel_socket_of_a_connection_on_vpp_can_connect_again_on_the_next_loop(vpp_site: VppSite) -> None:
    with socket.socket() as sock, vpp_site.listen() as listener:
        sock.setblocking(False)

        async def connect() -> None:
            await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())

        async def refused() -> None:
            with pytest.raises(OSError, match="ended with its event loop, which is closed"):
                await asyncio.get_running_loop().sock_sendall(sock, b"x")

        async def again() -> None:
            loop = asyncio.get_running_loop()
            await connect()
            await loop.sock_sendall(sock, b"hello")

        vppaio.run(connect(), config=vpp_site.config)
        listener.accept()[0].close()
        assert sock.fileno() >= 0
        vppaio.run(refused(), config=vpp_site.config)
        vppaio.run(again(), config=vpp_site.config)
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(100) == b"hello"


@pytest.mark.parametrize("what", ["server", "connection"])
def test_kernel_socket_that_vpp_serves_stays_open_after_the_loop(vpp_site: VppSite, what: str) -> None:
    with socket.socket() as sock, vpp_site.listen() as listener:
        sock.setblocking(False)

        async def main() -> Any:
            if what == "server":
                sock.bind(("0.0.0.0", 0))
                return await asyncio.start_server(lambda *_: None, sock=sock)
            await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())
            return await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            kept = vppaio.run(main(), config=vpp_site.config)
            assert sock.fileno() >= 0
            del kept
            gc.collect()
