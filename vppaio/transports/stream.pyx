"""StreamTransport: asyncio's transport on a TCP session.

Inbound: the poller calls `on_events`, the rx FIFO is read into the worker's buffer until it is empty, and the protocol
gets each piece. Outbound: `write` offers the bytes to the tx FIFO at once; what it refuses waits in the backlog
until EPOLLOUT. The rules are those of asyncio.selector_events._SelectorSocketTransport, and so are the numbers.

Sessions are edge-triggered from birth (IN|OUT|RDHUP, see reactor.poller), so three things differ from a selector loop:

- Nothing is registered or unregistered for pausing. A paused transport ignores the event and looks again on resume.
- A read that returns less than it had room for has emptied the FIFO, and the next arrival is announced; one more read to
  see WOULD_BLOCK would be for nothing. Not so at the start (news may have come before we watched) and once the peer has
  hung up: then read to the end.
- A write is repeated until WOULD_BLOCK: only then does VCL announce room (vcl-facts 4.3).

Knows its session (reactor.worker) and its protocol; made by loop.eventloop and transports.listener. On the loop's thread.
"""
import asyncio
import collections
from asyncio import constants
from asyncio.log import logger

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNRESET, ENOTCONN

from vppaio.reactor.worker cimport Session
from vppaio.transports.base cimport Py_DECREF, PyObject, SessionTransport, call, raise_it
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_TRAP_FIN_EXPIRES,
    iovec,
)

from vppaio.transports.pseudosocket import SessionSocket
from vppaio.vcl.errors import check, os_error

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size)
    int resize_bytes "_PyBytes_Resize" (PyObject **data, Py_ssize_t size)

cdef enum:
    LARGE_READ = 32 * 1024  # from here on a copy costs more than asking how much there is
    MAX_READ = 1024 * 1024
    READS_PER_TURN = 4  # of up to 256 KiB each; asyncio reads once a turn, and a turn costs us more than a read
    MAX_PIECES = 64  # of one vcl_ops.session_writev
    SMALL_PIECE = 4096  # bytes
    LOG_THRESHOLD = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES


class _Facade(asyncio.transports._FlowControlMixin, asyncio.Transport):
    """What `isinstance` sees: an extension type cannot inherit from asyncio.Transport (their instance layouts conflict),
    but `isinstance` also looks at `__class__`, which is how unittest.mock passes too."""


cdef double LOOK_AT_HALF_OPEN_S = 0.25


