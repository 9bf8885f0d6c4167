"""Errors that are none: the kernel says EPOLLERR also of what waits in a socket's error queue, and no connection ends.

On the kernel's stack; VPP's sessions have no error queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import pytest

import vppaio
from tests.support.sites import HostSite

# asm-generic/socket.h, linux/net_tstamp.h, linux/in.h
SO_TIMESTAMPING: Final = 37
SO_ZEROCOPY: Final = 60
SO_SELECT_ERR_QUEUE: Final = 45
IP_RECVERR: Final = 11
MSG_ZEROCOPY: Final = 0x4000000
TIMESTAMPS: Final = 1 << 1 | 1 << 4 | 1 << 8 | 1 << 9  # of sent bytes: TX_SOFTWARE, SOFTWARE, TX_SCHED, TX_ACK


def timestamps(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TIMESTAMPS)


def timestamps_as_priority(sock: Any) -> None:
    """The kernel adds EPOLLPRI."""
    timestamps(sock)
    sock.setsockopt(socket.SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1)


def zerocopy(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    with socket.socket(fileno=socket.dup(sock.fileno())) as raw:
        raw.send(b"copied by nobody", MSG_ZEROCOPY)


def received_errors(sock: Any) -> None:
    timestamps(sock)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


KINDS: Final = (timestamps, timestamps_as_priority, zerocopy, received_errors)


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.seen.append(f"data {data!r}")

    def eof_received(self) -> bool:
        self.seen.append("eof")
        return True

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(f"lost {type(exc).__name__}")


def has_error(sock: Any) -> bool:
    """Whether something waits in the error queue; it is left there."""
    with socket.socket(fileno=socket.dup(sock.fileno())) as raw, contextlib.suppress(BlockingIOError):
        raw.recvmsg(0, 1000, socket.MSG_ERRQUEUE)
        return True
    return False


def write_eof(transport: Any, peer: socket.socket) -> None:
    transport.write_eof()


def read_while_paused(transport: Any, peer: socket.socket) -> None:
    transport.pause_reading()
    peer.send(b"paused")


def peer_ends(transport: Any, peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def peer_ends_first(transport: Any, peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)
    transport.write(b"after it")


def peer_resets(transport: Any, peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def write_more(transport: Any, peer: socket.socket) -> None:
    transport.write(b"more")


def write_much(transport: Any, peer: socket.socket) -> None:
    transport.write(bytes(1 << 22))


STEPS: Final = (write_eof, read_while_paused, peer_ends, peer_ends_first, peer_resets, write_more, write_much)


async def play(kind: Callable[[Any], None], steps: tuple[Callable[..., None], ...], role: str) -> list[str]:
    loop = asyncio.get_running_loop()
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if role == "client":
            transport, _ = await loop.create_connection(lambda: recorder, *listener.getsockname())
            peer = listener.accept()[0]
        else:
            peer = socket.create_connection(listener.getsockname())
            transport, _ = await loop.connect_accepted_socket(lambda: recorder, listener.accept()[0])
    with peer:
        sock = transport.get_extra_info("socket")
        kind(sock)
        transport.write(b"first")
        for _ in range(100):
            if has_error(sock):
                break
            await asyncio.sleep(0.001)
        else:
            raise AssertionError("nothing came into the error queue")
        transport.write(b"second")
        for step in steps:
            try:
                step(transport, peer)
            except Exception as exc:
                recorder.seen.append(f"{step.__name__} raised {type(exc).__name__}")
            for _ in range(5):
                await asyncio.sleep(0)
        recorder.seen.append(f"{transport.is_closing()}, {transport.is_reading()}")
        # What the peer gets: everything, or up to a reset.
        transport.close()
        received = 0
        with contextlib.suppress(OSError):
            peer.setblocking(False)
            for _ in range(2000):
                try:
                    if not (data := peer.recv(1 << 20)):
                        break
                    received += len(data)
                except BlockingIOError:
                    await asyncio.sleep(0)
        with contextlib.suppress(AttributeError):  # asyncio stumbles after the end
            transport.abort()
        await asyncio.sleep(0)
    recorder.seen.append("received " + ("all" if received > (1 << 22) * (write_much in steps) else "less"))
    return recorder.seen


@pytest.mark.parametrize("kind", KINDS)
def test_no_connection_ends_of_what_waits_in_the_error_queue(kind: Callable[[Any], None]) -> None:
    cases = [((first, second), role) for first in STEPS for second in STEPS for role in ("client", "server")]
    cases = [(steps, role) for steps, role in cases if peer_resets not in steps[:1]]
    found = []
    for factory in (asyncio.SelectorEventLoop, lambda: vppaio.new_event_loop(HostSite.config)):

        async def main() -> list[list[str]]:
            return [await play(kind, steps, role) for steps, role in cases]

        with asyncio.Runner(loop_factory=factory) as runner:
            found.append(runner.run(main()))
    for case, theirs, ours in zip(cases, *found, strict=True):
        assert ours == theirs, case
    print(f"{len(cases)} cases of {kind.__name__}")


def test_no_loop_turns_for_what_waits_in_the_error_queue() -> None:
    """asyncio's does, until the program has taken it: differences.md."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, _ = await loop.create_connection(Recorder, *listener.getsockname())
            with listener.accept()[0]:
                sock = transport.get_extra_info("socket")
                timestamps(sock)
                transport.write(b"x")
                while not has_error(sock):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                before = loop.statistics()["turns"]
                await asyncio.sleep(0.2)
                assert has_error(sock)
                assert loop.statistics()["turns"] - before < 20
                transport.abort()

    vppaio.run(main(), config=HostSite.config)
