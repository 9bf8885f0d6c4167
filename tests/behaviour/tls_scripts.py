"""What a row of the table of TLS's edges is made of: the application's side and the peer's, as small scripts."""

from __future__ import annotations

import asyncio
import io
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from tests.support.tlspeer import TlsPeer

BULK: Final = random.Random(3).randbytes((1 << 23) + 17)
MEBIBYTE: Final = 1 << 20
SIZES: Final = (0, 1, 16383, 16384, 16385, MEBIBYTE)
PATIENCE: Final = 10.0  # seconds
PARTED: Final = ["made", "eof", "lost NoneType"]


class Ours:
    """The application: a protocol that keeps what it hears and does what a row says."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.transport: Any = None
        self.heard = bytearray()
        self.news: list[str] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.news.append("made")
        if self.row.made is not None:
            self.row.made(self)

    def heard_more(self) -> None:
        if self.row.data is not None:
            self.row.data(self)

    def eof_received(self) -> None:
        self.news.append("eof")

    def pause_writing(self) -> None:
        self.pauses += 1

    def resume_writing(self) -> None:
        self.pauses += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        self.news.append(f"lost {type(exc).__name__}")
        if not self.lost.done():
            self.lost.set_result(None)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition() and not self.lost.done():
            assert time.monotonic() < deadline, f"{condition} does not come true"
            await asyncio.sleep(0.001)


class Plain(Ours, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.heard_more()


class Buffered(Ours, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> Any:
        assert self.row.buffer is not None
        self.buffer = self.row.buffer()
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += memoryview(self.buffer).cast("B")[:nbytes]
        if isinstance(self.buffer, bytearray):
            self.buffer.clear()  # nobody holds it any more
        self.heard_more()


class Row(NamedTuple):
    """One line of the table.

    Args:
        name: says what happens.
        peer: its script.
        ours: what the application does once the connection is made.
        made: what it does in connection_made.
        data: what it does when it has heard more.
        buffer: makes its buffers; then it is a BufferedProtocol.
        piece: bytes to a segment of the peer's side of the handshake; 0 for all at once.
        behind: makes records for the segment of its last message.
        cut: the connection breaks, and how much the peer heard of it is chance.
        versions: of TLS.
        roles: of the application.
        expected: of what `Outcome` says, what is not as asyncio has it: asyncio is wrong there, and not asked.
    """

    name: str
    peer: Callable[[TlsPeer, Ours], object]
    ours: Callable[[Ours], Awaitable[object]] | None = None
    made: Callable[[Ours], object] | None = None
    data: Callable[[Ours], object] | None = None
    buffer: Callable[[], Any] | None = None
    piece: int = 0
    behind: Callable[[TlsPeer], bytes] = lambda p: b""
    cut: bool = False
    versions: tuple[str, ...] = ("1.2", "1.3")
    roles: tuple[str, ...] = ("server", "client")
    expected: dict[str, Any] | None = None


# ---- scripts of the application --------------------------------------------------------------------------------------


def writes(*pieces: Any) -> Callable[[Ours], Awaitable[None]]:
    async def ours(o: Ours) -> None:
        for piece in pieces:
            o.transport.write(piece)

    return ours


def writes_lines(make: Callable[[], Any]) -> Callable[[Ours], Awaitable[None]]:
    async def ours(o: Ours) -> None:
        o.transport.writelines(make())

    return ours


def after(size: int, *acts: Any) -> Callable[[Ours], Awaitable[None]]:
    """Do what `acts` say once `size` bytes came."""

    async def ours(o: Ours) -> None:
        await o.until(lambda: len(o.heard) >= size)
        for act in acts:
            act(o)

    return ours


async def writes_and_closes(o: Ours) -> None:
    o.transport.write(BULK[:MEBIBYTE])
    o.transport.close()


def fill(o: Ours) -> None:
    """The first fills the buffers on the way (tcp_wmem, 4 MiB at most), the second waits in the TLS layer."""
    o.transport.write(BULK[: 6 * MEBIBYTE])
    o.transport.write(BULK[6 * MEBIBYTE : 8 * MEBIBYTE])


async def writes_until_paused(o: Ours) -> None:
    fill(o)
    assert o.pauses == 1
    o.released = True  # type: ignore[attr-defined]
    await o.until(lambda: o.pauses == 2)


async def writes_until_paused_then(o: Ours, act: str) -> None:
    fill(o)
    getattr(o.transport, act)()
    o.released = True  # type: ignore[attr-defined]


async def changes_its_buffer(o: Ours) -> None:
    """What waits to be written is the transport's."""
    o.transport.write(BULK[: 6 * MEBIBYTE])
    buffer = bytearray(BULK[6 * MEBIBYTE : 6 * MEBIBYTE + 100_000])
    o.transport.write(buffer)
    o.transport.writelines([memoryview(buffer), buffer])
    buffer[:] = bytes(len(buffer))
    del buffer[:]
    o.released = True  # type: ignore[attr-defined]


def paused_while(*acts: Any) -> Callable[[Ours], Awaitable[None]]:
    """Do `acts` while reading is paused and the peer's data waits, then read on."""

    async def ours(o: Ours) -> None:
        await asyncio.sleep(0.05)
        assert not o.heard
        for act in acts:
            act(o)
        await asyncio.sleep(0.01)
        assert not o.heard
        o.transport.resume_reading()

    return ours


def pause(o: Ours) -> None:
    o.transport.pause_reading()


def pauses_at_once(o: Ours) -> None:
    """At the first byte, and lets the peer go on."""
    if not hasattr(o, "released"):
        o.transport.pause_reading()
        o.released = True  # type: ignore[attr-defined]


