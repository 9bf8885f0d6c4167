"""Socket-like ends of a `FakeVcl`, for tests that play the other side.

As much of `socket.socket` as tests use. Peers have a worker of their own and wait by polling, so they block only the
thread that calls them; `timeout` 0 does not block at all.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from tests.fakes.vcl import FakeVcl
from tests.support.driver import Address, Worker

Result = TypeVar("Result")
_PAUSE = 0.0005  # seconds between two looks; the other side is usually a thread or done already


class Peers:
    """The peers of one fake, closed together."""

    def __init__(self, fake: FakeVcl, timeout: float = 5.0) -> None:
        self.worker = Worker(fake.ops)
        self.timeout = timeout

    def close(self) -> None:
        self.worker.close()

    def connect(self, to: Address) -> Peer:
        """A connected stream; raises ConnectionRefusedError and the like."""
        peer = Peer(self, self.worker.connect(to))
        peer.wait(lambda: self.worker.ops.session_connect_result(peer.handle, self._events(peer.handle)))
        return peer

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> Peer:
        return Peer(self, self.worker.listen(host, port)[0])

    def datagrams(self, host: str = "127.0.0.1", port: int = 0) -> Peer:
        return Peer(self, self.worker.datagrams(host, port)[0])

    def _events(self, handle: int) -> int:
        return sum({events for data, events in self.worker.ask() if data == handle})


class Peer:
    """One session as a socket."""

    def __init__(self, peers: Peers, handle: int) -> None:
        self._worker = peers.worker
        self._peers = peers
        self._timeout = peers.timeout
        self.handle = handle

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def wait(self, call: Callable[[], Result]) -> Result:
        """Repeat `call` until it has an answer, and raise the error it may be."""
        deadline = time.monotonic() + self._timeout
        while True:
            rv = call()
            if not isinstance(rv, int) or rv >= 0:
                return rv
            if rv not in (-errno.EAGAIN, -errno.EINPROGRESS):
                raise OSError(-rv, os.strerror(-rv))
            if self._timeout == 0:
                raise BlockingIOError(-rv, os.strerror(-rv))
            if time.monotonic() > deadline:
                raise TimeoutError("the fake's peer has waited long enough")
            time.sleep(_PAUSE)
            self._worker.ask()  # the queue has to be drained for connects and accepts to get anywhere

    def accept(self) -> tuple[Peer, Address]:
        handle = self.wait(self._accept)
        address = self._worker.peer(handle)
        assert not isinstance(address, int)
        return Peer(self._peers, handle), address

    def _accept(self) -> int:
        return self._worker.accept(self.handle)[0]

    def send(self, data: bytes) -> int:
        return self.wait(lambda: self._worker.write(self.handle, data))

    def sendall(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            unsent = unsent[self.send(bytes(unsent[:65536])) :]

    def recv(self, size: int) -> bytes:
        data = self.wait(lambda: self._worker.read(self.handle, size))
        assert isinstance(data, bytes)
        return data

    def sendto(self, data: bytes, to: Address) -> int:
        return self.wait(lambda: self._worker.sendto(self.handle, data, to))

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        received = self.wait(lambda: self._worker.recvfrom(self.handle, size))
        assert not isinstance(received, int)
        return received

    def shutdown(self, how: int) -> None:
        self.wait(lambda: int(self._worker.ops.session_shutdown(self.handle, how)))

    def getsockname(self) -> Address:
        return self._worker.local(self.handle)

    def close(self) -> None:
        self._worker.close_session(self.handle)  # a second time, it is refused and no harm is done
