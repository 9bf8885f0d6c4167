from libc.stdint cimport uint32_t

from vppaio.reactor.session cimport Session, SessionHandler


cdef class Listener(SessionHandler):
    cdef object loop
    cdef Session session
    cdef object sock
    cdef object on_connection
    cdef object reopen
    cdef object give_up
    cdef double retry_s         # how long it last waited for its address; 0: it serves
    cdef object context
    cdef object retry_handle
    cdef int accepts_per_turn
    cdef bint closed

    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
    cdef int on_restored(self) except -1
    cdef int on_closing(self) except -1
    cdef int _accept(self) except -1