cdef class StreamTransport(SessionTransport):
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
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.hang_up = self.until_blocked = True
            if events & EPOLLERR:
                self.was_reset = True
        if self.pseudo is not None and (self.hang_up or self.paused and events & EPOLLIN):
            self.pseudo.set_readable(True)
        if not self.started:
            return 0
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            if not self.paused:
                self._read_ready()
            elif self.hang_up and self.session is not None and self.session.ops.traps & VCL_TRAP_FIN_EXPIRES:
                self._drain_to_inbox()
        # After reading, as asyncio does. An error wakes the writer too: a paused reader would not find it.
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR) and self.backlog_size:
            self._write_ready()
        if self.hang_up and self.half_open is None and not self.lost_writes:
            if self.session.ops.traps & VCL_TRAP_FIN_EXPIRES:
                self.session.rearm()  # VCL has cleared the mask, and the backlog waits for EPOLLOUT
                self.half_open = self._loop.call_later(LOOK_AT_HALF_OPEN_S, self._look_at_half_open)
        return 0

    def _look_at_half_open(self):
        """VPP says nothing when a connection ends whose peer had sent its FIN before, by the CLOSE_WAIT timer or by a reset
        (vcl-facts 4.4). A writer would wait for ever, so ask."""
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

    # ---- inbound ------------------------------------------------------------------------------------------------

    cdef int _read_ready(self) except -1:
        cdef Session session
        cdef int n, rounds = 0
        cdef size_t room
        cdef bytes data = None
        if self.inbox is not None:
            self._empty_inbox()
            rounds = 1
        while not self.paused and not self.closing and not self.eof_received:
            session = self.session
            if self.end_seen:
                n = self.end_result
            elif self.buffered:
                n = self._read_buffered(&room)
                if self.closing:
                    return 0
            elif self.last_read >= LARGE_READ and session.ops.session_readable(session.handle) >= LARGE_READ:
                data = self._read_large(&room, &n)
            else:
                room = session.worker.buffer_size
                n = session.ops.session_read(session.handle, session.worker.buffer, room)
                if n > 0:
                    # Copy 2 of 2: data_received promises bytes; a BufferedProtocol and large reads avoid it.
                    data = PyBytes_FromStringAndSize(session.worker.buffer, n)
            if n == 0 and self.write_error == -ECONNRESET:
                n = -ECONNRESET  # the kernel tells it once, and it told the write
            if n > 0:
                session.worker.n_read_bytes += n
                self.last_read = n
                if self.buffered:
                    self._buffer_updated(n)
                else:
                    self._deliver(data)
                    data = None
                if <size_t> n < room and not self.until_blocked:
                    return 0
                rounds += 1
                # After a reset as asyncio does, once a turn: what the writer finds then comes before the rest.
                if rounds == READS_PER_TURN or self.was_reset:
                    if self.session is not None:
                        self.session.again(EPOLLIN)
                    return 0
            elif n == -EAGAIN:
                self.until_blocked = False
                return 0
            elif rounds:
                # Whoever the data woke may answer before the end closes the connection: asyncio reads once a turn.
                self.end_seen = True
                self.end_result = n
                session.again(EPOLLIN)
                return 0
            elif n == 0:
                return self._read_eof()
            else:
                self._fatal_error(os_error(-ECONNRESET if n == -ENOTCONN else n, "recv"),
                                  "Fatal read error on socket transport")
                return 0
        return 0

    cdef bytes _read_large(self, size_t *room, int *n):
        """Read straight into a bytes object with room for a little more than there is: that saves copying much."""
        cdef Session session = self.session
        cdef PyObject *raw
        room[0] = <size_t> min(session.ops.session_readable(session.handle), MAX_READ) + 1
        raw = new_bytes(NULL, <Py_ssize_t> room[0])
        if raw == NULL:
            raise MemoryError
        n[0] = session.ops.session_read(session.handle, PyBytes_AS_STRING(<object> raw), room[0])
        if resize_bytes(&raw, max(n[0], 0)) < 0:
            raise MemoryError
        data = <bytes> raw
        Py_DECREF(raw)
        return data

    cdef int _deliver(self, object data) except -1:
        if not call(self.on_data, data):
            self._protocol_failed("data_received")
        return 0

    cdef int _protocol_failed(self, str method) except -1:
        """End the connection for the exception that is set."""
        try:
            raise_it()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, f"Fatal error: protocol.{method}() call failed.")
        return 0

    cdef int _read_buffered(self, size_t *room) except? -1:
        """Read into the protocol's own buffer; `room` gets its size."""
        cdef Py_buffer view
        cdef int n
        room[0] = 0
        try:
            buffer = self.get_buffer(-1)
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.get_buffer() call failed.")
            return -EAGAIN
        if view.len == 0:
            PyBuffer_Release(&view)
            self._fatal_error(RuntimeError("get_buffer() returned an empty buffer"),
                              "Fatal error: protocol.get_buffer() call failed.")
            return -EAGAIN
        room[0] = <size_t> view.len
        n = self.session.ops.session_read(self.session.handle, view.buf, room[0])
        PyBuffer_Release(&view)
        return n

    cdef int _buffer_updated(self, int n) except -1:
        if not call(self.on_data, n):
            self._protocol_failed("buffer_updated")
        return 0

    cdef int _drain_to_inbox(self) except -1:
        """The peer has closed while reading is paused, and VPP will drop what we leave in the FIFO in 2 s (CLOSE_WAIT):
        keep it here. The FIFO's size bounds it."""
        cdef Session session = self.session
        cdef int n = 1
        if self.end_seen:
            return 0
        while n > 0:
            n = session.ops.session_read(session.handle, session.worker.buffer, session.worker.buffer_size)
            if n > 0:
                session.worker.n_read_bytes += n
                if self.inbox is None:
                    self.inbox = []
                self.inbox.append(PyBytes_FromStringAndSize(session.worker.buffer, n))
        if n != -EAGAIN:
            # Not to be read again: the CLOSE_WAIT timer may make "not connected" of the end meanwhile.
            self.end_seen = True
            self.end_result = n
        return 0

    def _empty_inbox(self):
        """Deliver what `_drain_to_inbox` kept."""
        while self.inbox and not self.paused and not self.closing:
            data = self.inbox.pop(0)
            if not self.buffered:
                self._deliver(data)
            elif rest := self._feed_buffered(data):
                self.inbox.insert(0, rest)
        if not self.inbox:
            self.inbox = None

    def _feed_buffered(self, data):
        """Give `data` to a BufferedProtocol in pieces that fit its buffers; returns what a pause leaves over."""
        cdef Py_ssize_t n = 0
        while data and not self.paused and not self.closing:
            try:
                with memoryview(self.protocol.get_buffer(-1)) as view:
                    n = min(len(view), len(data))
                    view[:n] = data[:n]
                if not n:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                self.protocol.buffer_updated(n)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")
                return b""
            data = data[n:]
        return data

    cdef int _read_eof(self) except -1:
        if self.inbox is not None:
            return 0
        self.eof_received = self.hang_up = True
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        try:
            keep_open = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
            return 0
        if not keep_open:
            self.close()
        elif self.eof_written and not self.backlog_size and self.session is not None:
            if self.session.ops.traps & VCL_TRAP_FIN_EXPIRES:
                self._finish()  # the FINs may have crossed
        return 0

    # ---- outbound -----------------------------------------------------------------------------------------------

    def write(self, data):
        cdef Py_buffer view
        cdef Py_ssize_t sent
        if PyBytes_CheckExact(data):
            if self._refuse_write("write", PyBytes_GET_SIZE(data)):
                return
            sent = 0
            if not self.backlog_size:
                sent = self._send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                if sent < 0 or sent == PyBytes_GET_SIZE(data):
                    return
            self._keep(data, sent)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
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
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        self.maybe_pause_protocol()

    def writelines(self, list_of_data):
        pieces = []
        size = 0
        for data in list_of_data:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
            piece = data if type(data) is bytes else bytes(data)
            if piece:
                pieces.append(piece)
                size += len(piece)
        if self._refuse_write("writelines", size):
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
                if n == -EAGAIN:
                    session.worker.n_write_blocked += 1
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
            if n == -EAGAIN:
                session.worker.n_write_blocked += 1
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
        return SessionTransport.drop_backlog(self)

    def write_eof(self):
        if self.closing or self.eof_written:
            return
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
                self._drain_to_inbox()
                session.again(EPOLLIN)
            if self.eof_received or self.end_seen and self.end_result == 0:
                return self._finish()
        check(session.shutdown_write(), "shutdown")
        return 0

    cdef int _finish(self) except -1:
        if not self.session.closed:
            self._keep_names()
            self.session.finish()
        return 0

    def can_write_eof(self):
        return True

    def pause_reading(self):
        SessionTransport.pause_reading(self)
        if self.paused and self.hang_up and self.session.ops.traps & VCL_TRAP_FIN_EXPIRES and not self.session.closed:
            self._drain_to_inbox()

    def resume_reading(self):
        SessionTransport.resume_reading(self)
        if self.pseudo is not None and not self.hang_up:
            self.pseudo.set_readable(False)

    def _socket(self):
        sock = SessionTransport._socket(self)
        if self.pseudo is None and isinstance(sock, SessionSocket):
            self.pseudo = sock
            sock.set_readable(self.hang_up)
        return sock

    # What loop.sendfile asks of a transport (asyncio.base_events, loop.sockets).

    def kernel_socket(self):
        """The kernel's socket under an open connection of the host stack, else None."""
        return self._socket() if not self.finished and self.session.fileno() >= 0 else None

    def _make_empty_waiter(self):
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.empty_waiter = self._loop.create_future()
        if not self.backlog_size:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None

    def close(self):
        self._stop_sending()
        SessionTransport.close(self)

    def _force_close(self, exc):
        self._stop_sending()
        SessionTransport._force_close(self, exc)

    cdef int _stop_sending(self) except -1:
        """Before the descriptor is closed: the loop would wait for it for ever, or for the next file of that number."""
        sending, self.sending = self.sending, None
        if sending is not None:
            sending.cancel()
        return 0

    def _call_connection_lost(self, exc):
        if self.half_open is not None:
            self.half_open.cancel()
        SessionTransport._call_connection_lost(self, exc)
        self.get_buffer = self.on_data = None  # each holds the protocol
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.buffered = isinstance(protocol, asyncio.BufferedProtocol)
        # Bound once and not for every message, as uvloop has it, too.
        self.get_buffer = getattr(protocol, "get_buffer", None) if self.buffered else None
        self.on_data = getattr(protocol, "buffer_updated" if self.buffered else "data_received", None)
