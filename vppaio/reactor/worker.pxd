from libc.stdint cimport int64_t, uint32_t, uint64_t

from vppaio.reactor.gathering cimport Gathering, GatheringHandler
from vppaio.vcl.ops cimport epoll_event, iovec, vcl_endpoint, vcl_ops


cdef class SessionHandler(GatheringHandler):
    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
    cdef int on_restored(self) except -1
    cdef int on_closing(self) except -1


cdef class Session:
    cdef Worker worker
    cdef const vcl_ops *ops
    cdef readonly uint32_t handle
    cdef uint64_t tag           # what the epoll set returns: generation << 32 | slot
    cdef SessionHandler handler
    cdef uint32_t pending       # events to deliver again next turn
    cdef uint32_t due           # and in this turn
    cdef uint64_t turn          # of the worker, when its handler last heard of it
    cdef readonly bint closed
    cdef bint watched
    cdef bint listening
    cdef bint connecting

    cdef int watch(self, SessionHandler handler, uint32_t events) except -1
    cdef int rearm(self) except -1
    cdef void again(self, uint32_t events)
    cdef int shutdown_write(self) noexcept
    cdef int mark_listening(self) except -1
    cdef int close(self) except -1
    cdef int close_with(self, object sock) except -1
    cdef int finish(self) except -1
    cdef int _require_open(self, str call) except -1
    cdef Session accept(self, vcl_endpoint *peer, int *error)


cdef class Worker:
    cdef const vcl_ops *ops
    cdef readonly int index
    cdef readonly int fd
    cdef readonly bint lost     # the stack behind it is gone
    cdef bint slept_on          # its descriptor is in the poller's epoll set
    cdef uint32_t vep
    cdef list slots
    cdef list free_slots
    cdef epoll_event *events    # one batch; next_event .. n_events are still to be dispatched
    cdef int n_events
    cdef int next_event
    cdef list repeats           # sessions to be dispatched again next turn without an event
    cdef list due               # and in this turn
    cdef bint due_first         # the last turn had no time for them
    cdef uint64_t turn
    cdef readonly Gathering gathering  # where a write may have to wake the stack; else None
    cdef list waiting           # handlers that want on_restored
    cdef public object on_change  # called with True when the stack was lost, with False when it is back
    cdef object release
    cdef public dict by_fd      # kernel descriptor -> session, where the stack has descriptors
    cdef object __weakref__
    cdef char *buffer           # every read lands here first
    cdef size_t buffer_size
    cdef readonly uint64_t n_polls, n_wakes, n_events_seen, n_stale, n_budget_hits
    cdef readonly uint64_t n_opened, n_closed, n_accepted, n_lost, n_restored
    cdef uint64_t n_read_bytes, n_written_bytes, n_read_blocked, n_write_blocked, n_write_starved
    cdef int n_listeners
    # Transports whose writes wait: how many, since when this many, and for how long in all, in ns times transports.
    cdef int64_t n_waiting, waiting_since_ns, waited_ns

    cdef int count_waiting(self, int change) except -1
    cdef Session adopt(self, uint32_t handle)
    cdef bint has_work(self)
    cdef int poll(self, int how) except -1
    cdef int begin_turn(self) except -1
    cdef int dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch_batch(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch_due(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _tell(self, Session session, uint32_t events, int64_t slow_ns, object report_slow) except -1
    cdef int check_lost(self) except -1
