"""sock_* where a session is not what a socket is: half-closed connections, waiting, connecting again, datagrams."""

from __future__ import annotations

import asyncio
import errno
import gc
import random
import socket
import time
from typing import Any

import pytest

import vppaio
from tests.support.sites import PATIENCE, Site, in_thread, receive_all, receive_exactly

CONTENT = random.Random(1).randbytes(8 << 20)  # more than any buffer on its way
CLOSE_WAIT_S = 2  # VPP's default


async def accepted(stack: Site) -> tuple[Any, socket.socket]:
    """A connection on the loop's side, by sock_accept, and the kernel's end of it."""
    with vppaio.socket() as listener:
        listener.bind((stack.address, 0))
        listener.listen()
        peer, (sock, _) = await asyncio.gather(
            in_thread(stack.connect, listener.getsockname()[1]), asyncio.get_running_loop().sock_accept(listener)
        )
    return sock, peer


async def connected(stack: Site) -> tuple[Any, socket.socket]:
    """The same by sock_connect; the connection's news come to whoever waited for the connect, until it is used."""
    sock = vppaio.socket()
    with stack.listen() as listener:
        await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())
        peer, _ = await in_thread(listener.accept)
    peer.settimeout(PATIENCE)
    return sock, peer


def receive_late(peer: socket.socket) -> bytes:
    time.sleep(0.3)
    return receive_all(peer)


# ---- half-closed connections -----------------------------------------------------------------------------------------


@pytest.mark.trap("4: the peer's FIN clears the event mask", guard="vppaio/transports/socketio.pyx: _hung_up")
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("make", [accepted, connected])
def test_sendall_goes_on_after_the_peers_half_close(stack: Site, make: Any, reads: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await make(stack)
        with peer, sock:
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.1)
            if reads:
                assert await loop.sock_recv(sock, 100) == b""
            received = asyncio.create_task(in_thread(receive_late, peer))
            await loop.sock_sendall(sock, CONTENT)
            sock.close()
            same = await received == CONTENT
            assert same

    stack.run(main)


def test_sendall_that_waits_hears_of_the_half_close(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await accepted(stack)
        with peer, sock:
            sending = asyncio.create_task(loop.sock_sendall(sock, CONTENT))
            await asyncio.sleep(0.2)
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.2)
            same = await in_thread(receive_exactly, peer, len(CONTENT)) == CONTENT
            assert same
            await sending

    stack.run(main)


