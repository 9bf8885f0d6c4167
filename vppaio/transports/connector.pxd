from libc.stdint cimport uint32_t

from vppaio.reactor.session cimport Session, SessionHandler


cdef class Connector(SessionHandler):
    cdef Session session
    cdef object future
    cdef object address
    cdef double started

    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
