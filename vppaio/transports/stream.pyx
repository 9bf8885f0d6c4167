"""StreamTransport: asyncio's transport for a TCP connection, on a session of either stack.

This module is the sending side, and what both sides share; transports.inbound is the receiving side. The rules and the
numbers are those of asyncio.selector_events._SelectorSocketTransport:

- `write` offers the bytes to the tx FIFO at once. Bytes that the FIFO refuses join the backlog.
- EPOLLOUT announces that there is room. Then the backlog is written, until it is empty or the FIFO refuses again.
- `pause_writing` and `resume_writing` tell the protocol when the backlog passes the high-water and the low-water mark.

A session is edge-triggered (see reactor.poller). VPP announces room only after it has refused a write, so a write is
repeated until the FIFO refuses it (docs/vpp.md 4.3).

A transport knows its session (reactor.session) and its protocol. loop.eventloop makes transports for connects and for
sockets of the caller, and loop.serve makes them for accepted connections. All of it runs on the loop's thread.
"""
import asyncio
import collections
import sys
from asyncio import constants
from asyncio.log import logger

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNRESET, ENOBUFS, ENOTCONN

from vppaio.reactor.gathering cimport Gathering
from vppaio.reactor.session cimport Session
from vppaio.transports.inbound cimport InboundStream
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    VCL_TRAP_FIN_EXPIRES,
    iovec,
)

from vppaio.transports.pseudosocket import SessionSocket
from vppaio.vcl.errors import check, os_error

cdef enum:
    MAX_PIECES = 64  # of one vcl_ops.session_writev
    SMALL_PIECE = 4096  # bytes
    LOG_THRESHOLD = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES


class _Facade(asyncio.transports._FlowControlMixin, asyncio.Transport):
    """What `isinstance` sees: an extension type cannot inherit from asyncio.Transport (their instance layouts conflict),
    but `isinstance` also looks at `__class__`, which is how unittest.mock passes too."""


# In asyncio's words.
cdef str WRITABLE = (
    "a bytes, bytearray, or memoryview object" if sys.version_info >= (3, 14) else "a bytes-like object"
)
# asyncio copies what it sends later, and joins what writelines gets; from 3.12 on it has memoryviews instead.
cdef bint JOINS_LINES = sys.version_info < (3, 12)
cdef double LOOK_AT_HALF_OPEN_S = 0.25
cdef double STARVED_S = 0.01  # until other sessions may have given FIFO memory back


