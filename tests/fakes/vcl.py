"""A table of operations filled from Python: VCL's behaviour without VPP, and trouble on request.

    fake = FakeVcl()
    worker = fake.ops.worker_register()         # as Cython or cffi would call it
    fake.fail("session_accept", errno.EMFILE)   # the next one
    fake.lose()                                 # VPP dies; fake.restore() brings it back

Sessions connect to listeners of the same table, on any worker; `fakes.peer` has socket-like ends. Every call takes a
lock, so that peers may run in threads.
"""

from __future__ import annotations

import collections
import errno
from collections.abc import Callable
from typing import Any, Final

from tests.fakes.operations import Operations
from tests.fakes.sessions import Address, Message, Refusal, State
from vppaio.vcl._vcl import ffi, lib

VPP_TRAPS: Final = (
    lib.VCL_TRAP_FIN_EXPIRES
    | lib.VCL_TRAP_PORT_ZERO
    | lib.VCL_TRAP_DATAGRAM_EVENTS
    | lib.VCL_TRAP_DATAGRAM_SPLIT
    | lib.VCL_TRAP_DATAGRAM_DIES
    | lib.VCL_TRAP_WRITE_WAKES
)


class FakeVcl(Operations):
    """One fake stack.

    Args:
        fifo_bytes: capacity of each FIFO.
        traps: VCL_TRAP_...: which of VPP's differences it shows; VPP_TRAPS for all.
        own: the stack's addresses; connecting elsewhere fails.
        seed, refuse, reset, delay, short: trouble at random, as probabilities: of a connect to be refused, of a write
            to meet a reset, of a message to be held back for some polls, of a write to take only a part.

    Attributes:
        ops: the `vcl_ops *`.
        calls: how often each operation was called.
        listen_seconds: how long session_listen takes.
        hold_connects: while True, no connect gets its result; `release_connects` hands them out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: collections.Counter[str] = collections.Counter()
        self._failures: dict[str, collections.deque[int]] = {}
        self._exceptions: list[BaseException] = []
        self._memory: list[Any] = []  # what the table points to
        self.ops = self._table()

    # -- trouble on request -------------------------------------------------------------------------------------------

    def fail(self, call: str, code: int, times: int = 1) -> None:
        """Let the next `times` calls of that operation return -`code` and do nothing."""
        assert hasattr(self.ops, call), call
        self._failures.setdefault(call, collections.deque()).extend([code] * times)

    def reset(self, handle: int) -> None:
        """The connection is reset, for both ends."""
        with self.lock:
            session = self.session(handle)
            session.receive_reset()
            if session.remote is not None:
                session.remote.receive_reset()

    def release_connects(self, code: int = 0) -> None:
        """Give each held connect its result: `code` if there is one, else what it would have been."""
        with self.lock:
            held, self._held = self._held, []
            for session, natural in held:
                if not session.closed:
                    self._tell_connected(session, code or natural)

    def block_datagrams(self, blocked: bool) -> None:
        """Let sends of datagrams meet EAGAIN. Afterwards senders hear EPOLLOUT, unless VCL_TRAP_DATAGRAM_EVENTS."""
        with self.lock:
            self._datagrams_blocked = blocked
            for session in self.sessions():
                if session.blocked and not blocked:
                    session.blocked = False
                    if not self.traps & lib.VCL_TRAP_DATAGRAM_EVENTS:
                        session.worker.post(session, Message.TX)

    def inject_datagram(self, to: Address, data: bytes, sender: Address) -> bool:
        """A datagram from outside; False if nobody is there."""
        with self.lock:
            return self.network.deliver(to, data, sender)

    def expire_fins(self) -> None:
        """VPP's CLOSE_WAIT timer: who has received a FIN and did not close loses the unread bytes, without a word."""
        with self.lock:
            for session in self.sessions():
                if session.fin_received:
                    session.rx.clear()
                    session.state = State.DEAD
                    if session.remote is not None:
                        session.remote.receive_reset()

    def lose(self) -> None:
        """VPP dies; a worker notices with its next epoll_wait."""
        with self.lock:
            self._is_there = False
            self.network.release_all()
            for worker in self.workers.values():
                worker.lost = True
                worker.signal()

    def restore(self) -> None:
        """VPP is back; a worker attaches with its next epoll_wait. Its listeners stay dead, as libvppcom.c has it."""
        with self.lock:
            self._is_there = True

    def check(self) -> None:
        """Raise what was raised inside a call, where only C was listening."""
        if self._exceptions:
            raise self._exceptions.pop(0)

    def _table(self) -> Any:
        """The C table: one callback for each function pointer of vcl_ops, calling the method of that name."""
        ops = ffi.new("vcl_ops *")
        name = ffi.new("char[]", b"fake")
        self._memory += [ops, name]
        ops.name, ops.traps = name, self.traps
        for member, description in ffi.typeof("vcl_ops").fields:
            if member not in ("name", "traps"):
                call = self._guarded(member, getattr(self, member))
                callback = ffi.callback(description.type, call, error=-errno.EIO, onerror=self._note)
                self._memory.append(callback)
                setattr(ops, member, callback)
        return ops

    def _guarded(self, name: str, method: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            with self.lock:
                self.calls[name] += 1
                try:
                    if failures := self._failures.get(name):
                        raise Refusal(failures.popleft())
                    return method(*arguments)
                except Refusal as refusal:
                    return -refusal.code

        return call

    def _note(self, _kind: Any, exception: BaseException, _traceback: Any) -> None:
        self._exceptions.append(exception)
