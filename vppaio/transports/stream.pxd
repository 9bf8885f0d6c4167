from libc.stdint cimport uint32_t

from vppaio.reactor.worker cimport Session, SessionHandler


cdef class StreamTransport(SessionHandler):
    cdef Session session
    cdef readonly object _loop
    cdef object protocol
    cdef object context         # contextvars.Context of the callbacks
    cdef object server
    cdef object sock            # the kernel socket object behind the session, once somebody asked
    cdef dict extra
    cdef object backlog         # deque of bytes that the FIFO refused
    cdef Py_ssize_t head_offset # bytes of backlog[0] already sent
    cdef Py_ssize_t backlog_size
    cdef Py_ssize_t high_water
    cdef Py_ssize_t low_water
    cdef list inbox             # received while paused, where the FIFO would not keep it (VCL_TRAP_FIN_EXPIRES)
    cdef object empty_waiter    # sendfile waits for an empty backlog
    cdef int lost_writes        # 0: open; else the connection is lost, and this counts writes since
    cdef bint buffered          # protocol is a BufferedProtocol
    cdef bint started           # connection_made was called
    cdef bint paused
    cdef bint closing
    cdef bint eof_written
    cdef bint eof_received
    cdef bint hang_up           # the peer has closed or reset
    cdef bint until_blocked     # a short read proves nothing: read until WOULD_BLOCK or the end
    cdef bint finished          # connection_lost was called
    cdef readonly bint _protocol_paused
    cdef dict __dict__
    cdef object __weakref__

    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
    cdef int _handle(self, uint32_t events) except -1
    cdef int _read_ready(self) except -1
    cdef int _deliver(self, object data) except -1
    cdef int _read_buffered(self, size_t *room) except? -1
    cdef int _drain_to_inbox(self) except -1
    cdef int _read_eof(self) except -1
    cdef int _write_ready(self) except -1
    cdef Py_ssize_t _send(self, const char *data, Py_ssize_t size) except? -1
    cdef int _flush(self) except -1
    cdef bint _refuse_write(self, str method, Py_ssize_t size) except -1
    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1
    cdef int _write_failed(self, int error) except -1
    cdef int _maybe_pause_protocol(self) except -1
    cdef int _maybe_resume_protocol(self) except -1
