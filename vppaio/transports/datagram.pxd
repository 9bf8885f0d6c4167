from libc.stdint cimport uint32_t

from vppaio.transports.base cimport SessionTransport
from vppaio.vcl.ops cimport vcl_endpoint


cdef class DatagramTransport(SessionTransport):
    cdef object remote          # what asyncio was told: the address of a connected endpoint, else None
    cdef object peer            # what its session is connected to, be it before: asyncio is not told of a socket given
    cdef object timer           # VPP: looks again where no event will tell
    cdef double timer_delay
    cdef int looks_left         # at the short delay, since an event brought nothing
    cdef bint reviving          # VPP: a connected session died and its successor is connecting
    cdef bint is_ip4
    cdef vcl_endpoint from_endpoint, to_endpoint
    cdef object from_address, to_address   # the tuples of the two above, the second if it was numeric

    cdef int handle(self, uint32_t events) except -1
    cdef int _read_ready(self) except -1
    cdef int _send(self, object data, object address) except 1
    cdef int _flush(self) except -1
    cdef int _resolve(self, object address) except -1
    cdef int _look_again(self, double delay) except -1
