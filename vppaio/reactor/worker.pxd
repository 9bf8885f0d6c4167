from libc.stdint cimport int64_t, uint32_t, uint64_t

from vppaio.reactor.session cimport Session, SessionTable
from vppaio.vcl.ops cimport epoll_event


cdef class Worker(SessionTable):
    cdef readonly int fd
    cdef bint slept_on          # its descriptor is in the poller's epoll set
    cdef epoll_event *events    # one batch; next_event .. n_events are still to be dispatched
    cdef int n_events
    cdef int next_event
    cdef list due               # sessions to be dispatched again in this turn
    cdef bint due_first         # the last turn had no time for them
    cdef list waiting           # handlers that want on_restored
    cdef public object on_change  # called with True when the stack was lost, with False when it is back
    cdef object release
    cdef readonly uint64_t n_polls, n_wakes, n_events_seen, n_stale, n_budget_hits, n_lost, n_restored

    cdef bint has_work(self)
    cdef int poll(self, int how) except -1
    cdef int begin_turn(self) except -1
    cdef int dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch_batch(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _dispatch_due(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1
    cdef int _tell(self, Session session, uint32_t events, int64_t slow_ns, object report_slow) except -1
    cdef int check_lost(self) except -1
