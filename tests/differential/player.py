"""Plays a sequence on one connection and writes down all that an application can see.

The transport lives on the loop under test; its peer is a non-blocking kernel socket that is used in between. After each
step the loop runs until nothing happens any more, so what was seen belongs to a step. Normalised are:

- Data between two other callbacks counts as one piece: chunk boundaries are the network's.
- A write buffer is empty or not: how much the kernel or the FIFO took is theirs to say. Payloads are chosen far above
  or far below what they can take (operations.BIG), so the water marks are crossed at the same operation everywhere.
- What the peer gets of a connection that was cut off with something left in the write buffer is "part".
- A write in connection_lost(None) is left out: asyncio still sends it if the close had to wait for the write buffer,
  and drops it if not.
- write_eof() in resume_writing: asyncio shuts down twice if the write buffer is empty then, and the kernel may refuse
  the second time. Such an exception of a callback of asyncio's counts as nothing.
- close() and abort() in resume_writing: before 3.14.10 (gh-156512) asyncio calls connection_lost at once if the write
  buffer is empty then, and stumbles when it comes to the call it has scheduled. Left out;
  tests/behaviour/test_endings.py shows ours, which is the mended one on every version.
- Addresses of objects and names of classes in messages of the exception handler.
- writelines() after write_eof(): Python 3.11 complains about write(), 3.12 about writelines().
- asyncio tells eof_received again at every resume_reading() after it; its documentation promises it once. Nothing is
  paused after eof_received.
- A transport that was closed while something waited to be written, and then lost: asyncio stumbles over its own None in
  write(), abort() and a second end (3.11 to 3.13), which counts as nothing happening; and so does its warning about
  such writes.

`Rules` name what a stack cannot do; both sides of a comparison are played by the same ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.differential.operations import BIG, Operation, Sequence, Step
from tests.differential.places import Place

Entry = tuple[Any, ...]

QUIET_TURNS: Final = 5  # turns of the loop without news: every piece of news takes one turn to the next
STALLED: Final = 2.0  # seconds without progress
_PATTERN: Final = random.Random(0).randbytes((1 << 20) - 3)


def content(start: int, size: int) -> bytes:
    """Bytes `start` to `start + size` of the endless stream that either side sends."""
    offset = start % len(_PATTERN)
    return (_PATTERN[offset:] + _PATTERN * (size // len(_PATTERN) + 1))[:size]


class Boom(Exception):
    """What a protocol raises in a callback."""


def _not_connected(exc: BaseException | None) -> bool:
    return isinstance(exc, OSError) and exc.errno == errno.ENOTCONN


class Rule:
    """Names of what VPP cannot do; the reasons are in known.py."""

    RESET_DROPS_UNREAD = "a reset drops unread data"
    UNREAD_CLOSE_CUTS = "a close with unread data cuts what was just written"
    RESET_ENDS_HALF = "a reset after our FIN looks like a FIN"
    RESET_TOLD_LATER = "a reset is noticed in the next turn"
    NO_RESET_AFTER_FIN = "a reset after the FIN is not told"
    ROOM_TOLD_ALONE = "room is told in a message of its own"
    CLOSED_STILL_TAKES = "a closed connection still takes data"


class _Recorder(asyncio.BaseProtocol):
    """Writes down every callback, and does what it was armed to do."""

    def __init__(self, player: Player, number: int, keep_open: bool) -> None:
        self.player = player
        self.number = number
        self.keep_open = keep_open

    def connection_made(self, transport: Any) -> None:
        self.player.transport = transport
        self.player.place.bound_buffers(transport.get_extra_info("socket"))
        self.player.saw("connection_made", self.number)

    def eof_received(self) -> bool:
        self.player.saw("eof_received", self.number)
        return self.keep_open

    def pause_writing(self) -> None:
        self.player.saw("pause_writing", self.number)

    def resume_writing(self) -> None:
        self.player.saw("resume_writing", self.number)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.player.saw("connection_lost", self.number, exc if exc is None else type(exc).__name__)


class _Plain(_Recorder, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.player.got(self.number, data)


class _Buffered(_Recorder, asyncio.BufferedProtocol):
    size = 1 << 18  # as much as a Protocol gets at once; asyncio fills a buffer once a turn, vppaio up to four times

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(self.size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.player.got(self.number, bytes(self.buffer[:nbytes]))


class _Tiny(_Buffered):
    size = 97


_KINDS: Final = {"plain": _Plain, "buffered": _Buffered, "tiny": _Tiny}


def buffered_kinds(view: Callable[[bytearray], Any]) -> dict[str, type[_Recorder]]:
    """The kinds of protocols, where buffers are handed out as `view` makes them."""

    class Viewed(_Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            return view(super().get_buffer(sizehint))

    class TinyViewed(Viewed, _Tiny):
        pass

    return {"plain": _Plain, "buffered": Viewed, "tiny": TinyViewed}


class _Warnings(logging.Handler):
    """asyncio's warnings are part of what is seen."""

    def __init__(self, player: Player) -> None:
        super().__init__(logging.WARNING)
        self.player = player

    def emit(self, record: logging.LogRecord) -> None:
        if not self.player.lost_cleanly:
            self.player.note("log", record.getMessage())


