"""Programs that bring their own sockets: kernel sockets whose address belongs to VPP, and `vppaio.socket()`.

On VPP a kernel socket stands for an address: it is bound in the root namespace, the peers are in another one and reach
VPP only, so an answer proves that a session serves. On the host stack it is served itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from aiohttp import web

import vppaio
from tests.support.connections import Connection, Pair, ask, both_roles
from tests.support.protocols import DatagramEcho, Echo
from tests.support.sites import PATIENCE, Site, VppSite, eventually, in_thread, port_of, receive_all, sessions
from vppaio.transports.pseudosocket import SessionSocket

ANY = "0.0.0.0"  # what programs bind; VPP's as soon as VPP takes part


def bound(stack: Site, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A kernel socket that a program has bound for its server."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ANY, 0))
    return sock


def get(stack: Site, port: int, path: str = "/") -> str:
    """What curl on the kernel's side gets."""
    done = stack.command(["curl", "-sS", "-m", "10", f"http://{stack.address}:{port}{path}"])
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listening", [False, True])
def test_create_server_serves_a_kernel_socket_and_closes_it(stack: Site, listening: bool) -> None:
    async def main() -> None:
        sock = bound(stack)
        if listening:
            sock.listen()
        port = sock.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(Echo, sock=sock)
        async with server:
            assert port_of(server) == port
            assert await in_thread(ask, stack, port) == b"hello"
        assert sock.fileno() == -1

    stack.run(main)


def test_adoption_can_be_switched_off(stack: Site) -> None:
    async def main() -> None:
        sock = bound(stack)
        port = sock.getsockname()[1]
        loop: Any = asyncio.get_running_loop()
        async with await loop.create_server(Echo, sock=sock):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
                await in_thread(peer.sendall, b"by the kernel")
                assert await in_thread(peer.recv, 100) == b"by the kernel"
            # With nothing to adopt nobody asked for VPP, so it was not even attached.
            assert loop.statistics()["stacks"].get("vpp", {"sessions": 0})["sessions"] == 0

    vppaio.run(main(), config=dataclasses.replace(stack.config, adopt_sockets=False))


