"""Complaints about get_extra_info: what must not be missing, raise, or have another shape than a socket's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from tests.support.certificates import Certificates
from tests.support.connections import Accepted
from tests.support.protocols import Recorder
from tests.support.sites import HostSite, Site, eventually, in_thread, port_of, receive_exactly, reset

# `shutdown(how)` takes its argument (uvloop#241, niquests#166), and the descriptor polls readable on EOF or unsolicited
# data only (httpcore#239, #311 and #928): tests/behaviour/test_adoption.py.


def test_peername_of_a_client_that_has_gone_is_not_none(stack: Site) -> None:
    """uvloop#560, uvicorn#494, #525 and #600: gone before connection_made even; and no OSError."""
    made: list[Any] = []

    class Asking(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.append((transport.get_extra_info("peername"), transport.get_extra_info("sockname")))

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Asking, stack.address, 0)
        names = []
        for leave in (reset, socket.socket.close):
            theirs = stack.connect(port_of(server))  # blocks the loop: it accepts afterwards
            names.append((theirs.getsockname(), theirs.getpeername()))
            leave(theirs)
        stack.settle()
        await asyncio.sleep(0.1)
        server.close()
        # A connection that was reset may not be there any more to be accepted.
        assert made
        assert set(made) <= set(names)

    stack.run(main)


def test_names_of_unix_sockets_do_not_crash(stack: Site, tmp_path: Path) -> None:
    """uvloop#59: a client without a name."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours: Any = Recorder()
        path = str(tmp_path / "s")
        server = await loop.create_unix_server(lambda: ours, path)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
        await eventually(lambda: ours.transport)
        assert ours.transport.get_extra_info("sockname") == path
        assert ours.transport.get_extra_info("peername") == ""
        assert ours.transport.get_extra_info("socket").family == socket.AF_UNIX
        transport.close()
        await ours.lost
        server.close()

    stack.run(main)


def test_socket_is_not_lost_by_start_tls(stack: Site, certificates: Certificates) -> None:
    """uvloop#55."""

    async def main() -> None:
        found: list[Any] = []

        async def upgrade(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            names = [writer.get_extra_info(name) for name in ("sockname", "peername")]
            await writer.start_tls(certificates.server())
            sock = writer.get_extra_info("socket")
            found.append((names, [sock.getsockname(), sock.getpeername()]))
            assert sock.family is socket.AF_INET
            writer.write(b"x")
            writer.close()

        def client(port: int) -> None:
            with (
                stack.connect(port) as peer,
                certificates.client().wrap_socket(peer, server_hostname="localhost") as tls,
            ):
                assert tls.recv(1) == b"x"

        async with await asyncio.start_server(upgrade, stack.address, 0) as server:
            await in_thread(client, port_of(server))
        ((before, after),) = found
        assert before == after

    stack.run(main)


def test_sockname_of_a_datagram_endpoint_is_not_the_wildcard(stack: Site) -> None:
    """uvloop#85."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.datagrams() as peer:
            for where in ({"local_addr": (stack.address, 0)}, {"remote_addr": peer.getsockname()}):
                transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **where)
                host, port = transport.get_extra_info("sockname")
                assert host == stack.address
                assert port
                assert transport.get_extra_info("socket").getsockname() == (host, port)
                transport.close()

    stack.run(main)


def test_paused_transport_does_not_take_what_its_user_wants_to_peek_at() -> None:
    """uvloop#324. On VPP there is no descriptor to peek at, and bytes before a FIN have to be taken, else VPP drops
    them."""
    stack = HostSite()

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            ours.transport.pause_reading()
            theirs.sendall(b"look at me")
            await asyncio.sleep(0.05)
            with socket.socket(fileno=os.dup(ours.transport.get_extra_info("socket").fileno())) as same:
                assert same.recv(100, socket.MSG_PEEK) == b"look at me"
            assert not ours.heard
            ours.transport.resume_reading()
            await eventually(lambda: ours.heard == b"look at me")
            theirs.close()

    stack.run(main)


def test_the_socket_behind_does_not_hide(stack: Site) -> None:
    """pymodbus#778: programs take `_sock` of asyncio's TransportSocket."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            assert ours.transport.get_extra_info("socket")._sock.getpeername() == theirs.getsockname()
            theirs.close()

    stack.run(main)


def test_connection_is_not_closed_with_the_transport_it_was_taken_from(stack: Site, certificates: Certificates) -> None:
    """aiomysql#966: before TLS it takes the transport's socket, duplicates it, closes the transport and makes a
    connection from the duplicate."""

    def server(peer: socket.socket) -> None:
        peer.sendall(b"greeting\n")
        assert receive_exactly(peer, 4) == b"SSL\n"
        with certificates.server().wrap_socket(peer, server_side=True) as tls:
            while data := tls.recv(1 << 16):
                tls.sendall(data)

    async def main() -> None:
        with stack.serve(server) as listener:
            reader, writer = await asyncio.open_connection(*listener.address)
            assert await reader.readline() == b"greeting\n"
            writer.write(b"SSL\n")
            writer.transport.pause_reading()
            raw: Any = writer.transport.get_extra_info("socket").dup()
            writer.transport.close()
            reader, writer = await asyncio.open_connection(
                sock=raw, ssl=certificates.client(), server_hostname="localhost"
            )
            for _ in range(3):
                writer.write(b"query\n")
                assert await reader.readline() == b"query\n"
            writer.close()
            await writer.wait_closed()

    stack.run(main)


def test_shutdown_of_a_connection_that_was_reset_does_no_harm(stack: Site) -> None:
    """uvloop#244: ENOTCONN, from write_eof or from the socket, is the caller's at most, and not the end of the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        problems: list[Any] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        async with Accepted(stack) as accepted:
            for late in (False, True):
                ours, theirs = await accepted.connect()
                sock = ours.transport.get_extra_info("socket")
                reset(theirs)
                if late:
                    await ours.lost
                with contextlib.suppress(OSError):
                    ours.transport.write_eof()
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                await ours.lost
                assert ours.news.count("lost") == 1
        assert not problems

    stack.run(main)
