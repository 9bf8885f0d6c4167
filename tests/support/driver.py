"""A table of operations as a test likes to call it: bytes and address pairs instead of C memory, events by session.

Results stay the table's own, because they are what is tested: an int is what the call returned, negative errno
included; `read` and `recvfrom` return bytes where the call returned a length.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vppaio.vcl._vcl import ffi, lib

TCP: Final = lib.VCL_PROTO_TCP
UDP: Final = lib.VCL_PROTO_UDP
PARKED: Final = lib.VCL_WAIT_PARKED
NOW: Final = lib.VCL_WAIT_NOW
ADD, DEL, MOD = 1, 2, 3  # EPOLL_CTL_...; Python's select keeps them to itself
IN, OUT, ERR, HUP, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP, select.EPOLLRDHUP
ALL_EVENTS: Final = IN | OUT | RDHUP | select.EPOLLET

PATIENCE: Final = 5.0  # seconds until an event that must come counts as lost
QUIET: Final = 0.05  # seconds without news that count as "nothing comes"

Address = tuple[str, int]


def endpoint(address: Address) -> Any:
    """A `vcl_endpoint *` of its own."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.inet_pton(family, host)
    made = ffi.new("vcl_endpoint *")
    ffi.memmove(made.ip, raw, len(raw))
    made.port = socket.htons(port)
    made.is_ip4 = family == socket.AF_INET
    return made


def address(filled: Any) -> Address:
    """The address in a `vcl_endpoint *`."""
    raw = bytes(ffi.buffer(filled.ip, 4 if filled.is_ip4 else 16))
    family = socket.AF_INET if filled.is_ip4 else socket.AF_INET6
    return socket.inet_ntop(family, raw), socket.ntohs(filled.port)


