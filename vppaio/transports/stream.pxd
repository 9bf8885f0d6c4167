from libc.stdint cimport uint32_t

from vppaio.transports.inbound cimport InboundStream


cdef class StreamTransport(InboundStream):
    cdef Py_ssize_t head_offset # bytes of backlog[0] already sent
    cdef object empty_waiter    # sendfile waits for an empty backlog
    cdef public object sending  # the task of a native sendfile
    cdef object pseudo          # the SessionSocket that was handed out, on a stack without descriptors
    cdef bytes held             # a small write that waits for the end of the turn (reactor.gathering)
    cdef bint fin_sent
    cdef object starved         # the timer of _feed
    cdef object half_open       # the timer of _look_at_half_open

    cdef int handle(self, uint32_t events) except -1
    cdef int on_gathered(self) except -1
    cdef int drop_backlog(self) except -1
    cdef int finish(self) except -1
    cdef int _write_ready(self) except -1
    cdef Py_ssize_t _send(self, const char *data, Py_ssize_t size) except? -1
    cdef int _flush(self) except -1
    cdef int _refused(self, int error) except -1
    cdef bint _refuse_write(self, str method, Py_ssize_t size) except -1
    cdef int _keep(self, bytes data, Py_ssize_t sent) except -1
    cdef int _shutdown_write(self) except -1
    cdef int _stop_sending(self) except -1
    cdef int _fail_later(self, int error) except -1
    cdef int _write_failed(self, int error) except -1
