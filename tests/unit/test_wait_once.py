"""sock_* on kernel sockets: one shot of epoll for each wait, in the set that add_reader uses too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import vppaio


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    vppaio.run(asyncio.wait_for(main(), 20), config=vppaio.Config(stack="host"))


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def test_reader_and_writer_wait_for_one_socket_at_once():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        with ours, peer:
            sending = asyncio.create_task(loop.sock_sendall(ours, bytes(4_000_000)))
            receiving = asyncio.create_task(loop.sock_recv(ours, 100))
            await asyncio.sleep(0.01)
            assert not sending.done()
            assert not receiving.done()
            peer.send(b"first")
            assert await receiving == b"first"
            got = 0
            while got < 4_000_000:
                got += len(await loop.sock_recv(peer, 1 << 20))
            await sending

    run(main)


def test_wait_that_is_cancelled_loses_no_byte():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        with ours, peer:
            for round in range(100):
                receiving = asyncio.create_task(loop.sock_recv(ours, 100))
                await asyncio.sleep(0)
                peer.send(bytes([round]))
                if round % 2:
                    await asyncio.sleep(0)
                receiving.cancel()
                try:
                    got = await receiving
                except asyncio.CancelledError:
                    got = await loop.sock_recv(ours, 100)
                assert got == bytes([round])

    run(main)


def test_descriptor_that_is_another_socket_by_now():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        number = ours.fileno()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(ours, 1), 0.01)
        ours.close()
        peer.close()
        ours, peer = pair()
        with ours, peer:
            assert number in (ours.fileno(), peer.fileno())
            for reader, writer in ((ours, peer), (peer, ours)):
                loop.call_later(0.01, writer.send, b"x")
                assert await loop.sock_recv(reader, 1) == b"x"

    run(main)


def test_add_reader_and_sock_recv_take_turns():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        with ours, peer:
            for _ in range(3):
                loop.call_later(0.01, peer.send, b"x")
                assert await loop.sock_recv(ours, 1) == b"x"
                ready = loop.create_future()
                loop.add_reader(ours, lambda ready=ready: ready.done() or ready.set_result(None))
                peer.send(b"y")
                await ready
                assert ours.recv(1) == b"y"
                assert loop.remove_reader(ours)

    run(main)


def test_sock_recv_beside_a_writer_of_the_programs_own():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        with ours, peer:
            writable = loop.create_future()
            loop.add_writer(ours, lambda: writable.done() or writable.set_result(None))
            loop.call_later(0.01, peer.send, b"x")
            assert await loop.sock_recv(ours, 1) == b"x"
            await writable
            assert loop.remove_writer(ours)

    run(main)


def test_end_of_the_peer_wakes_the_reader():
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = pair()
        with ours:
            loop.call_later(0.01, peer.close)
            assert await loop.sock_recv(ours, 1) == b""

    run(main)