def test_aiohttp_sock_site(stack: Site) -> None:
    async def main() -> None:
        async def answer(request: Any) -> Any:
            return web.Response(text=f"{request.path} for {request.remote}")

        application = web.Application()
        application.router.add_get("/{name}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        sock = bound(stack)
        port = sock.getsockname()[1]
        await web.SockSite(runner, sock).start()
        assert await in_thread(get, stack, port, "/somewhere") == f"/somewhere for {stack.peer_address}"
        await runner.cleanup()

    stack.run(main)


async def greet(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"{scope['path']} for {scope['client'][0]}".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_uvicorn_serves_sockets_given_to_it(stack: Site) -> None:
    async def main() -> None:
        sock = bound(stack)
        port = sock.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(greet, log_level="warning", lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        await eventually(lambda: server.started)
        assert await in_thread(get, stack, port, "/u") == f"/u for {stack.peer_address}"
        server.should_exit = True
        await asyncio.wait_for(serving, PATIENCE)

    stack.run(main)


def test_hypercorn(stack: Site) -> None:
    async def main() -> None:
        config = hypercorn.config.Config()
        with bound(stack) as free:
            port = free.getsockname()[1]
        config.bind = [f"{ANY}:{port}"]
        config.accesslog = config.errorlog = None
        stop = asyncio.Event()
        serving = asyncio.create_task(hypercorn.asyncio.serve(greet, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        for _ in range(100):
            with contextlib.suppress(AssertionError):
                assert await in_thread(get, stack, port, "/h") == f"/h for {stack.peer_address}"
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("hypercorn does not answer")
        stop.set()
        await asyncio.wait_for(serving, PATIENCE)

    stack.run(main)


both_kinds = pytest.mark.parametrize("ours", [False, True], ids=["kernel socket", "vppaio.socket"])


@both_kinds
def test_datagram_endpoint_on_a_bound_socket(stack: Site, ours: bool) -> None:
    async def main() -> None:
        sock: Any
        if ours:
            sock = vppaio.socket(type=socket.SOCK_DGRAM)
            sock.bind((stack.address, 0))
        else:
            sock = bound(stack, socket.SOCK_DGRAM)
            sock.setblocking(False)
        port = sock.getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, sock=sock)
        with stack.datagrams() as peer:
            peer.settimeout(PATIENCE)
            peer.sendto(b"anybody?", (stack.address, port))
            assert (await in_thread(peer.recvfrom, 100))[0] == b"anybody?"
        transport.close()
        await eventually(lambda: sock.fileno() == -1)

    stack.run(main)


@both_kinds
def test_datagram_endpoint_on_a_connected_socket(stack: Site, ours: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock: Any
        if ours:
            sock = vppaio.socket(type=socket.SOCK_DGRAM)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
        with stack.datagrams() as peer:
            peer.settimeout(PATIENCE)
            await loop.sock_connect(sock, peer.getsockname())
            transport, _ = await loop.create_datagram_endpoint(DatagramEcho, sock=sock)
            assert transport.get_extra_info("peername") == peer.getsockname()
            transport.sendto(b"first")
            data, address = await in_thread(peer.recvfrom, 100)
            assert data == b"first"
            assert address == transport.get_extra_info("sockname")
            peer.sendto(b"and back", address)
            assert (await in_thread(peer.recvfrom, 100)) == (b"and back", address)
        transport.close()
        await eventually(lambda: sock.fileno() == -1)

    stack.run(main)


# ---- clients ---------------------------------------------------------------------------------------------------------


def answer_http(connection: socket.socket) -> None:
    """One request, one response."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (piece := connection.recv(1 << 16)):
            return
        request += piece
    line = request.split(b"\r\n", 1)[0]
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(line), line))


def test_aiohttp_client_connects_kernel_sockets(stack: Site) -> None:
    """Its happy eyeballs make sockets and call sock_connect."""

    async def main() -> None:
        with stack.serve(answer_http) as server:
            async with aiohttp.ClientSession() as session:
                for path in ("/1", "/2"):
                    async with session.get(f"http://{server.address[0]}:{server.port}{path}") as response:
                        assert await response.text() == f"GET {path} HTTP/1.1"

    stack.run(main)


def test_kernel_socket_that_is_connected_stays_the_kernels(vpp_site: VppSite) -> None:
    async def main() -> None:
        ours, theirs = await in_thread(pair)
        loop: Any = asyncio.get_running_loop()
        assert "vpp" in loop.stacks
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.sendall(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert loop.statistics()["stacks"]["vpp"]["sessions"] == 0
        writer.close()
        await writer.wait_closed()
        theirs.close()

    vpp_site.run(main)


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


# ---- vppaio.socket and sock_* ----------------------------------------------------------------------------------------


def test_sock_methods_of_a_server(stack: Site, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)

    def client(port: int) -> bytes:
        with stack.connect(port) as peer:
            peer.sendall(b"one two three")
            peer.shutdown(socket.SHUT_WR)
            return receive_all(peer)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = vppaio.socket()
        listener.bind((stack.address, 0))
        listener.listen()
        asked = asyncio.create_task(in_thread(client, listener.getsockname()[1]))
        sock, address = await loop.sock_accept(listener)
        assert address[0] == stack.peer_address
        assert sock.getpeername() == address
        assert await loop.sock_recv(sock, 4) == b"one "
        buffer = bytearray(4)
        assert await loop.sock_recv_into(sock, buffer) == 4
        assert buffer == b"two "
        assert await loop.sock_recv(sock, 100) == b"three"
        assert await loop.sock_recv(sock, 100) == b""
        await loop.sock_sendall(sock, b"<")
        with open(tmp_path / "file", "rb") as file:  # noqa: ASYNC230
            assert await loop.sock_sendfile(sock, file, 1000, 200_000) == 200_000
            assert file.tell() == 201_000
        with sock:
            await loop.sock_sendall(sock, memoryview(b">"))
            sock.shutdown(socket.SHUT_WR)
        assert sock.fileno() == -1
        assert await asked == b"<" + content[1000:201_000] + b">"
        listener.close()

    stack.run(main)


def test_sendfile_without_fallback_says_that_there_is_none(stack: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.serve(receive_all) as server:
            sock = vppaio.socket()
            await loop.sock_connect(sock, server.address)
            with open(tmp_path / "file", "rb") as file, pytest.raises(asyncio.SendfileNotAvailableError):  # noqa: ASYNC230
                await loop.sock_sendfile(sock, file, fallback=False)
            sock.close()

    stack.run(main)


def test_sock_methods_of_a_client_then_a_transport(stack: Site) -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.serve(echo) as server:
            sock = vppaio.socket()
            await loop.sock_connect(sock, server.address)
            await loop.sock_sendall(sock, b"first")
            assert await loop.sock_recv(sock, 100) == b"first"
            reader, writer = await asyncio.open_connection(sock=sock)  # type: ignore[arg-type]
            writer.write(b"second")
            assert await reader.readexactly(6) == b"second"
            writer.close()
            await writer.wait_closed()

    stack.run(main)


def test_create_server_and_connect_accepted_socket_on_our_sockets(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock: Any = vppaio.socket()
        sock.bind((stack.address, 0))
        async with await loop.create_server(Echo, sock=sock) as server:
            assert await in_thread(ask, stack, port_of(server)) == b"hello"
        listener: Any = vppaio.socket()
        listener.bind((stack.address, 0))
        listener.listen()
        asked = asyncio.create_task(in_thread(ask, stack, listener.getsockname()[1]))
        accepted, _ = await loop.sock_accept(listener)
        await loop.connect_accepted_socket(Echo, accepted)
        assert await asked == b"hello"
        listener.close()

    stack.run(main)


def test_sock_methods_of_datagrams(stack: Site) -> None:
    """uvloop#561, #655 and #628: sock_sendto, sock_recvfrom and sock_recvfrom_into."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock: Any = vppaio.socket(type=socket.SOCK_DGRAM)
        sock.bind((stack.address, 0))
        with stack.datagrams() as peer:
            peer.settimeout(PATIENCE)
            await loop.sock_sendto(sock, b"out", peer.getsockname())
            data, address = await in_thread(peer.recvfrom, 100)
            assert data == b"out"
            assert address == sock.getsockname()
            peer.sendto(b"in", address)
            assert await loop.sock_recvfrom(sock, 100) == (b"in", peer.getsockname())
            peer.sendto(b"again", address)
            buffer = bytearray(10)
            assert await loop.sock_recvfrom_into(sock, buffer) == (5, peer.getsockname())
            assert buffer[:5] == b"again"
        sock.close()

    stack.run(main)


WITHOUT_EFFECT_ON_VPP = (
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000),
)
TCP_WITHOUT_EFFECT_ON_VPP = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9),
)


def with_options(kind: int = socket.SOCK_STREAM) -> Any:
    """One of our sockets, with all that programs set before they use one."""
    sock = vppaio.socket(type=kind)
    options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), *WITHOUT_EFFECT_ON_VPP]
    if kind == socket.SOCK_STREAM:
        options += [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *TCP_WITHOUT_EFFECT_ON_VPP]
    for level, option, value in options:
        sock.setsockopt(level, option, value)
        assert sock.getsockopt(level, option) == value
    return sock


