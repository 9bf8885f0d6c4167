from libc.stdint cimport uint32_t

from vppaio.reactor.worker cimport Session
from vppaio.transports.base cimport SessionTransport


cdef class StreamTransport(SessionTransport):
    cdef Py_ssize_t head_offset # bytes of backlog[0] already sent
    cdef list inbox             # received while paused, where the FIFO would not keep it (VCL_TRAP_FIN_EXPIRES)
    cdef object empty_waiter    # sendfile waits for an empty backlog
    cdef public object sending  # the task of a native sendfile
    cdef object pseudo          # the SessionSocket that was handed out, on a stack without descriptors
    cdef object get_buffer      # of a BufferedProtocol
    cdef object on_data         # its buffer_updated, or data_received
    cdef bint buffered          # protocol is a BufferedProtocol
    cdef int last_read          # bytes of the last read that brought some
    cdef bint eof_written
    cdef bint fin_sent
    cdef bint eof_received
    cdef bint end_seen          # a read found the end, but it is news for later
    cdef int end_result         # 0: EOF, else the error
    cdef int write_error        # a repeated write failed, but it is news for later
    cdef object half_open       # the timer of _look_at_half_open
    cdef bint was_reset
    cdef bint hang_up           # the peer has closed or reset
    cdef bint until_blocked     # a short read proves nothing: read until WOULD_BLOCK or the end

    cdef int handle(self, uint32_t events) except -1
    cdef int drop_backlog(self) except -1
    cdef int _read_ready(self) except -1
    cdef bytes _read_large(self, size_t *room, int *n)
    cdef int _deliver(self, object data) except -1
    cdef int _protocol_failed(self, str method) except -1
    cdef int _buffer_updated(self, int n) except -1
    cdef int _read_buffered(self, size_t *room) except? -1
    cdef int _drain_to_inbox(self) except -1
    cdef int _read_eof(self) except -1
    cdef int _write_ready(self) except -1
    cdef Py_ssize_t _send(self, const char *data, Py_ssize_t size) except? -1
    cdef int _flush(self) except -1
    cdef bint _refuse_write(self, str method, Py_ssize_t size) except -1
    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1
    cdef int _shutdown_write(self) except -1
    cdef int _stop_sending(self) except -1
    cdef int _finish(self) except -1
    cdef int _fail_later(self, int error) except -1
    cdef int _write_failed(self, int error) except -1
