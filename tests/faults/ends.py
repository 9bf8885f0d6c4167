"""The two ends of a simulated conversation: clients that send and compare, servers that echo.

Each as a Protocol, as a BufferedProtocol and with streams; they pause, dawdle, write in pieces and sometimes give up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.places import Place


class Run:
    """What the ends of one run share."""

    def __init__(self, chance: random.Random, on_arrival: Callable[[], None]) -> None:
        self.chance = chance
        self.on_arrival = on_arrival
        self.alive: set[Any] = set()  # servers' ends that have not ended
        self.tasks: set[Any] = set()  # of those with streams
        self.broken = 0  # how many servers' ends ended with an exception
        self.dawdles = chance.choice((0.0, 0.0, 0.1, 0.4))  # how often an end pauses reading
        self.gives_up = chance.choice((0.0, 0.0, 0.0, 0.02))  # how often one aborts instead of writing

    def pieces(self, content: bytes) -> Iterator[bytes]:
        """`content` in pieces of random size."""
        at = 0
        while at < len(content):
            size = self.chance.choice((1, 100, 1500, 10_000, 70_000))
            yield content[at : at + size]
            at += size


class _End:
    """What is common to all that have a transport."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.transport: Any = None
        self.blocked = False
        self.ended = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False

    def took(self, data: bytes) -> None:
        raise NotImplementedError

    def arrived(self, data: bytes) -> None:
        self.run.on_arrival()
        self.took(data)
        if not self.ended and self.run.chance.random() < self.run.dawdles:
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            if self.run.chance.random() < 0.7:
                loop.call_soon(self.go_on)
            else:
                loop.call_later(0.001, self.go_on)

    def go_on(self) -> None:
        if not self.ended:
            self.transport.resume_reading()


class _Plain(_End, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.arrived(data)


class _Buffered(_End, asyncio.BufferedProtocol):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.room = bytearray(self.run.chance.choice((33, 1000, 65536)))

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived(bytes(self.room[:nbytes]))


class Echo(_End):
    """A server's end; while it cannot write it does not read."""

    @staticmethod
    def of(kind: str) -> Callable[[Run], Echo]:
        return _PlainEcho if kind == "plain" else _BufferedEcho

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.run.alive.add(self)

    def took(self, data: bytes) -> None:
        if self.run.chance.random() < self.run.gives_up / 4:
            self.run.broken += 1
            self.transport.abort()
        elif self.run.chance.random() < 0.5:
            self.transport.write(data)
        else:
            self.transport.writelines([data[:7], data[7:]])

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()

    def go_on(self) -> None:
        if not self.blocked:
            super().go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.run.alive.remove(self)
        self.run.broken += exc is not None


class _PlainEcho(Echo, _Plain):
    pass


class _BufferedEcho(Echo, _Buffered):
    pass


class Client(_End):
    """Sends `content`, keeps what comes back.

    Attributes:
        done: a future, set when the connection has ended.
        received, failure, aborted: what came back, `connection_lost`'s exception, whether we gave up.
    """

    def __init__(self, run: Run, content: bytes, may_give_up: bool = True) -> None:
        super().__init__(run)
        self.size = len(content)
        self.unsent = run.pieces(content)
        self.half_closes = run.chance.random() < 0.5
        self.may_give_up = may_give_up
        self.received = bytearray()
        self.failure: BaseException | None = None
        self.aborted = self.all_sent = False
        self.done = asyncio.get_running_loop().create_future()

    @staticmethod
    def of(kind: str) -> Callable[..., Client]:
        return _PlainClient if kind == "plain" else _BufferedClient

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.send()

    def send(self) -> None:
        chance = self.run.chance
        while not (self.blocked or self.all_sent or self.ended or self.transport.is_closing()):
            piece = next(self.unsent, None)
            if piece is None:
                self.all_sent = True
                if self.half_closes:
                    with contextlib.suppress(OSError):  # as a socket's: already reset
                        self.transport.write_eof()
                elif not self.size:
                    self.transport.close()
                return
            self.transport.write(piece)
            if self.may_give_up and chance.random() < self.run.gives_up:
                self.aborted = True
                self.transport.abort()
            elif chance.random() < 0.3:
                asyncio.get_running_loop().call_soon(self.send)
                return

    def resume_writing(self) -> None:
        super().resume_writing()
        self.send()

    def took(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == self.size and not self.half_closes:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.failure = exc
        self.done.set_result(None)


class _PlainClient(Client, _Plain):
    pass


class _BufferedClient(Client, _Buffered):
    pass


# ---- streams ---------------------------------------------------------------------------------------------------------


def stream_echo(run: Run) -> asyncio.StreamReaderProtocol:
    """A server's end with streams."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        run.tasks.add(task)
        try:
            while data := await reader.read(run.chance.choice((33, 1000, 100_000))):
                run.on_arrival()
                writer.write(data)
                await writer.drain()
                if run.chance.random() < run.dawdles:
                    await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()
        except OSError:
            run.broken += 1
        finally:
            writer.transport.abort()
            run.tasks.discard(task)

    return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=run.chance.choice((10, 65536))), echo)


class _StreamClient:
    def __init__(self) -> None:
        self.received = bytearray()
        self.failure: BaseException | None = None
        self.aborted = False


async def stream_client(run: Run, place: Place, server: asyncio.Server, content: bytes) -> _StreamClient:
    """A client with streams, to its end; raises OSError if it cannot connect."""
    client = _StreamClient()
    reader = asyncio.StreamReader(limit=run.chance.choice((10, 65536)))
    transport, protocol = await place.connect(lambda: asyncio.StreamReaderProtocol(reader), server)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())

    async def send() -> None:
        for piece in run.pieces(content):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def receive() -> None:
        while data := await reader.read(run.chance.choice((33, 1000, 100_000))):
            run.on_arrival()
            client.received += data

    for answer in await asyncio.gather(send(), receive(), return_exceptions=True):
        client.failure = client.failure or answer
    writer.close()
    try:
        await writer.wait_closed()
    except OSError as failure:
        client.failure = client.failure or failure
    return client
