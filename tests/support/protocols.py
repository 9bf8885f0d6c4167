"""Protocols that tests give to the loop: echoes, and recorders of what they are told.

Programs in processes of their own use them, too, so nothing but asyncio is imported here.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, n: int) -> None:
        self.transport.write(self.buffer[:n])


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)

    def error_received(self, error: Exception) -> None:
        self.errors.append(error)


class _News:
    """Keeps what it is told, in order, and what it hears."""

    def __init__(self, keep_open: bool = False) -> None:
        self.keep_open = keep_open
        self.transport: Any = None
        self.heard = bytearray()
        self.news: list[Any] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.news.append("made")

    def eof_received(self) -> bool:
        self.news.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.news.append("pause")

    def resume_writing(self) -> None:
        self.news.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.news.append("lost")
        self.lost.set_result(exc)


class Recorder(_News, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.heard += data


class BufferedRecorder(_News, asyncio.BufferedProtocol):
    """Reads into a small buffer of its own."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.hints: set[int] = set()

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.add(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self.buffer[:nbytes]
