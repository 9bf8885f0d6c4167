from vppaio.transports.base cimport SessionTransport


cdef class InboundStream(SessionTransport):
    cdef list inbox             # received while paused, where the FIFO would not keep it (VCL_TRAP_FIN_EXPIRES)
    cdef bint buffered          # protocol is a BufferedProtocol
    cdef int last_read          # bytes of the last read that brought some
    cdef bint eof_received
    cdef bint end_seen          # a read found the end, but it is news for later
    cdef int end_result         # 0: EOF, else the error
    cdef bint was_reset
    cdef bint hang_up           # the peer has closed or reset
    cdef bint until_blocked     # a short read proves nothing: read until WOULD_BLOCK or the end
    # of the sending side, which the receiving one has to know
    cdef bint eof_written
    cdef int write_error        # a repeated write failed, but it is news for later

    cdef int finish(self) except -1
    cdef int read_ready(self) except -1
    cdef int drain_to_inbox(self) except -1
    cdef bytes _read_large(self, size_t *room, int *n)
    cdef int _protocol_failed(self, str method) except -1
    cdef int _read_buffered(self, size_t *room) except? -1
    cdef int _read_eof(self) except -1
