from libc.stdint cimport int64_t, uint32_t, uint64_t

from vppaio.reactor.worker cimport Worker
from vppaio.vcl.ops cimport epoll_event


cdef class Poller:
    cdef int epfd
    cdef dict fd_to_key
    cdef dict shots             # descriptor -> [who waits to read, who waits to write]: futures, see wait_once
    cdef list workers
    cdef epoll_event *events
    cdef int64_t busy_poll_ns
    cdef public int64_t retry_lost_ns  # how often to ask a lost stack whether it is back
    cdef int64_t retry_at_ns    # when to ask a lost stack again; 0: none is lost
    cdef int look_ms            # how long the next sleep may be at most
    cdef readonly uint64_t n_turns, n_sleeps

    cdef list sleep(self, double timeout_s)
    cdef int dispatch_all(self, int64_t slow_ns, object report_slow) except -1
    cdef int _watch_or_retry(self, Worker worker) except -1
    cdef int _ask(self, int how) except -1
    cdef int _busy_poll(self, int64_t *wait_ms) except -2
    cdef int _wait_kernel(self, int timeout_ms) except -2
    cdef int _arm(self, int fd, list waiters) except -1
    cdef int _shoot(self, int fd, list waiters, uint32_t events) except -1
    cdef int _retry_lost(self) except -1
