from libc.stdint cimport int64_t, uint32_t, uint64_t

from vppaio.reactor.gathering cimport Gathering, GatheringHandler
from vppaio.vcl.ops cimport vcl_endpoint, vcl_ops


cdef class SessionHandler(GatheringHandler):
    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
    cdef int on_restored(self) except -1
    cdef int on_closing(self) except -1


cdef class Session:
    cdef SessionTable worker
    cdef const vcl_ops *ops
    cdef readonly uint32_t handle
    cdef uint64_t tag           # what the epoll set returns: generation << 32 | slot
    cdef SessionHandler handler
    cdef uint32_t pending       # events to deliver again next turn
    cdef uint32_t due           # and in this turn
    cdef uint64_t turn          # of the worker, when its handler last heard of data
    cdef readonly bint closed
    cdef bint watched
    cdef bint listening
    cdef bint connecting
    cdef bint given_back        # its descriptor is its socket object's again

    cdef int watch(self, SessionHandler handler, uint32_t events) except -1
    cdef int rearm(self) except -1
    cdef void again(self, uint32_t events)
    cdef int shutdown_write(self) noexcept
    cdef int mark_listening(self) except -1
    cdef int close(self) except -1
    cdef int close_with(self, object sock) except -1
    cdef int give_back(self) except -1
    cdef int finish(self) except -1
    cdef Session accept(self, vcl_endpoint *peer, int *error)


cdef class SessionTable:
    cdef const vcl_ops *ops
    cdef readonly int index
    cdef readonly bint lost     # the stack behind it is gone
    cdef uint32_t vep
    cdef uint64_t turn          # of the loop, since the worker was made
    cdef list slots
    cdef list free_slots
    cdef list repeats           # sessions to be dispatched again next turn without an event
    cdef readonly Gathering gathering  # where a write may have to wake the stack; else None
    cdef public dict by_fd      # kernel descriptor -> session, where the stack has descriptors
    cdef object __weakref__
    cdef char *buffer           # every read lands here first
    cdef size_t buffer_size
    cdef readonly uint64_t n_opened, n_closed, n_accepted
    cdef uint64_t n_read_bytes, n_written_bytes, n_read_blocked, n_write_blocked, n_write_starved
    cdef int n_listeners
    # Transports whose writes wait: how many, since when this many, and for how long in all, in ns times transports.
    cdef int64_t n_waiting, waiting_since_ns, waited_ns

    cdef Session adopt(self, uint32_t handle)
    cdef int count_waiting(self, int change) except -1