@pytest.mark.parametrize("make", [accepted, connected])
def test_sendall_to_a_half_closed_peer_that_does_not_read_ends_with_the_connection(stack: Site, make: Any) -> None:
    """VPP gives such a connection up and says nothing; on the kernel it is the peer's end that ends it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await make(stack)
        with peer, sock:
            peer.shutdown(socket.SHUT_WR)
            sending = asyncio.create_task(loop.sock_sendall(sock, CONTENT))
            await asyncio.sleep(0.2)
            if stack.name == "host":
                peer.close()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(sending, CLOSE_WAIT_S + PATIENCE)

    stack.run(main)


def test_what_came_before_the_peers_half_close_is_kept_for_a_slow_reader(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await accepted(stack)
        with peer, sock:
            peer.sendall(CONTENT[:100_000])
            assert await loop.sock_recv(sock, 10) == CONTENT[:10]
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(CLOSE_WAIT_S + 0.5)
            received = CONTENT[:10]
            while data := await loop.sock_recv(sock, 30_000):
                received += data
            same = received == CONTENT[:100_000]
            assert same
            assert await loop.sock_recv_into(sock, bytearray(10)) == 0

    stack.run(main)


def test_what_was_kept_goes_to_the_transport_that_takes_the_socket(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await accepted(stack)
        with peer:
            peer.sendall(b"first second")
            peer.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(sock, 6) == b"first "
            await asyncio.sleep(0.1)
            reader, writer = await asyncio.open_connection(sock=sock)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b"second"
            writer.write(b"third")
            writer.close()
            assert await in_thread(receive_all, peer) == b"third"

    stack.run(main)


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_waiting_that_was_given_up_leaves_nothing_behind(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = await accepted(stack)
        with peer, sock:
            for _ in range(50):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(sock, 10), 0.001)
            await asyncio.sleep(0)
            assert sock.io.waiting == 0

    stack.run(main)


def test_idle_recvfrom_waits_once(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((stack.address, 0))
            waiting = asyncio.create_task(loop.sock_recvfrom(sock, 10))
            await asyncio.sleep(0.5)  # on VPP it looks again meanwhile
            assert sock.io.waiting == 1
            with stack.datagrams() as peer:
                peer.sendto(b"news", sock.getsockname())
                assert (await waiting)[0] == b"news"

    stack.run(main)


# ---- datagrams -------------------------------------------------------------------------------------------------------


def test_datagram_socket_that_was_used_hears_after_connect(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock, stack.datagrams() as peer:
            peer.settimeout(PATIENCE)
            sock.bind((stack.address, 0))
            await loop.sock_sendto(sock, b"out", peer.getsockname())
            _, address = await in_thread(peer.recvfrom, 100)
            await loop.sock_connect(sock, peer.getsockname())
            hearing = asyncio.create_task(loop.sock_recv(sock, 100))
            await asyncio.sleep(0.1)
            peer.sendto(b"in", address)
            assert await asyncio.wait_for(hearing, PATIENCE) == b"in"

    stack.run(main)


@pytest.mark.parametrize("connect", [False, True])
def test_datagram_that_is_too_large_is_refused(stack: Site, connect: bool) -> None:
    largest = 1472 if stack.name == "vpp" else 65507

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock, stack.datagrams() as peer:
            peer.settimeout(PATIENCE)
            sock.bind((stack.address, 0))
            if connect:
                await loop.sock_connect(sock, peer.getsockname())

            async def send(data: bytes) -> None:
                if connect:
                    await loop.sock_sendall(sock, data)
                else:
                    await loop.sock_sendto(sock, data, peer.getsockname())

            with pytest.raises(OSError, match=str(errno.EMSGSIZE)):
                await send(bytes(largest + 1))
            await send(CONTENT[:largest])
            assert (await in_thread(peer.recvfrom, 1 << 16))[0] == CONTENT[:largest]

    stack.run(main)


def test_socket_that_nobody_has_any_more_is_closed_with_a_warning(stack: Site) -> None:
    """As socket.socket's; its peer would wait for ever."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener:
            ours = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM, stack=stack.name)
            await loop.sock_connect(ours, listener.getsockname())
            with listener.accept()[0] as peer:
                with pytest.warns(ResourceWarning, match="unclosed socket"):  # noqa: PT031
                    del ours
                    gc.collect()
                assert await in_thread(peer.recv, 1) == b""

    stack.run(main)


def test_protocol_factory_that_fails_leaves_no_connection(stack: Site) -> None:
    def fails() -> asyncio.Protocol:
        raise RuntimeError("no protocol")

    async def main() -> None:
        with stack.listen() as listener:
            with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031
                with pytest.raises(RuntimeError, match="no protocol"):
                    await asyncio.get_running_loop().create_connection(fails, *listener.getsockname())
                gc.collect()
            with listener.accept()[0] as peer:
                assert await in_thread(peer.recv, 1) == b""

    stack.run(main)


def test_failed_connect_does_not_forget_the_bind(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.kernel_socket() as closed, stack.listen() as listener:
            closed.bind((stack.peer_address, 0))
            with vppaio.socket(socket.AF_INET, socket.SOCK_STREAM, stack=stack.name) as ours:
                ours.bind((stack.address, 0))
                name = ours.getsockname()
                with pytest.raises(ConnectionRefusedError):
                    await loop.sock_connect(ours, closed.getsockname())
                await loop.sock_connect(ours, listener.getsockname())
                with listener.accept()[0] as peer:
                    assert peer.getpeername() == name == ours.getsockname()

    stack.run(main)


@pytest.mark.parametrize("value", [b"\1\0\0\0\0", None])
def test_option_that_is_no_number_is_refused_and_not_cut(stack: Site, value: Any) -> None:
    async def main() -> None:
        with vppaio.socket(socket.AF_INET, socket.SOCK_STREAM, stack=stack.name) as ours:
            with pytest.raises(OSError, match="SO_REUSEADDR") as refused:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, value)
            assert refused.value.errno == errno.ENOPROTOOPT

    stack.run(main)
