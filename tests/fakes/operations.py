"""What each operation of the fake does and refuses; a method per member of vcl_ops, with C's arguments.

A method returns the call's result or raises `Refusal`, which becomes the negative errno. What VCL says when is in
`fakes.sessions`, who reaches whom in `fakes.network`.
"""

from __future__ import annotations

import errno
import random
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from tests.fakes.network import MSS, Network
from tests.fakes.sessions import HUP, OUT, Address, Message, Refusal, Session, State, Worker
from tests.support.driver import address, endpoint
from vppaio.vcl._vcl import ffi, lib

MAX_WORKERS: Final = 128
MAX_DATAGRAM: Final = 65507
MAX_PIECES: Final = 64
_OPTIONS: Final = {
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.SOL_SOCKET, socket.SO_BROADCAST),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
}


class Operations:
    """All calls of one fake stack; the arguments are those of `FakeVcl`."""

    def __init__(
        self,
        *,
        fifo_bytes: int = 65536,
        traps: int = 0,
        own: Iterable[str] = ("127.0.0.1", "::1", "10.0.0.1", "fd00::1"),
        seed: int = 0,
        refuse: float = 0.0,
        reset: float = 0.0,
        delay: float = 0.0,
        short: float = 0.0,
    ) -> None:
        self.fifo_bytes = fifo_bytes
        self.traps = traps
        self.listen_seconds = 0.0
        self.hold_connects = False
        self.lock = threading.RLock()
        self.network = Network(own, keep_port_zero=bool(traps & lib.VCL_TRAP_PORT_ZERO))
        self.workers: dict[int, Worker] = {}
        self._random = random.Random(seed)
        self._refuse_chance, self._reset_chance, self._delay_chance, self._short_chance = refuse, reset, delay, short
        self._is_there = True
        self._datagrams_blocked = False
        self._held: list[tuple[Session, int]] = []

    # -- looking in ---------------------------------------------------------------------------------------------------

    def session(self, handle: int) -> Session:
        """What is behind a handle."""
        worker = self.worker(handle >> 24)
        if handle not in worker.sessions:
            raise Refusal(errno.EBADF)
        return worker.sessions[handle]

    def session_for(self, handle: int, operation: int) -> Session:
        """The same if its state allows the operation."""
        worker = self.worker(handle >> 24)
        if handle == worker.vep:
            code = lib.vcl_refusal(0, lib.VCL_EPOLL_SET, operation)
        else:
            session = self.session(handle)
            code = lib.vcl_refusal(not session.is_stream, session.named_state, operation)
        if code:
            raise Refusal(-code)
        return session

    def worker(self, index: int) -> Worker:
        if index not in self.workers:
            raise Refusal(errno.EBADF)
        if self.workers[index].busy:
            raise Refusal(errno.EBUSY)
        return self.workers[index]

    def sessions(self) -> list[Session]:
        """All that are open."""
        return [session for worker in self.workers.values() for session in worker.sessions.values()]

    # -- workers and epoll --------------------------------------------------------------------------------------------

    def worker_register(self) -> int:
        index = next((i for i in range(MAX_WORKERS) if i not in self.workers), None)
        if index is None:
            raise Refusal(errno.EMFILE)
        self.workers[index] = Worker(
            index, lambda: self._chance(self._delay_chance), bool(self.traps & lib.VCL_TRAP_FIN_EXPIRES)
        )
        return index

    def worker_unregister(self, index: int) -> int:
        worker = self.worker(index)
        for handle in tuple(worker.sessions):
            if handle in worker.sessions:  # closing a listener closes others
                self.session_close(handle)
        worker.close()
        del self.workers[index]
        return 0

    def worker_fd(self, index: int) -> int:
        return self.worker(index).descriptor

    def worker_is_detached(self, index: int) -> int:
        return self.worker(index).detached

    def epoll_create(self, index: int) -> int:
        worker = self.worker(index)
        if worker.vep is not None:
            raise Refusal(errno.EEXIST)
        worker.vep = worker.new_handle()
        return worker.vep

    def epoll_ctl(self, vep: int, op: int, handle: int, events: int, data: int) -> int:
        worker = self._epoll_set(vep)
        session = self.session_for(handle, lib.VCL_OP_CLOSE if op == 2 else lib.VCL_OP_WATCH)
        if session.worker is not worker or op not in (1, 2, 3):
            raise Refusal(errno.EINVAL)
        if session.is_member and op == 1:
            raise Refusal(errno.EEXIST)
        if not session.is_member and op != 1:
            raise Refusal(errno.ENOENT)
        change = {1: worker.join, 2: worker.leave, 3: worker.modify}[op]
        change(session, events, data)
        return 0

    def epoll_wait(self, vep: int, events: Any, max_events: int, timeout_ms: int) -> int:
        worker = self._epoll_set(vep)
        if max_events <= 0 or timeout_ms not in (lib.VCL_WAIT_NOW, lib.VCL_WAIT_PARKED):
            raise Refusal(errno.EINVAL)
        if timeout_ms == lib.VCL_WAIT_NOW and worker.lost:
            if not worker.detached:
                worker.detach()
            elif self._is_there:
                worker.attach_again()
        taken = worker.drain(max_events) if timeout_ms == lib.VCL_WAIT_NOW else worker.take_parked(max_events)
        for i, (data, mask) in enumerate(taken):
            events[i].data.u64, events[i].events = data, mask
        return len(taken)

    # -- life of a session --------------------------------------------------------------------------------------------

    def session_create(self, index: int, proto: int, is_ip4: int) -> int:
        worker = self.worker(index)
        if proto not in (lib.VCL_PROTO_TCP, lib.VCL_PROTO_UDP):
            raise Refusal(errno.EPROTONOSUPPORT)
        self._require_stack(worker)
        session = Session(worker.new_handle(), worker, proto == lib.VCL_PROTO_TCP, bool(is_ip4), self.fifo_bytes)
        worker.sessions[session.handle] = session
        return session.handle

    def session_bind(self, handle: int, local: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_BIND)
        self._require_stack(session.worker)
        self.network.bind(session, address(local))
        session.state = State.BOUND
        return 0

    def session_listen(self, handle: int, _backlog: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_LISTEN)
        self._require_stack(session.worker)
        session.worker.busy = True
        try:
            self.lock.release()  # the others have to find it busy
            time.sleep(self.listen_seconds)
        finally:
            self.lock.acquire()
            session.worker.busy = False
        if session.state is State.NEW:
            self.network.bind(session, ("0.0.0.0" if session.is_ip4 else "::", 0))
        session.state = State.LISTENING
        return 0

    def session_accept(self, handle: int, peer: Any) -> int:
        listener = self.session_for(handle, lib.VCL_OP_ACCEPT)
        self._require_stack(listener.worker)
        if not listener.arrived:
            raise Refusal(errno.EAGAIN)
        accepted = listener.arrived.popleft()
        peer[0] = endpoint(accepted.peer or ("0.0.0.0", 0))[0]
        return accepted.handle

    def session_connect(self, handle: int, peer: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_CONNECT)
        self._require_stack(session.worker)
        session.connect_asked = False
        session.peer = address(peer)
        session.state = State.CONNECTING
        if not session.is_stream:
            if session.local is None:
                self.network.bind(session, self.network.source(session, session.peer))
            self._tell_connected(session, 0)
        elif self._chance(self._refuse_chance):
            self._tell_connected(session, errno.ECONNREFUSED)
        elif self.hold_connects:
            self._held.append((session, 0))
        else:
            self._tell_connected(session, 0)
        raise Refusal(errno.EINPROGRESS)

    def _tell_connected(self, session: Session, code: int) -> None:
        if session.is_stream and not code:
            try:
                assert session.peer is not None
                self.network.connect(session, session.peer)
            except Refusal as refusal:
                code = refusal.code
        session.connect_error = code
        session.worker.post(session, Message.FAILED if code else Message.CONNECTED)

    def session_connect_result(self, handle: int, events: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_RESULT)
        if session.state is State.CONNECTING or not (session.connect_asked or events & (OUT | HUP)):
            raise Refusal(errno.EINPROGRESS)
        session.connect_asked = True
        if session.state is State.DEAD and session.connect_error:
            raise Refusal(session.connect_error)
        return 0

    def session_shutdown(self, handle: int, how: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_SHUTDOWN)
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            session.shut_reading = True
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._send_fin(session)
        return 0

    def session_close(self, handle: int) -> int:
        worker = self.worker(handle >> 24)
        if handle == worker.vep:
            worker.vep = None
        else:
            self._close(self.session(handle))
        worker.free_handle(handle)
        return 0

    def _close(self, session: Session) -> None:
        for child in (*session.announced, *session.arrived):
            if child.remote is not None:
                child.remote.receive_reset()
            self.session_close(child.handle)
        if session.is_stream and session.remote is not None:
            if session.rx:
                session.remote.receive_reset()
            else:
                self._send_fin(session)
        session.closed = True
        session.worker.forget(session)
        self.network.release(session)
        del session.worker.sessions[session.handle]

    def _send_fin(self, session: Session) -> None:
        if session.is_stream and not session.fin_sent and session.remote is not None:
            session.fin_sent = True
            session.remote.receive_fin()

    # -- bytes --------------------------------------------------------------------------------------------------------

    def session_read(self, handle: int, buffer: Any, size: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_READ)
        if not session.is_stream:
            return self.session_recvfrom(handle, buffer, size, ffi.NULL)
        if session.was_reset:
            raise Refusal(errno.ECONNRESET)
        if session.state is not State.READY:
            raise Refusal(errno.ENOTCONN)
        data = session.take(size)
        if not data and not (session.fin_received or session.shut_reading):
            raise Refusal(errno.EAGAIN)
        ffi.memmove(buffer, data, len(data))
        return len(data)

    def session_write(self, handle: int, buffer: Any, size: int) -> int:
        return self._write(self.session_for(handle, lib.VCL_OP_WRITE), bytes(ffi.buffer(buffer, size)))

    def session_writev(self, handle: int, pieces: Any, count: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_WRITE)
        if not 0 <= count <= MAX_PIECES:
            raise Refusal(errno.EINVAL)
        return self._write(
            session, b"".join(bytes(ffi.buffer(pieces[i].iov_base, pieces[i].iov_len)) for i in range(count))
        )

    def _write(self, session: Session, data: bytes) -> int:
        if not session.is_stream:
            return self._send(session, data, None)
        if session.was_reset:
            raise Refusal(errno.ECONNRESET)
        if session.state is not State.READY:
            raise Refusal(errno.ENOTCONN)
        if session.fin_sent:
            raise Refusal(errno.EPIPE)
        remote = session.remote
        assert remote is not None
        if not data:
            return 0
        if self._chance(self._reset_chance):
            session.receive_reset()
            remote.receive_reset()
            raise Refusal(errno.ECONNRESET)
        if remote.closed:
            session.receive_reset()  # the answer to a packet that nobody wants
            return len(data)
        room = remote.fifo_bytes - len(remote.rx)
        if room <= 0:
            raise Refusal(errno.EAGAIN)
        taken = min(len(data), room)
        if self._chance(self._short_chance):
            taken = self._random.randint(1, taken)
        remote.rx += data[:taken]
        remote.tell_of_content()
        return taken

    def session_recvfrom(self, handle: int, buffer: Any, size: int, sender: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_RECEIVE)
        if session.pending_error:
            code, session.pending_error = session.pending_error, 0
            raise Refusal(code)
        if session.was_reset or session.state is State.DEAD:
            raise Refusal(errno.ENOTCONN)
        if not session.datagrams:
            session.rx_told = False
            raise Refusal(errno.EAGAIN)
        data, source = session.datagrams.popleft()
        if not data and self.traps & lib.VCL_TRAP_DATAGRAM_EVENTS:
            raise Refusal(errno.EAGAIN)  # and rx_told stays: nothing is told until a datagram has been read
        if not session.datagrams:
            session.rx_told = False
        data = data[:size]
        ffi.memmove(buffer, data, len(data))
        if sender:
            sender[0] = endpoint(source)[0]
        return len(data)

    def session_sendto(self, handle: int, buffer: Any, size: int, to: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_SEND_TO if to else lib.VCL_OP_SEND)
        return self._send(session, bytes(ffi.buffer(buffer, size)), address(to) if to else None)

    def _send(self, session: Session, data: bytes, to: Address | None) -> int:
        if session.state is State.NEW:
            self.network.bind(session, ("0.0.0.0" if session.is_ip4 else "::", 0))
            session.state = State.BOUND
        if session.was_reset or session.state is State.DEAD:
            raise Refusal(errno.ENOTCONN)
        if len(data) > MAX_DATAGRAM:
            raise Refusal(errno.EMSGSIZE)
        if self._datagrams_blocked:
            session.blocked = True
            raise Refusal(errno.EAGAIN)
        target = to or session.peer
        if target is None:
            raise Refusal(errno.EDESTADDRREQ)
        source = self.network.source(session, target)
        if self.traps & lib.VCL_TRAP_DATAGRAM_SPLIT:
            pieces = [data[i : i + MSS] for i in range(0, len(data), MSS)]  # of an empty one nothing is sent
        else:
            pieces = [data]
        for piece in pieces:
            if not self.network.deliver(target, piece, source) and session.peer is not None:
                self._tell_unreachable(session)
        return len(data)

    def _tell_unreachable(self, session: Session) -> None:
        if self.traps & lib.VCL_TRAP_DATAGRAM_DIES:
            session.receive_reset()
        else:
            session.pending_error = errno.ECONNREFUSED
            session.worker.post(session, Message.UNREACHABLE)

    # -- questions ----------------------------------------------------------------------------------------------------

    def session_readable(self, handle: int) -> int:
        session = self.session_for(handle, lib.VCL_OP_ASK)
        if session.state is State.LISTENING:
            return len(session.arrived)
        return len(session.rx) if session.is_stream else sum(len(data) for data, _ in session.datagrams)

    def session_local(self, handle: int, local: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_ASK)
        local[0] = endpoint(session.local or ("0.0.0.0" if session.is_ip4 else "::", 0))[0]
        return 0

    def session_peer(self, handle: int, peer: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_PEER)
        if session.peer is None or session.was_reset:
            raise Refusal(errno.ENOTCONN)
        peer[0] = endpoint(session.peer)[0]
        return 0

    def session_get_option(self, handle: int, level: int, option: int, value: Any) -> int:
        session = self.session_for(handle, lib.VCL_OP_ASK)
        answers = (
            {
                (socket.SOL_SOCKET, socket.SO_TYPE): socket.SOCK_STREAM if session.is_stream else socket.SOCK_DGRAM,
                (socket.SOL_SOCKET, socket.SO_ACCEPTCONN): int(session.state is State.LISTENING),
                (socket.SOL_SOCKET, socket.SO_ERROR): 0,
                (socket.SOL_SOCKET, socket.SO_RCVBUF): session.fifo_bytes,
                (socket.SOL_SOCKET, socket.SO_SNDBUF): session.fifo_bytes,
            }
            | dict.fromkeys(_OPTIONS, 0)
            | session.options
        )
        if (level, option) not in answers:
            raise Refusal(errno.ENOPROTOOPT)
        value[0] = answers[level, option]
        return 0

    def session_set_option(self, handle: int, level: int, option: int, value: int) -> int:
        if (level, option) not in _OPTIONS:
            raise Refusal(errno.ENOPROTOOPT)
        self.session_for(handle, lib.VCL_OP_ASK).options[level, option] = value
        return 0

    def session_fd(self, handle: int) -> int:
        self.session_for(handle, lib.VCL_OP_ASK)
        return -1

    def session_adopt(self, _index: int, _fd: int) -> int:
        raise Refusal(errno.EOPNOTSUPP)

    def session_forget(self, _handle: int) -> int:
        raise Refusal(errno.EOPNOTSUPP)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _epoll_set(self, vep: int) -> Worker:
        worker = self.worker(vep >> 24)
        if vep != worker.vep:
            raise Refusal(errno.EINVAL if vep in worker.sessions else errno.EBADF)
        return worker

    def _require_stack(self, worker: Worker) -> None:
        if worker.detached:
            raise Refusal(errno.ENETDOWN)

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