def close(o: Ours) -> None:
    o.transport.close()


def abort(o: Ours) -> None:
    o.transport.abort()


def write(data: bytes) -> Callable[[Ours], None]:
    return lambda o: o.transport.write(data)


async def pauses_now_and_then(o: Ours) -> None:
    for size in range(50_000, MEBIBYTE, 200_000):
        await o.until(lambda size=size: len(o.heard) > size)
        o.transport.pause_reading()
        await asyncio.sleep(0.002)
        o.transport.resume_reading()


async def sends_a_file(o: Ours) -> None:
    with io.BytesIO(BULK[:300_000]) as file:
        await asyncio.get_running_loop().sendfile(o.transport, file)


async def waits_for_room_of_nothing(o: Ours) -> None:
    """Flow control of StreamWriter.drain(): wait while paused."""
    o.transport.set_write_buffer_limits(0)
    for start in range(0, 30_000, 10_000):
        o.transport.write(BULK[start : start + 10_000])
        await o.until(lambda: o.pauses % 2 == 0)


async def two_protocols(o: Ours) -> None:
    await o.until(lambda: len(o.heard) >= 5)
    other = Plain(o.row)
    other.heard, other.news, other.transport, other.lost = o.heard, o.news, o.transport, o.lost
    o.transport.set_protocol(other)
    o.transport.write(b"go on")


def ends_twice(*ways: str) -> Callable[[Ours], Awaitable[None]]:
    async def ours(o: Ours) -> None:
        for way in ways:
            getattr(o.transport, way)()

    return ours


async def uses_it_after_the_end(o: Ours) -> None:
    o.transport.close()
    await o.until(lambda: False)
    for _ in range(3):
        o.transport.write(b"late")
    o.transport.writelines([b"late", b""])
    o.news.append(f"closing {o.transport.is_closing()}")


async def sets_limits_after_the_end(o: Ours) -> None:
    fill(o)
    o.released = True  # type: ignore[attr-defined]
    await o.until(lambda: False)
    o.transport.set_write_buffer_limits(1)


def pauses_for_a_while(o: Ours) -> None:
    o.transport.pause_reading()
    asyncio.get_running_loop().call_later(0.001, o.transport.resume_reading)


async def resumes_when_released(o: Ours) -> None:
    await o.until(lambda: hasattr(o, "released"))
    o.transport.resume_reading()


async def writes_in_turns(o: Ours) -> None:
    for start in range(0, MEBIBYTE, MEBIBYTE // 64):
        o.transport.write(BULK[start : start + MEBIBYTE // 64])
        await asyncio.sleep(0)


async def writes_much(o: Ours) -> None:
    fill(o)
    o.released = True  # type: ignore[attr-defined]


async def reads_on(o: Ours) -> None:
    await o.until(lambda: o.heard)
    await asyncio.sleep(0.05)
    assert len(o.heard) == 1
    o.transport.resume_reading()


async def closes_with_unread(o: Ours) -> None:
    await o.until(lambda: o.heard)
    await asyncio.sleep(0.05)
    o.transport.close()


# ---- scripts of the peer ---------------------------------------------------------------------------------------------


def reads(size: int) -> Callable[[TlsPeer, Ours], None]:
    return lambda p, o: p.read(size)


def sends(*make: Callable[[TlsPeer], bytes], piece: int = 0) -> Callable[[TlsPeer, Ours], None]:
    """Records, all in one segment or in pieces."""
    return lambda p, o: p.send(b"".join(one(p) for one in make), piece)


def data(size: int, record: int = 1 << 14) -> Callable[[TlsPeer], bytes]:
    return lambda p: p.data(BULK[:size], record)


def more(start: int, end: int) -> Callable[[TlsPeer], bytes]:
    return lambda p: p.data(BULK[start:end])


def empty(p: TlsPeer) -> bytes:
    return p.data(b"")


def goodbye(p: TlsPeer) -> bytes:
    return p.goodbye()


def update(request: bool) -> Callable[[TlsPeer], bytes]:
    return lambda p: p.key_update(request)


def noise(p: TlsPeer) -> bytes:
    return b"\x17\x03\x03\x00\x20" + bytes(32)


def then(*scripts: Callable[[TlsPeer, Ours], object]) -> Callable[[TlsPeer, Ours], None]:
    def peer(p: TlsPeer, o: Ours) -> None:
        for script in scripts:
            script(p, o)

    return peer


def fin(p: TlsPeer, o: Ours) -> None:
    """Without close_notify."""
    p.sock.shutdown(socket.SHUT_WR)
    p.read_to_end()


def waits(p: TlsPeer, o: Ours) -> None:
    """For the connection's end, and says nothing."""
    p.read_to_end()


def resets(p: TlsPeer, o: Ours) -> None:
    p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    p.sock.close()
    p.end = "we"


def until_released(p: TlsPeer, o: Ours) -> None:
    deadline = time.monotonic() + PATIENCE
    while not getattr(o, "released", False):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.02)


def releases(p: TlsPeer, o: Ours) -> None:
    o.released = True  # type: ignore[attr-defined]


def hears_goodbye(p: TlsPeer, o: Ours) -> None:
    while not p.said_goodbye and not p.end:
        p.read(len(p.heard) + 1)


def renegotiates(p: TlsPeer, o: Ours) -> None:
    p.renegotiate()


def by_openssl(size: int) -> Callable[[TlsPeer, Ours], None]:
    return lambda p, o: p.end or p.send_by_openssl(BULK[:size])
