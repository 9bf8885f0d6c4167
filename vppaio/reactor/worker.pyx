# cython: boundscheck=False
"""A worker: a loop's attachment to a stack.

One epoll set, one descriptor that says when to ask it, one table of sessions (reactor.session). It takes events from the stack
in batches, hands them to the sessions' handlers within a budget, and sees when the stack is lost and when it is back.
Used by reactor.poller, on the loop's thread.
"""
import time

from libc.stdlib cimport free, malloc

from vppaio.reactor.clock cimport monotonic_ns
from vppaio.reactor.gathering cimport Gathering
from vppaio.reactor.session cimport Session, SessionHandler, SessionTable
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLRDHUP,
    VCL_TRAP_WRITE_WAKES,
    VCL_WAIT_NOW,
    vcl_ops,
)

from vppaio.vcl.errors import check

cdef enum:
    MAX_EVENTS = 1024  # of one batch
    CLOCK_EVERY = 8  # sessions between two looks at the clock; a power of two


cdef class Worker(SessionTable):
    """A loop's worker on one stack.

    Args:
        ops_address: address of the `vcl_ops` table.
        index: an index that `worker_register` returned; -1: register one.
        release: called with the index when the worker is closed; None: unregister it.
    """

    def __cinit__(self, size_t ops_address, int index=-1, release=None):
        self.ops = <const vcl_ops *> ops_address
        self.index = index if index >= 0 else check(self.ops.worker_register(), "worker_register")
        self.release = release
        self.due = []
        self.waiting = []
        if self.ops.traps & VCL_TRAP_WRITE_WAKES:
            self.gathering = Gathering()
        self.events = <epoll_event *> malloc(MAX_EVENTS * sizeof(epoll_event))
        if self.events == NULL:
            raise MemoryError
        self.fd = check(self.ops.worker_fd(self.index), "worker_fd")
        self.vep = check(self.ops.epoll_create(self.index), "epoll_create")
        # Only the host stack has descriptors that add_reader could be given by mistake.
        self.by_fd = {} if self.ops.traps == 0 else None

    def __dealloc__(self):
        free(self.events)

    def close(self):
        """Close every session and give the worker back. Idempotent."""
        cdef Session session
        cdef SessionHandler handler
        if self.index < 0:
            return
        for session in self.slots:
            if session is not None:
                handler = session.handler
                session.connecting = False
                if handler is not None:
                    handler.on_closing()
                session.close()
        self.repeats.clear()
        self.due.clear()
        self.waiting.clear()
        self.on_change = None
        self.n_events = self.next_event = 0
        self.ops.session_close(self.vep)
        if self.release is None:
            self.ops.worker_unregister(self.index)
        else:
            self.release(self.index)
        self.index = -1

    def statistics(self):
        """Counters since the loop was made, and gauges; statistics.py of the loop says what each of them is. From any
        thread: it reads numbers and changes nothing."""
        cdef int64_t waiting_ns = self.n_waiting * (monotonic_ns() - self.waiting_since_ns)
        return {
            "sessions": self.n_opened - self.n_closed,
            "listeners": self.n_listeners,
            "writes_waiting": self.n_waiting,
            "opened": self.n_opened,
            "closed": self.n_closed,
            "accepted": self.n_accepted,
            "read_bytes": self.n_read_bytes,
            "written_bytes": self.n_written_bytes,
            "read_blocked": self.n_read_blocked,
            "write_blocked": self.n_write_blocked,
            "write_starved": self.n_write_starved,
            "write_wait_seconds": (self.waited_ns + waiting_ns) * 1e-9,
            "polls": self.n_polls,
            "wakes": self.n_wakes,
            "events": self.n_events_seen,
            "stale_events": self.n_stale,
            "budget_hits": self.n_budget_hits,
            "lost": self.n_lost,
            "restored": self.n_restored,
        }

    cdef bint has_work(self):
        return self.next_event < self.n_events or len(self.repeats) > 0 or len(self.due) > 0

    cdef int poll(self, int how) except -1:
        """Take events from the stack into the batch; returns how many are in it now.

        A stack is lost, and comes back, within a look with VCL_WAIT_NOW, and the next look may be the one that attaches
        again: so see after each of them what became of it.
        """
        cdef int rv
        if self.next_event == self.n_events:
            self.next_event = self.n_events = 0
        if self.n_events < MAX_EVENTS:
            rv = self.ops.epoll_wait(self.vep, self.events + self.n_events, MAX_EVENTS - self.n_events, how)
            if rv > 0:
                self.n_events += rv
            self.n_polls += 1
            if how == VCL_WAIT_NOW:
                self.check_lost()
        return self.n_events - self.next_event

    cdef int begin_turn(self) except -1:
        """What was asked for with `Session.again` up to now is due in this turn; what is asked for from now on, in the
        next one: a callback that resumes reading must not overtake what is scheduled already."""
        cdef Session session
        self.turn += 1
        if self.repeats:
            for session in self.repeats:
                session.due |= session.pending
                session.pending = 0
            self.due += self.repeats
            self.repeats.clear()
        return 0

    cdef int dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1:
        """Hand the batch, and what is due again, to the handlers until nothing is left or the time is up; what is left
        waits for the next turn.

        Handlers report their own exceptions; only SystemExit and KeyboardInterrupt come through.
        """
        if self.gathering is None or slow_ns:
            return self._dispatch(budget_ns, slow_ns, report_slow)
        self.gathering.begin(self.n_events - self.next_event + len(self.due))
        try:
            self._dispatch(budget_ns, slow_ns, report_slow)
        finally:
            self.gathering.end()
        return 0

    cdef int _dispatch(self, int64_t budget_ns, int64_t slow_ns, object report_slow) except -1:
        cdef int64_t deadline_ns = monotonic_ns() + budget_ns
        if self.due_first:
            self.due_first = False
            if self._dispatch_due(deadline_ns, slow_ns, report_slow) == 0:
                self._dispatch_batch(deadline_ns, slow_ns, report_slow)
        elif self._dispatch_batch(deadline_ns, slow_ns, report_slow) == 0:
            self._dispatch_due(deadline_ns, slow_ns, report_slow)
        else:
            self.due_first = True
        return 0

    cdef int _dispatch_batch(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1:
        """1 if the time is up."""
        cdef Session session
        cdef epoll_event *event
        cdef uint32_t events
        cdef uint64_t tag
        cdef int n = 0
        while self.next_event < self.n_events:
            event = &self.events[self.next_event]
            self.next_event += 1
            tag = event.data.u64
            session = <Session> self.slots[<uint32_t> tag]  # not `tag & 0xFFFFFFFF`, which Cython makes a Python int
            if session is None or session.tag != tag:
                self.n_stale += 1
                continue
            self.n_events_seen += 1
            events = event.events
            if session.due:
                # One call for both, as there is one on a selector: reading before writing.
                events |= session.due
                session.due = 0
            elif session.turn == self.turn and events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                # Data and end come in one batch, but the end is told a turn later than the data, as on a selector.
                session.again(events)
                continue
            self._tell(session, events, slow_ns, report_slow)
            n += 1
            if n & (CLOCK_EVERY - 1) == 0 and self.next_event < self.n_events and monotonic_ns() > deadline_ns:
                self.n_budget_hits += 1
                return 1
        return 0

    cdef int _dispatch_due(self, int64_t deadline_ns, int64_t slow_ns, object report_slow) except -1:
        """1 if the time is up."""
        cdef list sessions
        cdef Session session
        cdef uint32_t events
        cdef int n = 0
        cdef Py_ssize_t i = 0
        if not self.due:
            return 0
        sessions = self.due
        self.due = []
        try:
            while i < len(sessions):
                session = <Session> sessions[i]
                i += 1
                events = session.due
                session.due = 0
                if events:
                    self._tell(session, events, slow_ns, report_slow)
                n += 1
                if n & (CLOCK_EVERY - 1) == 0 and i < len(sessions) and monotonic_ns() > deadline_ns:
                    self.n_budget_hits += 1
                    return 1
        finally:  # also when a handler lets KeyboardInterrupt through
            if i < len(sessions):
                self.due = sessions[i:]
        return 0

    cdef int _tell(self, Session session, uint32_t events, int64_t slow_ns, object report_slow) except -1:
        cdef SessionHandler handler = session.handler
        cdef int64_t started
        if handler is None:
            return 0
        if events & EPOLLIN:
            session.turn = self.turn
        if slow_ns == 0:
            handler.on_events(events)
            if self.gathering is not None:
                self.gathering.n += 1
            return 0
        started = monotonic_ns()
        handler.on_events(events)
        if monotonic_ns() - started >= slow_ns:
            report_slow(handler, (monotonic_ns() - started) * 1e-9)
        return 0

    def catch_up(self, double patience_s):
        """Hear what happened while nobody polled: a worker that lay in the pool when VPP was restarted learns of it now.

        Blocks for up to `patience_s` seconds if VPP is gone, and for VCL's own second before.
        """
        cdef int64_t until = monotonic_ns() + <int64_t> (patience_s * 1e9)
        self.poll(VCL_WAIT_NOW)
        while self.lost and monotonic_ns() < until:
            time.sleep(0.05)
            self.poll(VCL_WAIT_NOW)

    def wait_restored(self, SessionHandler handler):
        """`handler.on_restored` is called once when the stack is back."""
        self.waiting.append(handler)

    cdef int check_lost(self) except -1:
        """See whether the stack went away or came back, and tell who has to know. 1 if that changed."""
        cdef Session session
        cdef SessionHandler handler
        cdef list waiting
        cdef bint lost = self.ops.worker_is_detached(self.index) == 1
        if lost == self.lost:
            return 0
        self.lost = lost
        if lost:
            self.n_lost += 1
            self.n_events = self.next_event = 0
            for session in list(self.slots):
                if session is not None and session.handler is not None:
                    session.handler.on_lost()
        else:
            self.n_restored += 1
            waiting, self.waiting = self.waiting, []
            for handler in waiting:
                handler.on_restored()
        if self.on_change is not None:
            self.on_change(lost)
        return 1
