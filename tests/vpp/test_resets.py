"""What VPP tells of resets where the kernel tells more: a test for each rule of differential/known.py.

They pin what VPP 26.06 does. If one of them fails, that VPP does better, and the rule and its line in
docs/differences.md may go. "A close with unread data cuts what was just written" has no test: which of the two VPP
takes first is chance.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.sites import HostSite, Site, VppSite, eventually, in_thread, port_of, reset

pytestmark = pytest.mark.vpp
Told = list[Any]


class Recorder(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self.told: Told = []
        self.keep_open = self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True
        self.told.append("lost" if exc is None else type(exc).__name__)


Scene = Callable[[Site, Recorder, socket.socket], Coroutine[Any, Any, None]]


def play(site: Site, scene: Scene) -> Told:
    """What the protocol of an accepted connection is told in `scene`."""

    async def main() -> Told:
        made: list[Recorder] = []

        def recorder() -> Recorder:
            made.append(Recorder())
            return made[-1]

        async with await asyncio.get_running_loop().create_server(recorder, site.address, 0) as server:
            with await in_thread(site.connect, port_of(server)) as peer:
                await eventually(lambda: made and hasattr(made[0], "transport"))
                peer.sendall(b"ready")  # by now both have seen each other's last segment of the handshake
                await eventually(lambda: made[0].told.pop() if made[0].told else None)
                await scene(site, made[0], peer)
                made[0].transport.abort()
        return made[0].told

    return site.run(main)


def test_reset_drops_what_was_received_and_not_read(site: VppSite) -> None:
    async def scene(site: Site, recorder: Recorder, peer: socket.socket) -> None:
        peer.sendall(b"last words")
        site.settle()
        reset(peer)
        site.settle()
        await eventually(lambda: recorder.has_ended)

    assert play(HostSite(), scene) == [b"last words", "ConnectionResetError"]
    assert play(site, scene) == ["ConnectionResetError"]


def test_reset_after_write_eof_is_told_as_eof(site: VppSite) -> None:
    async def scene(site: Site, recorder: Recorder, peer: socket.socket) -> None:
        recorder.transport.write_eof()
        assert await in_thread(peer.recv, 1) == b""
        site.settle()
        reset(peer)
        await eventually(lambda: recorder.has_ended)

    assert play(HostSite(), scene) == ["ConnectionResetError"]
    assert play(site, scene) == ["eof", "lost"]


def test_write_eof_succeeds_in_the_moment_of_the_reset(site: VppSite) -> None:
    async def scene(site: Site, recorder: Recorder, peer: socket.socket) -> None:
        reset(peer)
        site.settle()
        try:
            recorder.transport.write_eof()
        except OSError as error:
            recorder.told.append(error.errno)
        else:
            recorder.told.append("written")
        await eventually(lambda: recorder.has_ended)

    assert play(HostSite(), scene)[0] == errno.ENOTCONN
    assert play(site, scene)[0] == "written"


def test_reset_after_the_fin_is_found_late(site: VppSite) -> None:
    """The kernel refuses the next write; vppaio looks every 0.25 s."""
    took = 1.0

    async def scene(site: Site, recorder: Recorder, peer: socket.socket) -> None:
        recorder.keep_open = True
        nonlocal took
        started = time.monotonic()
        peer.shutdown(socket.SHUT_WR)
        await eventually(lambda: recorder.told == ["eof"])
        reset(peer)
        site.settle()
        recorder.transport.write(b"to nobody")
        for _ in range(5):
            await asyncio.sleep(0)
        recorder.told.append("five turns later")
        took = time.monotonic() - started
        await eventually(lambda: recorder.has_ended)

    assert play(HostSite(), scene) == ["eof", "BrokenPipeError", "five turns later"]
    for _ in range(10):
        told = play(site, scene)
        if took < 0.2:  # else it may have looked within those turns: the machine is busy
            break
    assert told == ["eof", "five turns later", "ConnectionResetError"]


def test_closed_connection_still_takes_data(site: VppSite) -> None:
    """The kernel answers the first piece with a reset, and refuses the second."""

    async def scene(site: Site, recorder: Recorder, peer: socket.socket) -> None:
        recorder.transport.close()
        assert await in_thread(peer.recv, 1) == b""
        await eventually(lambda: recorder.has_ended)
        peer.sendall(b"?")
        site.settle()
        try:
            peer.sendall(b"?")
        except BrokenPipeError:
            recorder.told.append("refused")
        else:
            recorder.told.append("taken")

    assert play(HostSite(), scene) == ["lost", "refused"]
    assert play(site, scene) == ["lost", "taken"]