class Worker:
    """One worker with its epoll set, and every session it made, until `close`."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self.index: int = ops.worker_register()
        assert self.index >= 0, errno.errorcode.get(-self.index)
        self.vep: int = ops.epoll_create(self.index)
        assert self.vep >= 0, errno.errorcode.get(-self.vep)
        self.fd: int = ops.worker_fd(self.index)
        self._open: set[int] = set()
        self._unseen: dict[int, int] = {}  # data -> events that came while waiting for something else

    def close(self) -> None:
        for handle in tuple(self._open):
            self.close_session(handle)
        assert self.ops.session_close(self.vep) == 0
        assert self.ops.worker_unregister(self.index) == 0

    # -- sessions -----------------------------------------------------------------------------------------------------

    def create(self, proto: int = TCP, *, ip6: bool = False) -> int:
        return self._keep(self.ops.session_create(self.index, proto, not ip6))

    def close_session(self, handle: int) -> int:
        self._open.discard(handle)
        self._unseen.pop(handle, None)
        return int(self.ops.session_close(handle))

    def listen(self, host: str, port: int = 0, *, backlog: int = 128) -> tuple[int, Address]:
        """A watched listener and the address it got. `port` 0 means any, on every stack."""
        handle, bound = self._bound(TCP, host, port, backlog)
        self.watch(handle)
        return handle, bound

    def datagrams(self, host: str, port: int = 0) -> tuple[int, Address]:
        """A watched and bound datagram session and its address."""
        handle, bound = self._bound(UDP, host, port, None)
        self.watch(handle)
        return handle, bound

    def connect(self, to: Address, proto: int = TCP) -> int:
        """A watched session that has begun to connect."""
        handle = self.create(proto, ip6=":" in to[0])
        assert self.ops.session_connect(handle, endpoint(to)) == -errno.EINPROGRESS
        self.watch(handle)
        return handle

    def connected(self, to: Address, proto: int = TCP) -> int:
        handle = self.connect(to, proto)
        assert self.connect_result(handle) == 0
        return handle

    def connect_result(self, handle: int) -> int:
        """What becomes of a connect, waited for."""
        return int(self.ops.session_connect_result(handle, self.wait_for(handle, OUT | HUP | ERR)))

    def accept(self, listener: int) -> tuple[int, Address | None]:
        """One call: handle or negative errno, and the peer. The accepted session is watched."""
        peer = ffi.new("vcl_endpoint *")
        handle = self.ops.session_accept(listener, peer)
        if handle < 0:
            return handle, None
        self.watch(self._keep(handle))
        return handle, address(peer)

    def accepted(self, listener: int) -> tuple[int, Address]:
        """The next connection, waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            handle, peer = self.accept(listener)
            if peer is not None:
                self._unseen.pop(listener, None)  # its event is used up
                return handle, peer
            assert handle == -errno.EAGAIN
            assert time.monotonic() < deadline, "no connection arrived"
            self._sleep(QUIET)
            self._gather()

    def local(self, handle: int) -> Address:
        filled = ffi.new("vcl_endpoint *")
        assert self.ops.session_local(handle, filled) == 0
        return address(filled)

    def peer(self, handle: int) -> Address | int:
        filled = ffi.new("vcl_endpoint *")
        rv: int = self.ops.session_peer(handle, filled)
        return rv if rv < 0 else address(filled)

    def get_option(self, handle: int, level: int, option: int) -> int:
        value = ffi.new("int *")
        rv: int = self.ops.session_get_option(handle, level, option, value)
        return rv if rv < 0 else int(value[0])

    # -- bytes --------------------------------------------------------------------------------------------------------

    def read(self, handle: int, size: int = 65536) -> bytes | int:
        buffer = ffi.new("char[]", size)
        rv: int = self.ops.session_read(handle, buffer, size)
        return rv if rv < 0 else bytes(ffi.buffer(buffer, rv))

    def read_exactly(self, handle: int, size: int) -> bytes:
        """As many bytes, waited for."""
        return b"".join(self._read_until(handle, size))

    def read_to_end(self, handle: int) -> bytes:
        """Everything until the peer's FIN, waited for."""
        return b"".join(self._read_until(handle, None))

    def write(self, handle: int, data: bytes) -> int:
        return int(self.ops.session_write(handle, ffi.from_buffer(data), len(data)))

    def write_until_full(self, handle: int, piece: bytes = bytes(range(256)) * 256) -> bytes:
        """Write until EAGAIN; what was taken."""
        taken = []
        while (rv := self.write(handle, piece)) >= 0:
            taken.append(piece[:rv])
        assert rv == -errno.EAGAIN
        return b"".join(taken)

    def writev(self, handle: int, pieces: Sequence[bytes]) -> int:
        memory = [ffi.from_buffer(piece) for piece in pieces]
        vector = ffi.new("struct iovec[]", len(pieces))
        for entry, start, piece in zip(vector, memory, pieces, strict=False):
            entry.iov_base, entry.iov_len = start, len(piece)
        return int(self.ops.session_writev(handle, vector, len(pieces)))

    def recvfrom(self, handle: int, size: int = 65536) -> tuple[bytes, Address] | int:
        buffer, sender = ffi.new("char[]", size), ffi.new("vcl_endpoint *")
        rv: int = self.ops.session_recvfrom(handle, buffer, size, sender)
        return rv if rv < 0 else (bytes(ffi.buffer(buffer, rv)), address(sender))

    def received(self, handle: int, size: int = 65536) -> tuple[bytes, Address]:
        """The next datagram, waited for."""
        deadline = time.monotonic() + PATIENCE
        while isinstance(rv := self.recvfrom(handle, size), int):
            assert rv == -errno.EAGAIN
            assert time.monotonic() < deadline, "no datagram arrived"
            self._sleep(QUIET)
            self._gather()
        return rv

    def sendto(self, handle: int, data: bytes, to: Address | None = None) -> int:
        target = ffi.NULL if to is None else endpoint(to)
        return int(self.ops.session_sendto(handle, ffi.from_buffer(data), len(data), target))

    # -- events -------------------------------------------------------------------------------------------------------

    def watch(self, handle: int, events: int = ALL_EVENTS) -> None:
        """Join the epoll set; the handle is the session's `data`."""
        assert self.ops.epoll_ctl(self.vep, ADD, handle, events, handle) == 0

    def ask(self, how: int = NOW, max_events: int = 1024) -> list[tuple[int, int]]:
        """One epoll_wait: (data, events) pairs."""
        events = ffi.new("struct epoll_event[]", max_events)
        n = self.ops.epoll_wait(self.vep, events, max_events, how)
        assert n >= 0, errno.errorcode.get(-n)
        return [(events[i].data.u64, events[i].events) for i in range(n)]

    def fd_is_readable(self) -> bool:
        return self._sleep(0)

    def wait_for(self, handle: int, events: int) -> int:
        """Wait until the session has told at least one of `events`; all it has told since the last wait."""
        deadline = time.monotonic() + PATIENCE
        while not self._unseen.get(handle, 0) & events:
            assert time.monotonic() < deadline, f"no event {events:#x}, only {self._unseen.get(handle, 0):#x}"
            if not self._gather():
                self._sleep(QUIET)
        return self._unseen.pop(handle)

    def news(self) -> dict[int, int]:
        """Events by session since the last wait, after it has become quiet."""
        while self._gather() or self._sleep(QUIET):
            pass
        unseen, self._unseen = self._unseen, {}
        return unseen

    @contextlib.contextmanager
    def holds_nothing_back(self) -> Iterator[None]:
        """Check at the end that what PARKED and the descriptor do not tell, NOW does not know either."""
        yield
        if not self.ask(PARKED) and not self.fd_is_readable():
            assert self.ask(NOW) == []

    def _gather(self) -> bool:
        """As the loop asks before it sleeps (docs/vpp.md 3.5): what is parked, then NOW if the descriptor says so."""
        came = self.ask(PARKED)
        if self.fd_is_readable():
            came += self.ask(NOW)
        for data, events in came:
            self._unseen[data] = self._unseen.get(data, 0) | events
        return bool(came)

    def _sleep(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _keep(self, handle: int) -> int:
        assert handle >= 0, errno.errorcode.get(-handle)
        self._open.add(handle)
        return handle

    def _bound(self, proto: int, host: str, port: int, backlog: int | None) -> tuple[int, Address]:
        """Bind, and listen if there is a backlog; where port 0 stays 0, try ports."""
        tries = [port] if port or not self.ops.traps & lib.VCL_TRAP_PORT_ZERO else itertools.islice(_PORTS, 100)
        for chosen in tries:
            handle = self.create(proto, ip6=":" in host)
            rv = self.ops.session_bind(handle, endpoint((host, chosen)))
            if rv == 0 and backlog is not None:
                rv = self.ops.session_listen(handle, backlog)
            if rv == 0:
                return handle, (host, chosen or self.local(handle)[1])
            self.close_session(handle)
            assert rv == -errno.EADDRINUSE, errno.errorcode.get(-rv)
        raise AssertionError("no free port")

    def _read_until(self, handle: int, size: int | None) -> Iterator[bytes]:
        deadline = time.monotonic() + PATIENCE
        while size is None or size > 0:
            piece = self.read(handle, 65536 if size is None else size)
            if piece == -errno.EAGAIN:
                assert time.monotonic() < deadline, "the bytes did not arrive"
                self._sleep(QUIET)
                self._gather()
                continue
            assert isinstance(piece, bytes), errno.errorcode.get(-piece)
            if not piece:
                assert size is None, f"the peer closed {size} bytes early"
                return
            if size is not None:
                size -= len(piece)
            yield piece


_PORTS: Final = itertools.count(20000)
