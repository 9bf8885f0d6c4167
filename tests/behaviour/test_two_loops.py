"""A session stays with its loop: a socket that is taken to another one is refused, in each place that takes sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

import vppaio
from tests.support.sites import Site

PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "create_connection": lambda loop, sock: loop.create_connection(asyncio.Protocol, sock=sock),
    "connect_accepted_socket": lambda loop, sock: loop.connect_accepted_socket(asyncio.Protocol, sock),
    "create_server": lambda loop, sock: loop.create_server(asyncio.Protocol, sock=sock),
    "start_server": lambda loop, sock: asyncio.start_server(lambda reader, writer: None, sock=sock),
    "open_connection": lambda loop, sock: asyncio.open_connection(sock=sock),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, ("192.0.2.1", 9)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 1),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1)),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x"),
    "sock_sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("192.0.2.1", 9)),
}


@pytest.mark.parametrize("place", [*PLACES, "create_datagram_endpoint"])
def test_socket_of_another_loop_is_refused_and_unharmed(stack: Site, place: str) -> None:
    one, other = vppaio.new_event_loop(stack.config), vppaio.new_event_loop(stack.config)
    kind = socket.SOCK_DGRAM if place == "create_datagram_endpoint" else socket.SOCK_STREAM
    listener = stack.datagrams() if kind == socket.SOCK_DGRAM else stack.listen()

    async def connected() -> Any:
        sock = vppaio.socket(type=kind)
        await asyncio.get_running_loop().sock_connect(sock, listener.getsockname()[:2])
        return sock

    async def use(sock: Any) -> None:
        if kind == socket.SOCK_DGRAM:
            await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
        else:
            await PLACES[place](asyncio.get_running_loop(), sock)

    with listener:
        sock = one.run_until_complete(connected())
        with pytest.raises(ValueError, match=r"another event loop: .* make or connect the socket in"):
            other.run_until_complete(use(sock))
        one.run_until_complete(one.sock_sendall(sock, b"still mine"))
        if kind == socket.SOCK_STREAM:
            with listener.accept()[0] as peer:
                peer.settimeout(10)
                assert peer.recv(10, socket.MSG_WAITALL) == b"still mine"
                peer.sendall(b"and yours")
                assert one.run_until_complete(one.sock_recv(sock, 9)) == b"and yours"
        one.close()
        with pytest.raises(OSError, match="ended with its event loop, which is closed"):
            other.run_until_complete(use(sock))
        sock.close()
        other.close()


def test_socket_that_a_transport_has_is_refused(stack: Site) -> None:
    """As asyncio has it for descriptors: reading from both sides would lose bytes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener:
            sock = vppaio.socket()
            await loop.sock_connect(sock, listener.getsockname()[:2])
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            for place in ("create_connection", "sock_recv", "sock_sendall"):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await PLACES[place](loop, sock)
            transport.close()

    stack.run(main)


def test_second_connect_of_a_socket_waits_for_the_first(stack: Site) -> None:
    """As the kernel's does; also when the first one is cancelled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for cancelled in (False, True):
            with stack.listen() as listener, socket.socket() as sock:
                sock.setblocking(False)
                address = listener.getsockname()[:2]
                first = asyncio.ensure_future(loop.sock_connect(sock, address))
                await asyncio.sleep(0)
                if cancelled:
                    first.cancel()
                await asyncio.wait_for(loop.sock_connect(sock, address), 10)
                await asyncio.wait([first])
                assert first.cancelled() == cancelled
                await loop.sock_sendall(sock, b"once")
                received = b""
                for _ in range(1 + cancelled):  # a session whose connect was cancelled may have arrived, and has ended
                    listener.settimeout(10)
                    with listener.accept()[0] as peer:
                        peer.settimeout(10)
                        received = received or peer.recv(4, socket.MSG_WAITALL)
                    if received:
                        break
                assert received == b"once"

    stack.run(main)