cdef class StreamTransport(InboundStream):
    """A TCP connection.

    Args:
        loop: the event loop.
        session: an open session, not yet watched.
        protocol: an asyncio.Protocol or BufferedProtocol; its `connection_made` is called soon.
        waiter: a future that gets a result after `connection_made`.
        extra: initial extra information ("peername" where accept gave it).
        server: the server object that counts its connections.
        sock: the socket object whose descriptor the session took over, if there is one.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    max_size = 256 * 1024

    def __cinit__(self, loop, Session session, protocol, waiter=None, extra=None, server=None, sock=None):
        self.until_blocked = True
        self.begin(session, loop, protocol, waiter, extra, server, sock)

    @property
    def __class__(self):
        return _Facade

    # ---- news from the session ----------------------------------------------------------------------------------

    cdef int handle(self, uint32_t events) except -1:
        cdef bint waited = self.backlog_size > 0
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.until_blocked = True
            # EPOLLERR alone is no end: the kernel tells so, too, of what waits in a socket's error queue (timestamps,
            # MSG_ZEROCOPY) and of errors that pass (IP_RECVERR); a read finds those.
            if events & (EPOLLRDHUP | EPOLLHUP) or self.write_error:
                self.hang_up = True
                if events & EPOLLERR and (events & EPOLLHUP or self.write_error):
                    self.was_reset = True
        if events & EPOLLPRI:
            self.until_blocked = True
        if self.pseudo is not None and (self.hang_up or self.paused and events & EPOLLIN):
            self.pseudo.set_readable(True)
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            if not self.paused:
                if self.session.worker.turn != self.resumed_at:
                    self.read_ready()
            elif self.hang_up and self.session is not None and self.session.ops.traps & VCL_TRAP_FIN_EXPIRES:
                self.drain_to_inbox()
        # After reading, as asyncio does. An error wakes the writer too: a paused reader would not find it.
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and self.backlog_size:
            if waited:
                self._write_ready()
            elif events & (EPOLLHUP | EPOLLERR):
                self.session.again(EPOLLOUT)  # reading has made the backlog: asyncio's writer is woken a turn later
        if self.hang_up and not self.lost_writes and self.session.ops.traps & VCL_TRAP_FIN_EXPIRES:
            # VCL clears the mask when it tells of the end, which may be after a read has found it, and the backlog waits
            # for EPOLLOUT.
            if self.half_open is None or events & (EPOLLRDHUP | EPOLLHUP):
                self.session.rearm()
            if self.half_open is None:
                self.half_open = self._loop.call_later(LOOK_AT_HALF_OPEN_S, self._look_at_half_open)
        return 0

    def _look_at_half_open(self):
        """VPP says nothing when a connection ends whose peer had sent its FIN before, by the CLOSE_WAIT timer or by a reset
        (docs/vpp.md 4.4). A writer would wait for ever, so ask."""
        cdef Session session = self.session
        self.half_open = None
        if self.lost_writes or session.closed:
            return
        if session.ops.session_readable(session.handle) < 0:
            if self.backlog_size:
                self._write_failed(-ECONNRESET)
                return
            if self.eof_received:
                self._fatal_error(os_error(-ECONNRESET, "recv"), "Fatal read error on socket transport")
                return
        self.half_open = self._loop.call_later(LOOK_AT_HALF_OPEN_S, self._look_at_half_open)

    # ---- outbound -----------------------------------------------------------------------------------------------

    def write(self, data):
        cdef Py_buffer view
        cdef Py_ssize_t sent
        cdef Gathering gathering
        if self.held is not None:
            self.on_gathered()
        if PyBytes_CheckExact(data):
            if self._refuse_write("write", PyBytes_GET_SIZE(data)):
                return
            # Not more than the backlog may have without a pause: so it is all the same if the FIFO refuses it later.
            gathering = self.session.worker.gathering
            if (gathering is not None and gathering.open and not self.backlog_size
                    and PyBytes_GET_SIZE(data) <= min(SMALL_PIECE, self.high_water)):
                self.held = data
                gathering.hold(self)
                return
            sent = 0
            if not self.backlog_size:
                sent = self._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                if sent < 0 or sent == PyBytes_GET_SIZE(data):
                    return
            self._keep(data, sent)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            try:
                PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            except BufferError as exc:  # with steps; asyncio finds out when it sends, or copies
                if JOINS_LINES and self.backlog_size:
                    raise TypeError(str(exc)) from None
                if not self._refuse_write("write", len(data)):
                    self._fatal_error(exc, "Fatal write error on socket transport")
                return
            try:
                if self._refuse_write("write", view.len):
                    return
                sent = 0
                if not self.backlog_size:
                    sent = self._send(<const char *> view.buf, view.len)
                    if sent < 0 or sent == view.len:
                        return
                # A copy, since the caller may change its buffer as soon as we return.
                self._keep(PyBytes_FromStringAndSize(<const char *> view.buf + sent, view.len - sent), 0)
            finally:
                PyBuffer_Release(&view)
        else:
            raise TypeError(f"data argument must be {WRITABLE}, not {type(data).__name__!r}")
        self.maybe_pause_protocol()

    cdef int on_gathered(self) except -1:
        cdef bytes data
        cdef Py_ssize_t sent
        if self.held is not None:
            data, self.held = self.held, None
            sent = self._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            if 0 <= sent < PyBytes_GET_SIZE(data):
                self._keep(data, sent)
                self.maybe_pause_protocol()
        return 0

    def writelines(self, list_of_data):
        self.on_gathered()
        pieces = []
        size = 0
        if not JOINS_LINES and not list_of_data:
            list_of_data = ()  # None and 0 as well
        unsendable = None
        for data in list_of_data:
            if type(data) is bytes:
                piece = data
            elif JOINS_LINES:
                piece = b"".join((data,))
            else:
                data = memoryview(data)
                if not data.c_contiguous:
                    unsendable = BufferError("memoryview: underlying buffer is not C-contiguous")
                piece = bytes(data)
            if piece:
                pieces.append(piece)
                size += len(piece)
        if self._refuse_write("writelines", size):
            return
        if unsendable is not None:
            self._fatal_error(unsendable, "Fatal write error on socket transport")
            return
        if self.backlog is None:
            self.backlog = collections.deque()
        was_empty = not self.backlog_size
        if len(pieces) > MAX_PIECES and size < len(pieces) * SMALL_PIECE:
            pieces = [b"".join(pieces)]  # a copy, cheaper than many calls
        self.backlog.extend(pieces)
        self.backlog_size += size
        if was_empty:
            self._flush()
        if self.backlog_size:
            self.maybe_pause_protocol()

    cdef bint _refuse_write(self, str method, Py_ssize_t size) except -1:
        """True if there is nothing to write, or nobody to write to."""
        if self.eof_written:
            raise RuntimeError(f"Cannot call {method}() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError(f"unable to {method}; sendfile is in progress")
        if size == 0:
            return True
        if self.lost_writes:
            if self.lost_writes >= LOG_THRESHOLD:
                logger.warning("socket.send() raised exception.")
            self.lost_writes += 1
            return True
        return False

    cdef Py_ssize_t _send(self, const char *data, Py_ssize_t size) except? -1:
        """Offer bytes to the FIFO until it refuses; returns how many it took, or -1 when the connection broke."""
        cdef Session session = self.session
        cdef Py_ssize_t sent = 0
        cdef int n
        while sent < size:
            n = session.ops.session_write(session.handle, data + sent, <size_t> (size - sent))
            if n < 0:
                if n == -EAGAIN or n == -ENOBUFS:
                    self._refused(n)
                    break
                if sent:
                    self._fail_later(n)
                    break
                self._write_failed(n)
                return -1
            sent += n
        session.worker.n_written_bytes += sent
        return sent

    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1:
        """Bytes from `sent` on wait for EPOLLOUT."""
        if self.backlog is None:
            self.backlog = collections.deque()
        if not self.backlog_size:
            self.head_offset = sent
        self.backlog.append(data)
        self.backlog_size += len(data) - sent
        return 0

    cdef int _write_ready(self) except -1:
        if self.lost_writes:
            return 0
        if self._flush() < 0:
            return 0
        self.maybe_resume_protocol()
        if not self.backlog_size:
            if self.empty_waiter is not None:
                self.empty_waiter.set_result(None)
            if self.closing:
                if not self.lost_writes:  # resume_writing may have aborted, and then the end is on its way
                    self._call_connection_lost(None)
            elif self.eof_written:
                self._shutdown_write()
        return 0

    cdef int _flush(self) except -1:
        """Write the backlog until it is empty (1) or refused (0); -2 when the connection broke."""
        cdef iovec pieces[MAX_PIECES]
        cdef Session session = self.session
        cdef object backlog = self.backlog
        cdef bytes piece
        cdef int count, n
        cdef Py_ssize_t offset
        cdef bint progress = False
        if self.write_error:
            self._write_failed(self.write_error)
            return -2
        while self.backlog_size:
            count = 0
            offset = self.head_offset
            for piece in backlog:
                pieces[count].iov_base = PyBytes_AS_STRING(piece) + offset
                pieces[count].iov_len = <size_t> (PyBytes_GET_SIZE(piece) - offset)
                offset = 0
                count += 1
                if count == MAX_PIECES:
                    break
            n = session.ops.session_writev(session.handle, pieces, count)
            if n == -EAGAIN or n == -ENOBUFS:
                self._refused(n)
                return 0
            if n < 0:
                if progress:
                    self._fail_later(n)
                    return 0
                self._write_failed(n)
                return -2
            progress = True
            session.worker.n_written_bytes += n
            self.backlog_size -= n
            n += self.head_offset
            while n and n >= len(backlog[0]):
                n -= len(backlog.popleft())
            self.head_offset = n
        return 1

    cdef int _refused(self, int error) except -1:
        """The FIFO took nothing: an EPOLLOUT will come, or, if there was no memory for it, a timer has to."""
        self.session.worker.n_write_blocked += 1
        if error == -ENOBUFS:
            self.session.worker.n_write_starved += 1
            if self.starved is None:
                self.starved = self._loop.call_later(STARVED_S, self._feed)
        return 0

    def _feed(self):
        self.starved = None
        if self.backlog_size and not self.session.closed:
            self.session.again(EPOLLOUT)

    cdef int _fail_later(self, int error) except -1:
        """A repeated write failed. asyncio writes once a turn, and then reads first: so what came before the end is
        delivered, and an EOF is told before the failure."""
        self.write_error = error
        self.session.again(EPOLLERR)
        return 0

    cdef int _write_failed(self, int error) except -1:
        self.drop_backlog()
        if self.end_seen and self.end_result < 0:
            error = self.end_result  # the kernel tells it once, and it told the read
        exc = os_error(-ECONNRESET if error == -ENOTCONN else error, "send")
        waiter = self.empty_waiter
        self._fatal_error(exc, "Fatal write error on socket transport")
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc)
        return 0

    cdef int drop_backlog(self) except -1:
        self.head_offset = 0
        return InboundStream.drop_backlog(self)

    def write_eof(self):
        if self.closing or self.eof_written:
            return
        self.on_gathered()
        self.eof_written = True
        if self.was_reset:
            raise os_error(-ENOTCONN, "shutdown")  # VCL does not mind
        if not self.backlog_size:
            self._shutdown_write()

    cdef int _shutdown_write(self) except -1:
        cdef Session session = self.session
        if self.fin_sent:
            return 0  # resume_writing was called with an empty backlog, and called write_eof
        self.fin_sent = True
        if self.hang_up and session.ops.traps & VCL_TRAP_FIN_EXPIRES:
            # VCL sends no FIN of ours after the peer's: vppcom_session_shutdown acts in state READY only (26.06). Closing
            # sends it, and nothing else can come of a connection with two FINs.
            if not self.eof_received and not self.end_seen:
                session.again(EPOLLIN)
                self.drain_to_inbox()
            if self.eof_received or self.end_seen and self.end_result == 0:
                return self.finish()
        check(session.shutdown_write(), "shutdown")
        return 0

    cdef int finish(self) except -1:
        if not self.session.closed:
            self._keep_names()
            self.session.finish()
        return 0

    def can_write_eof(self):
        return True

    def resume_reading(self):
        InboundStream.resume_reading(self)
        if self.pseudo is not None and not self.hang_up:
            self.pseudo.set_readable(False)

    def _socket(self):
        self.on_gathered()
        sock = InboundStream._socket(self)
        if self.pseudo is None and isinstance(sock, SessionSocket):
            self.pseudo = sock
            sock.set_readable(self.hang_up)
        return sock

    @property
    def _buffer(self):
        pieces = InboundStream._buffer.__get__(self)
        if pieces:
            pieces[0] = pieces[0][self.head_offset:]
        return bytearray().join(pieces) if JOINS_LINES else collections.deque(map(memoryview, pieces))

    @property
    def _eof(self):
        return self.eof_written

    # What loop.sendfile asks of a transport (asyncio.base_events, loop.sockets).

    def kernel_socket(self):
        """The kernel's socket under an open connection of the host stack, else None."""
        return self._socket() if not self.finished and self.session.fileno() >= 0 else None

    def _make_empty_waiter(self):
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.on_gathered()
        self.empty_waiter = self._loop.create_future()
        if not self.backlog_size:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None

    def close(self):
        self.on_gathered()
        self._stop_sending()
        InboundStream.close(self)

    def _force_close(self, exc):
        cdef bytes data
        if self.held is not None and not self.session.closed:
            data, self.held = self.held, None
            # It counts as sent, and is, if the session still takes it; why the connection ends is known already.
            self.session.ops.session_write(self.session.handle, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self._stop_sending()
        InboundStream._force_close(self, exc)

    cdef int _stop_sending(self) except -1:
        """Before the descriptor is closed: the loop would wait for it for ever, or for the next file of that number."""
        sending, self.sending = self.sending, None
        if sending is not None:
            sending.cancel()
        return 0

    def _call_connection_lost(self, exc):
        if self.half_open is not None:
            self.half_open.cancel()
        if self.starved is not None:
            self.starved.cancel()
        try:
            InboundStream._call_connection_lost(self, exc)
        finally:
            if self.empty_waiter is not None and not self.empty_waiter.done():
                self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
