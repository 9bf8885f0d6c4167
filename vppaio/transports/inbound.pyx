# cython: boundscheck=False
"""InboundStream: the receiving side of a TCP session's transport.

The poller calls `on_events`, the rx FIFO is read into the worker's buffer until it is empty, and the protocol gets each
piece. Sessions are edge-triggered from birth, so two things differ from a selector loop:

- Nothing is registered or unregistered for pausing. A paused transport ignores the event and looks again on resume.
- A read that returns less than it had room for has emptied the FIFO, and the next arrival is announced; one more read to
  see WOULD_BLOCK would be for nothing. Not so at the start (news may have come before we watched), before the kernel's urgent
  data, where a read stops short (EPOLLPRI comes with it), and once the peer has hung up: then read to the end.

Base of transports.stream. On the loop's thread.
"""
import asyncio
from asyncio.log import logger

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ECONNRESET, ENOTCONN

from vppaio.reactor.session cimport Session
from vppaio.transports.base cimport Py_DECREF, PyObject, SessionTransport, call, call_method, raise_it
from vppaio.vcl.ops cimport EPOLLIN, VCL_TRAP_FIN_EXPIRES

from vppaio.vcl.errors import os_error

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size)
    int resize_bytes "_PyBytes_Resize" (PyObject **data, Py_ssize_t size)
    int get_buffer "PyObject_GetBuffer" (PyObject *exporter, Py_buffer *view, int flags)

cdef enum:
    LARGE_READ = 32 * 1024  # from here on a copy costs more than asking how much there is
    MAX_READ = 1024 * 1024
    READS_PER_TURN = 4  # of up to 256 KiB each; asyncio reads once a turn, and a turn costs us more than a read


cdef class InboundStream(SessionTransport):

    cdef int finish(self) except -1:
        """Both directions are at their end."""
        raise NotImplementedError("finish")

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def take_back(self, data):
        """Deliver `data`, which came before the session was ours, ahead of all else."""
        if data:
            self.inbox = [data]

    def pause_reading(self):
        SessionTransport.pause_reading(self)
        if self.paused and self.hang_up and self.session.ops.traps & VCL_TRAP_FIN_EXPIRES and not self.session.closed:
            self.drain_to_inbox()

    cdef int read_ready(self) except -1:
        cdef Session session
        cdef int n, rounds = 0
        cdef size_t room
        cdef bytes data = None
        cdef bint buffered, first
        if self.inbox is not None:
            self._top_up_inbox()
            self._empty_inbox()
            rounds = 1
        while not self.paused and not self.closing and not self.eof_received:
            session = self.session
            buffered = self.buffered  # get_buffer may change the protocol
            if self.end_seen:
                n = self.end_result
            elif buffered:
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
                first = self.last_read == 0
                self.last_read = n
                if buffered:
                    if not call(self.protocol, "buffer_updated", n):
                        self._protocol_failed("buffer_updated")
                else:
                    if not call(self.protocol, "data_received", data):
                        self._protocol_failed("data_received")
                    data = None
                if <size_t> n < room and not self.until_blocked:
                    return 0
                rounds += 1
                # As asyncio does, once a turn: after the first data, which may end a handshake that somebody waits for, and
                # after a reset, since what the writer finds then comes before the rest.
                if rounds == READS_PER_TURN or first or self.was_reset:
                    if self.session is not None:
                        self.session.again(EPOLLIN)
                    return 0
            elif n == -EAGAIN:
                self.session.worker.n_read_blocked += 1
                self.until_blocked = self.hang_up  # of a hang-up nothing more will be told: read on to the end
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
        cdef PyObject *buffer
        cdef Session session = self.session
        room[0] = 0
        if self.until_blocked and not self.hang_up and session.ops.session_readable(session.handle) == 0:
            # Most likely there is nothing, and then nobody is to be asked for a buffer.
            n = session.ops.session_read(session.handle, session.worker.buffer, session.worker.buffer_size)
            if n > 0:
                session.worker.n_read_bytes += n
                self.inbox = [PyBytes_FromStringAndSize(session.worker.buffer, n)]
                session.again(EPOLLIN)
                n = -EAGAIN
            return n
        buffer = call_method(self.protocol, "get_buffer", -1)
        if buffer == NULL:
            self._protocol_failed("get_buffer")
            return -EAGAIN
        n = get_buffer(buffer, &view, PyBUF_WRITABLE)
        Py_DECREF(buffer)  # the view holds it
        if n < 0:
            self._protocol_failed("get_buffer")
            return -EAGAIN
        if view.len == 0:
            PyBuffer_Release(&view)
            self._fatal_error(RuntimeError("get_buffer() returned an empty buffer"),
                              "Fatal error: protocol.get_buffer() call failed.")
            return -EAGAIN
        room[0] = <size_t> view.len
        n = session.ops.session_read(session.handle, view.buf, room[0])
        PyBuffer_Release(&view)
        return n

    cdef int drain_to_inbox(self) except -1:
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
            if n == 0 and self.eof_written and not self.backlog_size:
                self.finish()  # the FINs may have crossed, see _read_eof
        return 0

    def _top_up_inbox(self):
        """What came behind it would have been one read with it."""
        cdef Session session = self.session
        cdef int n = -EAGAIN
        if not self.end_seen and not session.closed:
            n = session.ops.session_read(session.handle, session.worker.buffer, session.worker.buffer_size)
        if n > 0:
            session.worker.n_read_bytes += n
            self.inbox.append(self.inbox.pop() + PyBytes_FromStringAndSize(session.worker.buffer, n))
        elif n != -EAGAIN:
            self.end_seen = True
            self.end_result = n

    def _empty_inbox(self):
        """Deliver what `drain_to_inbox` kept."""
        while self.inbox and not self.paused and not self.closing:
            data = self.inbox.pop(0)
            if not self.buffered:
                if not call(self.protocol, "data_received", data):
                    self._protocol_failed("data_received")
            elif rest := self._feed_buffered(data):
                self.inbox.insert(0, rest)
        if not self.inbox:
            self.inbox = None

    def _feed_buffered(self, data):
        """Give `data` to a BufferedProtocol in pieces that fit its buffers; returns what a pause leaves over."""
        cdef Py_ssize_t n = 0
        while data and not self.paused and not self.closing:
            try:
                with memoryview(self.protocol.get_buffer(-1)).cast("B") as view:
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
                self.finish()  # the FINs may have crossed, and then VPP sends none of ours
        return 0