class Player:
    """One connection, its peer, and the trace of what happened."""

    def __init__(self, place: Place, sequence: Sequence, rules: frozenset[str] = frozenset(), calm: float = 1) -> None:
        self.place = place
        self.sequence = sequence
        self.rules = rules
        self.flight_time = place.flight_time * calm
        self.steps: list[list[Entry]] = []  # one list of entries per step
        self.current: list[Entry] = []
        self.peer_received: Entry | None = None
        self.armed: dict[str, tuple[Operation, ...]] = {}
        self.numbers = itertools.count()
        self.tasks: list[asyncio.Task[None]] = []
        self.transport: Any = None
        self.kind = ""
        self.peer: Any = None
        self.peer_writes = True
        self.peer_end = "open"
        self.written = 0  # bytes that write and writelines took without complaint
        self.unread_by_peer = 0  # of these, since the peer last read all
        self.received = 0  # by the peer
        self.sent = 0  # by the peer
        self.delivered = 0  # to the protocol
        self.eof_written = False
        self.eof_received = False
        self.lost = self.lost_cleanly = False
        self.cut = False
        self.unread_at_close = False

    # ---- what is seen -----------------------------------------------------------------------------------------------

    def note(self, *entry: Any) -> None:
        self.current.append(entry)

    def got(self, number: int, data: bytes) -> None:
        correct = data == content(self.delivered, len(data))
        self.delivered += len(data)
        last = self.current[-1] if self.current else ()
        if correct and last[:2] == ("data", number):
            self.current[-1] = ("data", number, last[2] + len(data))
        else:
            self.note("data" if correct else "corrupt data", number, len(data))
        self.react("data")

    def saw(self, name: str, number: int, *details: Any) -> None:
        if name == "eof_received":
            self.eof_received = True
        if name == "connection_lost":
            self.lost = True
            self.lost_cleanly = details == (None,)
            self.unread_at_close = self.sent > self.delivered
            self.cut = self.unread_by_peer >= BIG
        self.note(name, number, *details)
        self.react(name)

    def react(self, name: str) -> None:
        for operation in self.armed.pop(name, ()):
            if operation[0] == "raise":
                raise Boom(name)
            if name == "connection_lost" and self.lost_cleanly and operation[0].startswith("write"):
                continue
            if name == "resume_writing" and operation[0] in ("close", "abort"):
                continue
            self.act(operation)

    def failed(self, loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if self.stumbles(exc) or (self.place.name == "asyncio" and self.eof_written and _not_connected(exc)):
            return
        message = re.sub(r"^Exception in callback .*", "Exception in callback", context["message"])
        self.note("exception handler", message, type(exc).__name__)

    def stumbles(self, exc: BaseException | None) -> bool:
        """Whether asyncio stumbles over what it has set to None."""
        return self.place.name == "asyncio" and isinstance(exc, AttributeError) and "'NoneType' object" in str(exc)

    def seen(self) -> list[Entry]:
        """What belongs to the step at hand; how it ended for the peer may be known before the callbacks or after."""
        return [*self.current, *([self.peer_received] if self.peer_received else []), self.state()]

    def state(self) -> Entry:
        transport = self.transport
        return (
            "state",
            "closing" if transport.is_closing() else "open",
            "reading" if transport.is_reading() else "not reading",
            "waiting to be written" if transport.get_write_buffer_size() else "all written",
            transport.get_write_buffer_limits(),
        )

    # ---- operations of the transport --------------------------------------------------------------------------------

    def act(self, operation: Operation) -> None:
        """Perform one operation of the transport and note its result."""
        name, *arguments = operation
        if self._is_too_soon(name) or self._is_the_stacks(name):
            return
        try:
            result = getattr(self, f"_{name}")(*arguments)
        except Exception as exc:
            reason = exc.errno if isinstance(exc, OSError) else exc
            result = f"{type(exc).__name__}: {reason}".replace("writelines()", "write()")
            if self.stumbles(exc):
                result = None
        self.note("call", name, *arguments, "->", result)

    def _write(self, kind: str, size: int) -> Any:
        data = content(self.written, size)
        with self._taking(size):
            return self.transport.write({"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}[kind](data))

    def _writelines(self, kind: str, sizes: tuple[int, ...], times: int) -> Any:
        sizes *= times
        data = content(self.written, sum(sizes))
        ends = list(itertools.accumulate(sizes, initial=0))
        pieces = [data[start:end] for start, end in itertools.pairwise(ends)]
        with self._taking(sum(sizes)):
            return self.transport.writelines(pieces if kind == "list" else (piece for piece in pieces))

    @contextlib.contextmanager
    def _taking(self, size: int) -> Iterator[None]:
        """Count what is written, before: pause_writing may write more. After the end nothing is."""
        size = 0 if self.lost else size
        self.written += size
        self.unread_by_peer += size
        try:
            yield
        except BaseException:
            self.written -= size
            self.unread_by_peer -= size
            raise

    def _write_nonsense(self, value: Any) -> Any:
        return self.transport.write(value)

    def _write_eof(self) -> Any:
        self.eof_written = self.eof_written or not self.transport.is_closing()
        return self.transport.write_eof()

    def _pause_reading(self) -> Any:
        return None if self.eof_received else self.transport.pause_reading()

    def _get_write_buffer_size(self) -> str:
        return "something" if self.transport.get_write_buffer_size() else "nothing"

    def _set_protocol(self, kind: str, keep_open: bool) -> Any:
        protocol = self.protocol(kind, keep_open)
        result = self.transport.set_protocol(protocol)
        assert self.transport.get_protocol() is protocol
        return result

    def _soon(self, turns: int) -> None:
        """Something else that the loop has to do, `turns` turns long."""
        # A buffer that takes little is filled once a turn on asyncio, more often on ours.
        if self.kind != "tiny":
            self.place.loop.call_soon(self._turn, turns)

    def _turn(self, turns: int) -> None:
        self.note("turn", turns)
        if turns > 1:
            self.place.loop.call_soon(self._turn, turns - 1)

    def _task(self, turns: int) -> None:
        """A task, which is to start before the data of the next turn."""

        async def task() -> None:
            for turn in range(turns):
                self.note("task", turn)
                await asyncio.sleep(0)

        if self.kind != "tiny":
            self.tasks.append(self.place.loop.create_task(task()))

    def _arm(self, callback: str, operations: tuple[Operation, ...]) -> None:
        self.armed[callback] = operations

    def __getattr__(self, name: str) -> Any:
        """All others are the transport's own."""
        return getattr(self.transport, name.removeprefix("_"))

    def protocol(self, kind: str, keep_open: bool) -> _Recorder:
        self.kind = kind
        return _KINDS[kind](self, next(self.numbers), keep_open)

    # ---- operations of the peer -------------------------------------------------------------------------------------

    def peer_act(self, operation: Operation) -> None:
        """Those that act at once."""
        name, *arguments = operation
        if self.peer is None or self._is_out_of_reach(name):
            return
        self.flight()
        match name:
            case "peer_send":
                self._peer_send(min(arguments[0], 20000))
            case "peer_shutdown":
                self.peer_writes = False
                with contextlib.suppress(OSError):
                    self.peer.shutdown(socket.SHUT_WR)
            case "peer_close":
                self._peer_close()
            case "peer_reset":
                with contextlib.suppress(OSError):
                    self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._peer_close()
        self.flight()

    def _is_out_of_reach(self, name: str) -> bool:
        """Whether the stack cannot do as the kernel does here."""
        resets = name == "peer_reset" or (name == "peer_close" and self.unread_by_peer > 0)
        return (
            (Rule.RESET_DROPS_UNREAD in self.rules and resets and self.sent > self.delivered)
            or (Rule.RESET_ENDS_HALF in self.rules and resets and self.eof_written)
            or (Rule.NO_RESET_AFTER_FIN in self.rules and resets and not self.peer_writes)
            or (Rule.CLOSED_STILL_TAKES in self.rules and name == "peer_send" and self.lost)
        )

    def _is_too_soon(self, name: str) -> bool:
        """Whether the stack cannot know yet what the kernel knows here."""
        if self.peer is not None or self.lost:
            return False
        return (Rule.NO_RESET_AFTER_FIN in self.rules and name in ("write", "writelines")) or (
            Rule.RESET_TOLD_LATER in self.rules and name == "write_eof"
        )

    def _is_the_stacks(self, name: str) -> bool:
        """Whether it is the stack's to say in which order the consequences come."""
        # Not what waits by now: while the peer reads, that is the network's.
        told_alone = Rule.ROOM_TOLD_ALONE in self.rules
        return told_alone and name == "set_write_buffer_limits" and self.unread_by_peer >= BIG

    def _peer_send(self, size: int) -> int:
        if not self.peer_writes:
            return 0
        try:
            sent: int = self.peer.send(content(self.sent, size))
        except BlockingIOError:
            return 0
        except OSError:
            self.peer_writes = False
            self.note("peer cannot send")
            return 0
        self.sent += sent
        return sent

    def _peer_close(self) -> None:
        self.peer.close()
        self.peer = None

    async def _peer_send_big(self) -> None:
        """Send until all was delivered."""
        end = self.sent + BIG
        progress = time.monotonic()
        while self.delivered < end:
            before = self.delivered, self.sent
            self._peer_send(min(end - self.sent, 1 << 16))
            await self.place.turn()
            if self.lost or not self.peer_writes or not self.transport.is_reading():
                break
            if before != (self.delivered, self.sent):
                progress = time.monotonic()
            elif time.monotonic() > progress + STALLED:
                self.note("data does not arrive")
                break

    async def _peer_read(self) -> None:
        """Read until nothing more can come."""
        progress = time.monotonic()
        while self.peer_end == "open" and self.peer is not None:
            try:
                data = self.peer.recv(1 << 18)
            except BlockingIOError:
                ending = self.transport.is_closing() or self.eof_written
                if self.received == self.written and not ending:
                    break
                if time.monotonic() > progress + STALLED:
                    self.note("peer waits in vain", "for data" if self.received < self.written else "for the end")
                    break
                await self.place.turn()
                continue
            except ConnectionResetError:
                self.peer_end = "reset"
                break
            progress = time.monotonic()
            if not data:
                self.peer_end = "eof"
            elif data != content(self.received, len(data)):
                self.note("peer received corrupt data")
            self.received += len(data)
        self.unread_by_peer = 0
        compared = not (self.unread_at_close and Rule.UNREAD_CLOSE_CUTS in self.rules)
        self.peer_received = ("peer received", self._received(), self.peer_end) if compared else None

    def _received(self) -> int | str:
        return "part" if self.cut and (self.received < self.written or self.unread_at_close) else self.received

    def flight(self) -> None:
        """Let packets arrive; the loop does not run meanwhile."""
        if self.flight_time:
            time.sleep(self.flight_time)

    # ---- the play ---------------------------------------------------------------------------------------------------

    async def play(self, expected: list[list[Entry]] | None = None, patience: float = STALLED) -> list[list[Entry]]:
        """Play all steps.

        Args:
            expected: what the reference saw. A step lasts until the same was seen, and the play ends with the
                first step where it was not seen within `patience` seconds.
        """
        loop = self.place.loop
        handler = _Warnings(self)
        logging.getLogger("asyncio").addHandler(handler)
        loop.set_exception_handler(self.failed)
        try:
            steps = itertools.chain([None], self.sequence.steps, [Step((("peer_read",),))])
            for number, step in enumerate(steps):
                await self._step(step, expected[number] if expected else None, patience)
                if expected is not None and self.steps[-1] != expected[number]:
                    break
        finally:
            loop.set_exception_handler(None)
            await self._end()
            logging.getLogger("asyncio").removeHandler(handler)
        return self.steps

    async def _step(self, step: Step | None, expected: list[Entry] | None, patience: float) -> None:
        self.current = []
        self.peer_received = None
        if step is None:
            await self._open()
        elif step.operations[0] == ("peer_read",):
            await self._peer_read()
            await self._settle(None, patience)
            await self._peer_read()  # a callback of the last bytes may have ended the connection
        elif step.operations[0] == ("peer_send", BIG) and self._reads_undisturbed():
            await self._peer_send_big()
        else:
            for operation in step.operations:
                if operation[0].startswith("peer_"):
                    self.peer_act(operation)
                else:
                    self.act(operation)
        await self._settle(expected, patience)
        self.steps.append(self.seen())

    async def _open(self) -> None:
        opening = self.sequence.opening
        if opening.connection_made:
            self.armed["connection_made"] = opening.connection_made

        def met(peer: socket.socket) -> None:
            self.peer = peer
            self.flight()
            self._peer_send(opening.greeting)
            self.flight()

        def made() -> bool:
            return self.transport is not None

        await self.place.connect(
            self.sequence.role, lambda: self.protocol(*self.sequence.protocol), made, met, self._on_socket
        )
        if self.sequence.role != "server":
            self.note("connected")
            for operation in opening.connected:
                self.act(operation)

    async def _on_socket(self, sock: Any) -> None:
        loop = self.place.loop
        for name, size in self.sequence.opening.on_socket:
            if name == "sock_sendall":
                await loop.sock_sendall(sock, content(self.written, size))
                self.written += size
                self.unread_by_peer += size
            elif self.sent > self.delivered:
                data = await loop.sock_recv(sock, size)
                correct = data == content(self.delivered, len(data))
                self.delivered += len(data)
                self.note(name, len(data) if correct else "corrupt")

    def _reads_undisturbed(self) -> bool:
        return (
            self.peer is not None
            and self.peer_writes
            and self.kind != "tiny"
            and self.transport.is_reading()
            and "data" not in self.armed
            and self.sent == self.delivered
        )

    async def _settle(self, expected: list[Entry] | None, patience: float) -> None:
        """Run the loop until nothing happens any more."""
        quiet = 0
        deadline = time.monotonic() + patience
        while True:
            before = len(self.current), self.delivered
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == (len(self.current), self.delivered) else 0
            if quiet >= QUIET_TURNS:
                if expected is None or self.seen() == expected or time.monotonic() > deadline:
                    return
                time.sleep(0.0005)  # noqa: ASYNC251  packets are on their way

    async def _end(self) -> None:
        self.armed.clear()
        if self.transport is not None:
            with contextlib.suppress(AttributeError):
                self.transport.abort()
            deadline = time.monotonic() + STALLED
            while not self.lost and time.monotonic() < deadline:
                await self.place.turn()
        if self.peer is not None:
            self._peer_close()
        await asyncio.gather(*self.tasks)


def describe(sequence: Sequence, expected: list[list[Entry]], seen: list[list[Entry]]) -> Iterator[str]:
    """Lines that show where two traces part."""
    names = ["connect", *(repr(step.operations) for step in sequence.steps), "peer reads to the end"]
    for name, left, right in zip(names, expected, seen, strict=False):
        yield f"  {name}"
        if left == right:
            yield from (f"      {entry}" for entry in left)
            continue
        yield from (f"    asyncio: {entry}" for entry in left)
        yield from (f"    vppaio:  {entry}" for entry in right)
        return
