"""The fake's sessions and workers: FIFOs, and when VCL says what about them.

Two sessions of one connection point to each other through `remote`; the bytes that one has written lie in the other's
`rx`. News travels as messages through the worker's queue, as in VPP, and becomes an event only when the queue is
drained: that is where VCL's rules of edge triggering live (docs/vpp.md 4), in `Worker._event`.
"""

from __future__ import annotations

import enum
import errno
import os
import select
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from vppaio.vcl._vcl import lib

Address = tuple[str, int]

IN, OUT, ERR, HUP, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP, select.EPOLLRDHUP
MAX_SESSIONS: Final = 1 << 24


class Refusal(Exception):
    """A call's negative answer."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


class State(enum.Enum):
    """NEW -> BOUND -> LISTENING, or NEW -> [BOUND ->] CONNECTING -> READY, or accepted READY; any of them -> DEAD."""

    NEW = enum.auto()
    BOUND = enum.auto()
    LISTENING = enum.auto()
    CONNECTING = enum.auto()
    READY = enum.auto()
    DEAD = enum.auto()  # connect failed, or the stack is gone: every use is ENOTCONN


_NAMED: Final = {
    State.NEW: lib.VCL_NEW,
    State.BOUND: lib.VCL_BOUND,
    State.LISTENING: lib.VCL_LISTENING,
    State.CONNECTING: lib.VCL_CONNECTING,
    State.READY: lib.VCL_CONNECTED,
}


class Message(enum.Enum):
    """What VPP tells a worker about a session."""

    RX = enum.auto()  # the FIFO has something again
    TX = enum.auto()  # the FIFO is no longer full
    ACCEPTED = enum.auto()
    CONNECTED = enum.auto()
    FAILED = enum.auto()
    FIN = enum.auto()
    RESET = enum.auto()
    UNREACHABLE = enum.auto()  # the kernel's way to tell a datagram session of ICMP; VPP's is RESET


@dataclass(eq=False)
class Session:
    """One session; datagram sessions use `datagrams` and not `rx`."""

    handle: int
    worker: Worker
    is_stream: bool
    is_ip4: bool
    fifo_bytes: int
    state: State = State.NEW
    local: Address | None = None
    peer: Address | None = None
    options: dict[tuple[int, int], int] = field(default_factory=dict)
    closed: bool = False
    lost: bool = False  # its stack is gone
    connect_asked: bool = True  # whether it was asked what became of the connect

    # Stream
    remote: Session | None = None
    rx: bytearray = field(default_factory=bytearray)
    fin_received: bool = False
    fin_sent: bool = False
    shut_reading: bool = False
    was_reset: bool = False
    connect_error: int = 0
    announced: deque[Session] = field(default_factory=deque)  # a listener's: connected, the message still under way
    arrived: deque[Session] = field(default_factory=deque)  # and those that accept would find

    # Datagrams
    datagrams: deque[tuple[bytes, Address]] = field(default_factory=deque)
    pending_error: int = 0
    blocked: bool = False  # has met EAGAIN on sending

    # Epoll
    is_member: bool = False
    mask: int = 0
    data: int = 0
    # VPP has told of the FIFO's content, and tells no more until a read has emptied it.
    rx_told: bool = False

    @property
    def named_state(self) -> int:
        """In the words of vcl_states.h."""
        if self.lost:
            return lib.VCL_LOST
        if not self.connect_asked:
            return lib.VCL_CONNECTING
        if self.state is State.DEAD:
            return lib.VCL_FAILED if self.connect_error else lib.VCL_CONNECTED
        return _NAMED[self.state]

    @property
    def is_readable(self) -> bool:
        return bool(self.rx or self.datagrams or self.fin_received or self.was_reset)

    @property
    def is_writable(self) -> bool:
        if not self.is_stream:
            return self.state in (State.BOUND, State.READY)
        return self.state is State.READY and (self.remote is None or len(self.remote.rx) < self.remote.fifo_bytes)

    def tell_of_content(self) -> None:
        """Bytes or a datagram have arrived."""
        if not self.rx_told:
            self.rx_told = True
            self.worker.post(self, Message.RX)

    def take(self, size: int) -> bytes:
        """Read from the FIFO; a writer that found it completely full hears of it."""
        was_full = len(self.rx) >= self.fifo_bytes
        data = bytes(self.rx[:size])
        del self.rx[:size]
        if not self.rx:
            self.rx_told = False
        if data and was_full and self.remote is not None and not self.remote.closed:
            self.remote.worker.post(self.remote, Message.TX)
        return data

    def receive_fin(self) -> None:
        if not self.fin_received and not self.was_reset and not self.closed:
            self.fin_received = True
            self.worker.post(self, Message.FIN)

    def receive_reset(self) -> None:
        """The peer, or the network, ended it: what was not read is lost."""
        if not self.was_reset and not self.closed:
            self.was_reset = True
            self.rx.clear()
            self.worker.post(self, Message.RESET)


class Worker:
    """A worker's handles, message queue and epoll set.

    Attributes:
        descriptor: readable while messages wait (or the stack is lost), level-triggered. Parked events do not show.
        delay: called for each message; True holds it back for a while (the descriptor shows it all the same, so an
            epoll_wait may find nothing).
        fin_clears_mask: after the peer's FIN there is no IN and no OUT until a MOD, which is VCL's way.
    """

    def __init__(self, index: int, delay: Any, fin_clears_mask: bool) -> None:
        self.index = index
        self.delay = delay
        self.fin_clears_mask = fin_clears_mask
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.vep: int | None = None
        self.busy = False
        self.lost = False  # the stack is gone...
        self.detached = False  # ...and the worker has noticed
        self.sessions: dict[int, Session] = {}
        self._free: list[int] = []  # LIFO, as VCL's pools
        self._used = 0
        self._queue: deque[tuple[Session, Message]] = deque()
        self._delayed: deque[tuple[Session, Message]] = deque()
        self.parked: deque[tuple[Session, int, int]] = deque()  # session, data, events

    # -- handles ------------------------------------------------------------------------------------------------------

    def new_handle(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == MAX_SESSIONS:
            raise Refusal(errno.EMFILE)
        self._used += 1
        return self.index << 24 | self._used - 1

    def free_handle(self, handle: int) -> None:
        self._free.append(handle)

    # -- messages -----------------------------------------------------------------------------------------------------

    def post(self, session: Session, message: Message) -> None:
        """VPP's side: put a message into the queue."""
        if any(waiting is session for waiting, _ in self._delayed) or self.delay():
            self._delayed.append((session, message))  # a session's messages keep their order
        else:
            self._queue.append((session, message))
        self.signal()

    def forget(self, session: Session) -> None:
        """A closed session says nothing."""
        self._queue = deque(entry for entry in self._queue if entry[0] is not session)
        self._delayed = deque(entry for entry in self._delayed if entry[0] is not session)
        self.parked = deque(entry for entry in self.parked if entry[0] is not session)
        self.signal()

    def signal(self) -> None:
        """Make the descriptor show what there is."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            pass
        if self._queue or self._delayed or self.lost:
            os.eventfd_write(self.descriptor, 1)

    # -- epoll --------------------------------------------------------------------------------------------------------

    def join(self, session: Session, mask: int, data: int) -> None:
        """EPOLL_CTL_ADD: what already holds is parked. A listener's queue is not looked at (docs/vpp.md 4.6)."""
        session.is_member, session.mask, session.data = True, mask, data
        self._park(session, mask)

    def leave(self, session: Session, _mask: int, _data: int) -> None:
        """EPOLL_CTL_DEL."""
        session.is_member, session.mask = False, 0
        self.parked = deque(entry for entry in self.parked if entry[0] is not session)

    def modify(self, session: Session, mask: int, data: int) -> None:
        """EPOLL_CTL_MOD: only what was not asked for before is looked at, and never for the end of a connection."""
        fresh = mask & ~session.mask
        session.mask, session.data = mask, data
        self._park(session, fresh, ends=False)

    def take_parked(self, room: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while self.parked and len(taken) < room:
            _, data, events = self.parked.popleft()
            taken.append((data, events))
        return taken

    def drain(self, room: int) -> list[tuple[int, int]]:
        """Empty the queue: up to `room` events, and the rest is parked, where the descriptor does not show it."""
        taken = self.take_parked(room)
        # At least one comes loose, or a poller would spin for long.
        for _ in range((len(self._delayed) + 1) // 2):
            self._queue.append(self._delayed.popleft())
        while self._queue:
            session, message = self._queue.popleft()
            data = session.data
            events = self._event(session, message)
            if not events:
                continue
            if len(taken) < room:
                taken.append((data, events))
            else:
                self.parked.append((session, data, events))
        self.signal()
        return taken

    # -- the stack's death --------------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Notice that the stack is gone (docs/vpp.md 9.1). Only ready streams hear of it, and nothing works then."""
        self.detached = True
        self._queue.clear()
        self._delayed.clear()
        for session in self.sessions.values():
            if session.is_stream and session.state is State.READY and session.is_member:
                self.parked.append((session, session.data, RDHUP if session.mask & RDHUP else HUP))
            if session.state is not State.NEW and not (session.is_stream and session.state is State.BOUND):
                session.state = State.DEAD
                session.lost = True

    def attach_again(self) -> None:
        self.lost = self.detached = False
        self.signal()

    def close(self) -> None:
        os.close(self.descriptor)

    # -- rules --------------------------------------------------------------------------------------------------------

    def _park(self, session: Session, mask: int, ends: bool = True) -> None:
        events = 0
        if session.state in (State.READY, State.BOUND) and not (session.is_stream and session.state is State.BOUND):
            events |= IN if session.is_readable else 0
            events |= OUT if session.is_writable else 0
        events &= mask
        if ends and not events and session.was_reset:
            events = self._event(session, Message.RESET)
        elif ends and not events and session.fin_received:
            events = self._event(session, Message.FIN)
        if events:
            self.parked.append((session, session.data, events))

    def _event(self, session: Session, message: Message) -> int:
        """What a message does to its session, and the events it means; 0 for none."""
        mask = session.mask if session.is_member else 0
        match message:
            case Message.RX:
                return mask & IN
            case Message.TX:
                return mask & OUT
            case Message.ACCEPTED:
                session.arrived.append(session.announced.popleft())
                return mask & IN
            case Message.CONNECTED:
                session.state = State.READY
                return mask & OUT
            case Message.FAILED:
                session.state = State.DEAD
                session.mask = 0
                # Without EPOLLOUT in the mask VCL says nothing at all.
                return OUT | HUP if mask & OUT else 0
            case Message.FIN:
                if self.fin_clears_mask:
                    session.mask = 0
                if not session.is_member:
                    return 0
                return (RDHUP | (HUP if session.fin_sent else 0)) if mask & RDHUP else HUP
            case Message.RESET:
                session.mask = 0
                return ERR | HUP | mask & (IN | RDHUP) if session.is_member else 0
            case Message.UNREACHABLE:
                return ERR | mask & IN if session.is_member else 0