def test_options_set_before_connecting_do_not_fail_it(stack: Site) -> None:
    async def main() -> None:
        with stack.serve(receive_all) as server, with_options() as sock:
            await asyncio.get_running_loop().sock_connect(sock, server.address)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000

    stack.run(main)


def test_options_set_before_listening_do_not_fail_it(stack: Site) -> None:
    async def main() -> None:
        with with_options() as sock:
            sock.bind((stack.address, 0))
            sock.listen()
            with await in_thread(stack.connect, sock.getsockname()[1]):
                accepted, _ = await asyncio.get_running_loop().sock_accept(sock)
                accepted.close()

    stack.run(main)


def test_options_set_before_a_datagram_bind_do_not_fail_it(stack: Site) -> None:
    async def main() -> None:
        with with_options(socket.SOCK_DGRAM) as sock, stack.datagrams() as peer:
            sock.bind((stack.address, 0))
            peer.sendto(b"x", sock.getsockname())
            assert await asyncio.get_running_loop().sock_recvfrom(sock, 10) == (b"x", peer.getsockname())

    stack.run(main)


def test_options_are_kept_for_the_next_try_after_a_connect_that_failed(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as nobody:
            closed = nobody.getsockname()
        with stack.serve(receive_all) as server, with_options() as sock:
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(sock, closed)
            await loop.sock_connect(sock, server.address)
            assert sock.session.get_option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    stack.run(main)


@pytest.mark.parametrize(
    ("level", "option", "name"),
    [
        (socket.SOL_SOCKET, 9999, "9999"),
        (socket.IPPROTO_TCP, 12345, "12345"),
        (socket.SOL_SOCKET, socket.SO_LINGER, "SO_LINGER"),
    ],
)
def test_unknown_option_is_refused_before_there_is_a_session(stack: Site, level: int, option: int, name: str) -> None:
    async def main() -> None:
        with stack.serve(receive_all) as server, vppaio.socket() as sock:
            with pytest.raises(OSError, match=name) as caught:
                sock.setsockopt(level, option, 1)
            assert caught.value.errno == errno.ENOPROTOOPT
            await asyncio.get_running_loop().sock_connect(sock, server.address)

    stack.run(main)


def test_option_that_vpp_does_not_have_is_refused_by_name(vpp_site: VppSite) -> None:
    async def main() -> None:
        with vppaio.socket() as sock, pytest.raises(OSError, match="SO_PRIORITY") as caught:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 1)
        assert caught.value.errno == errno.ENOPROTOOPT
        assert "vpp" in asyncio.get_running_loop().stacks  # type: ignore[attr-defined]

    vpp_site.run(main)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_ports_that_were_in_use_leave_no_session_behind(
    vpp_site: VppSite, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports are ours to choose on VPP, and one that is taken costs a session: closed, and its slot free again."""

    async def main() -> None:
        taken = vppaio.socket(type=kind)
        taken.bind((vpp_site.address, 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        free = port + 1 if port < 60999 else port - 1
        choices = [port] * 20 + [free]
        monkeypatch.setattr("vppaio.transports.pseudosocket.random.choice", lambda _: choices.pop(0))
        slots = set()
        abandon = SessionSocket.abandon

        def noting_the_slot(sock: SessionSocket) -> None:
            slots.add(sock.session.handle)
            abandon(sock)

        monkeypatch.setattr(SessionSocket, "abandon", noting_the_slot)
        with vppaio.socket(type=kind) as sock:
            sock.bind((vpp_site.address, 0))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            assert sock.getsockname() == (vpp_site.address, free)
            assert not choices
            assert sessions() == 2
            assert slots <= {sock.session.handle}  # the first one's, free again each time
        taken.close()

    vpp_site.run(main)


# ---- get_extra_info("socket") ----------------------------------------------------------------------------------------


@both_roles
def test_socket_of_a_transport_says_what_it_is(stack: Site, role: str) -> None:
    """aiohttp compares the family, uvicorn asks for names, truthiness decides in many places."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, theirs):
            sock = ours.socket
            assert sock
            assert sock.family is socket.AF_INET
            assert sock.type == socket.SOCK_STREAM
            assert sock.proto in (0, socket.IPPROTO_TCP)
            assert sock.getsockname() == theirs.getpeername() == ours.transport.get_extra_info("sockname")
            assert sock.getpeername() == theirs.getsockname() == ours.transport.get_extra_info("peername")
            assert sock.fileno() >= 0
            assert sock.gettimeout() == 0
            sock.setblocking(False)
            sock.settimeout(0)
            assert sock.get_inheritable() is False
            with pytest.raises(ValueError):  # noqa: PT011
                sock.setblocking(True)

    stack.run(main)


@both_roles
def test_socket_of_a_transport_takes_the_options_that_programs_set_unguarded(stack: Site, role: str) -> None:
    """redis-py closes a connection whose TCP_KEEPCNT is refused; aiohttp and asyncpg set theirs without a try."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, _):
            for level, option, value in (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
            ):
                ours.socket.setsockopt(level, option, value)
                assert ours.socket.getsockopt(level, option) == value
            assert ours.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert ours.socket.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            assert ours.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
            with pytest.raises(OSError, match=r"Protocol not available|Operation not supported"):
                ours.socket.setsockopt(socket.IPPROTO_TCP, 12345, 1)

    stack.run(main)


@both_roles
def test_socket_of_a_transport_polls_readable_on_eof_and_on_waiting_data_only(stack: Site, role: str) -> None:
    """How httpcore finds out whether an idle connection can be used again (httpcore#239, #311, #928)."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, theirs):
            assert not ours.readable()
            theirs.sendall(b"answer")
            await eventually(lambda: ours.heard == b"answer")
            assert not ours.readable()
            ours.transport.pause_reading()
            theirs.sendall(b"unasked")
            await eventually(ours.readable)
            ours.transport.resume_reading()
            await eventually(lambda: ours.heard == b"answerunasked")
            assert not ours.readable()
            theirs.shutdown(socket.SHUT_WR)
            await eventually(lambda: ours.ended)
            assert ours.readable()

    stack.run(main)


@both_roles
def test_addresses_stay_known_after_the_peer_left(stack: Site, role: str) -> None:
    """uvicorn and hypercorn ask late; None or an exception fails the request (uvloop#560)."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, theirs):
            peername, sockname = theirs.getsockname(), theirs.getpeername()
            theirs.close()
            await eventually(lambda: ours.ended)
            assert ours.transport.get_extra_info("peername") == peername
            assert ours.transport.get_extra_info("sockname") == sockname
            ours.transport.close()
            await asyncio.sleep(0.05)
            assert ours.transport.get_extra_info("peername") == peername
            assert ours.transport.get_extra_info("sockname") == sockname

    stack.run(main)


@both_roles
def test_shutdown_of_the_socket_ends_our_half(stack: Site, role: str) -> None:
    """With an argument, as a socket's (uvloop#241, niquests#166)."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, theirs):
            ours.transport.write(b"the last")
            ours.socket.shutdown(socket.SHUT_WR)
            assert await in_thread(receive_all, theirs) == b"the last"
            theirs.sendall(b"still listening?")
            await eventually(lambda: ours.heard == b"still listening?")

    stack.run(main)


@both_roles
@pytest.mark.parametrize("end", ["close", "abort"])
def test_connection_lives_as_long_as_one_of_its_sockets(stack: Site, role: str, end: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Pair(stack, role) as (ours, theirs):
            ours.socket.dup().close()
            theirs.sendall(b"still there")
            await eventually(lambda: ours.heard == b"still there")
            duplicate = ours.socket.dup()
            assert duplicate.getpeername() == theirs.getsockname()
            getattr(ours.transport, end)()
            await asyncio.sleep(0.05)
            theirs.sendall(b"nobody is listening")
            stack.settle()
            await asyncio.sleep(0.05)
            transport, heir = await loop.create_connection(Connection, sock=duplicate)
            await eventually(lambda: heir.heard == b"nobody is listening")
            assert ours.heard == b"still there"
            transport.write(b"I am")
            transport.close()
            assert await in_thread(receive_all, theirs) == b"I am"

    stack.run(main)


def test_duplicate_of_a_connection_that_has_ended_is_refused(vpp_site: VppSite) -> None:
    """Its session's handle may be another's by now."""

    async def main() -> None:
        async with Pair(vpp_site, "server") as (ours, theirs):
            duplicate = ours.socket.dup()
            ours.transport.write_eof()
            theirs.close()  # both directions are at their end: the session closes
            await eventually(lambda: duplicate.fileno() == -1)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await asyncio.get_running_loop().create_connection(Connection, sock=duplicate)
            duplicate.close()

    vpp_site.run(main)


def test_what_cannot_be_duplicated_is_not(vpp_site: VppSite) -> None:
    async def main() -> None:
        datagrams = vppaio.socket(type=socket.SOCK_DGRAM)
        with vppaio.socket() as unused, vppaio.socket() as listener, datagrams:
            listener.bind((vpp_site.address, 0))
            listener.listen()
            datagrams.bind((vpp_site.address, 0))
            for sock in (unused, listener, datagrams):
                with pytest.raises(NotImplementedError, match="dup"):
                    sock.dup()
        async with Pair(vpp_site, "server") as (ours, _):
            while not ours.transport.get_write_buffer_size():
                ours.transport.write(bytes(1 << 20))
            with pytest.raises(BlockingIOError, match="dup"):
                ours.socket.dup()

    vpp_site.run(main)


def test_our_sockets_have_no_threads_behind_them(stack: Site) -> None:
    async def main() -> None:
        before = threading.active_count()
        sock = vppaio.socket()
        assert isinstance(sock, SessionSocket)
        sock.close()
        assert threading.active_count() == before

    stack.run(main)
