"""A worker and its sessions: handles made safe.

A worker is a loop's attachment to a stack: one epoll set, one descriptor that says when to ask it, one table of
sessions. The stack reuses a handle as soon as it is closed, and events for the old one may still be in the batch at hand.
So the epoll set carries our own tag, slot and generation, and an event whose generation has passed is dropped.

News goes up through a `SessionHandler`; calls come down through the `Session`, whose operations are the table's and
return what the table returns (see vcl_ops.h). Used by reactor.poller and the transports, on the loop's thread.
"""
import errno
import time

from libc.stdlib cimport free, malloc

from vppaio.reactor.clock cimport monotonic_ns
from vppaio.reactor.gathering cimport Gathering, GatheringHandler
from vppaio.vcl.address cimport address_of, fill_endpoint
from vppaio.vcl.ops cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_PROTO_TCP,
    VCL_PROTO_UDP,
    VCL_TRAP_CONNECT_LEAKS,
    VCL_TRAP_WRITE_WAKES,
    VCL_WAIT_NOW,
)

from vppaio.vcl.errors import check

cdef enum:
    MAX_EVENTS = 1024  # VCL handles what does not fit on a path that can crash (vcl-facts 4.6), so leave room
    BUFFER_SIZE = 256 * 1024  # asyncio's read size
    CLOCK_EVERY = 8  # sessions between two looks at the clock; a power of two

# Never starts again: a worker is used by one loop after the other, and no tag may mean two sessions.
cdef uint32_t generations = 0

TCP = VCL_PROTO_TCP
UDP = VCL_PROTO_UDP


cdef class SessionHandler(GatheringHandler):
    """Who hears of a session's events: a transport, a listener, a connector."""

    cdef int on_events(self, uint32_t events) except -1:
        raise NotImplementedError("on_events")

    cdef int on_lost(self) except -1:
        """The stack is gone, and the session with it. VCL tells only some sessions (vcl-facts 9.1), so the worker
        tells all."""
        return self.on_events(EPOLLERR | EPOLLHUP)

    cdef int on_restored(self) except -1:
        """The stack is back; called where `Worker.wait_restored` was asked for it."""
        return 0

    cdef int on_closing(self) except -1:
        """The loop closes, and next the session, descriptor included: forget the number, which may be another file's by
        the time somebody closes it again."""
        return 0


cdef class Session:
    """One session of one worker. Data-path calls go straight to the table: `session.ops.session_read(session.handle,
    ...)`; the methods here are what needs more than forwarding."""

    cdef int watch(self, SessionHandler handler, uint32_t events) except -1:
        """Join the epoll set; `handler` hears of every change from now on. A session that changes hands stays in the
        set: news that came in between is for the new handler to find out by reading."""
        self.handler = handler
        if self.watched:
            return 0
        check(self.ops.epoll_ctl(self.worker.vep, EPOLL_CTL_ADD, self.handle, events | EPOLLET, self.tag), "epoll_ctl")
        self.watched = True
        return 0

    cdef int rearm(self) except -1:
        """Ask for events again: VCL clears the mask of a session once the peer has closed (vcl-facts 4.4)."""
        if not self.closed:
            self.ops.epoll_ctl(
                self.worker.vep, EPOLL_CTL_MOD, self.handle, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, self.tag
            )
        return 0

    cdef void again(self, uint32_t events):
        """Deliver `events` on the next turn: edge-triggered news that was not used up."""
        if self.pending == 0:
            self.worker.repeats.append(self)
        self.pending |= events

    cdef int shutdown_write(self) noexcept:
        return self.ops.session_shutdown(self.handle, 1)

    cdef int mark_listening(self) except -1:
        """Count it among the listeners."""
        if not self.listening:
            self.listening = True
            self.worker.n_listeners += 1
        return 0

    cdef Session accept(self, vcl_endpoint *peer, int *error):
        """The next queued connection, or None with the table's error."""
        cdef int rv = self.ops.session_accept(self.handle, peer)
        if rv < 0:
            error[0] = rv
            return None
        self.worker.n_accepted += 1
        return self.worker.adopt(<uint32_t> rv)

    cdef int close(self) except -1:
        """Close the session; its handler hears nothing more. Idempotent."""
        if self.closed:
            self.handler = None
            return 0
        if self.connecting and self.watched and self.ops.traps & VCL_TRAP_CONNECT_LEAKS and not self.worker.lost:
            # VCL never frees the slot of a session closed while connecting if the connect then fails. The result will
            # come, at the latest when the SYN times out; an orphan waits for it.
            self.handler = _Orphan.__new__(_Orphan, self)
            return 0
        self._forget()
        self.ops.session_close(self.handle)
        return 0

    cdef int close_with(self, object sock) except -1:
        """Close the session, and make the socket object `sock` that has its descriptor too forget it. Whoever gave us
        the object may have closed it already."""
        if not self.closed and self.ops.session_fd(self.handle) >= 0 and sock.fileno() < 0:
            self._forget()
            self.ops.session_forget(self.handle)
        else:
            self.close()
        sock.detach()
        return 0

    cdef int finish(self) except -1:
        """Close the session, since both directions are at their end; its handler still hears of what it asked for with
        `again`, until `close`."""
        cdef SessionHandler handler = self.handler
        cdef uint32_t pending = self.pending
        cdef uint32_t due = self.due
        self._forget()
        self.handler, self.pending, self.due = handler, pending, due
        self.ops.session_close(self.handle)
        return 0

    cdef int _require_open(self, str call) except -1:
        """The handle of a closed session may be another's already."""
        if self.closed:
            check(-errno.EBADF, call)
        return 0

    def _forget(self):
        cdef Worker worker = self.worker
        self.closed = True
        self.handler = None
        self.pending = self.due = 0
        if self.listening:
            self.listening = False
            worker.n_listeners -= 1
        cdef uint32_t slot = <uint32_t> self.tag
        worker.slots[slot] = None
        worker.free_slots.append(slot)
        worker.n_closed += 1
        if worker.by_fd is not None:
            fd = self.ops.session_fd(self.handle)
            if worker.by_fd.get(fd) is self:  # see close_with
                del worker.by_fd[fd]

    # What happens once per connection, for Python: raises instead of returning.

    def bind(self, str host, int port, unsigned int scope_id=0):
        """Bind to a numeric address. VCL: vppcom_session_bind.

        Raises:
            ValueError: `host` is not a numeric address.
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        cdef vcl_endpoint endpoint
        if not fill_endpoint(&endpoint, host, port, scope_id):
            raise ValueError(f"not an IP address: {host!r}")
        check(self.ops.session_bind(self.handle, &endpoint), "bind", f"({host!r}, {port})", stack=self.stack)

    def listen(self, int backlog):
        """Start accepting. Blocks for up to 100 ms on VPP, without the GIL. VCL: vppcom_session_listen."""
        cdef int rv
        cdef uint32_t handle = self.handle
        cdef const vcl_ops *ops = self.ops
        with nogil:
            rv = ops.session_listen(handle, backlog)
        check(rv, "listen", str(self.local_address()), stack=self.stack)
        self.mark_listening()

    def shutdown(self, int how):
        self._require_open("shutdown")
        check(self.ops.session_shutdown(self.handle, how), "shutdown")

    def local_address(self):
        """The address tuple of this end."""
        cdef vcl_endpoint endpoint
        self._require_open("getsockname")
        check(self.ops.session_local(self.handle, &endpoint), "getsockname")
        return address_of(&endpoint)

    def peer_address(self):
        """The address tuple of the other end."""
        cdef vcl_endpoint endpoint
        self._require_open("getpeername")
        check(self.ops.session_peer(self.handle, &endpoint), "getpeername")
        return address_of(&endpoint)

    def get_option(self, int level, int option):
        cdef int value = 0
        self._require_open("getsockopt")
        check(self.ops.session_get_option(self.handle, level, option, &value), "getsockopt", f"{level}, {option}")
        return value

    def set_option(self, int level, int option, int value):
        self._require_open("setsockopt")
        check(self.ops.session_set_option(self.handle, level, option, value), "setsockopt", f"{level}, {option}")

    def readable_bytes(self):
        """Bytes that a read would find now."""
        self._require_open("FIONREAD")
        return check(self.ops.session_readable(self.handle), "FIONREAD")

    def fileno(self):
        """The kernel's descriptor, or -1: VPP's sessions have none."""
        return -1 if self.closed else self.ops.session_fd(self.handle)

    def discard(self):
        """Close, for Python."""
        self.close()

    @property
    def stack(self):
        """"host" or "vpp"."""
        return self.worker.stack

    @property
    def owner(self):
        """Who hears of its events."""
        return self.handler

    @property
    def worker_(self):
        """The worker it lives on."""
        return self.worker


cdef class _Orphan(SessionHandler):
    """Waits for the result of a connect that nobody wants any more, then closes the session."""

    cdef Session session

    def __cinit__(self, Session session):
        self.session = session

    cdef int on_events(self, uint32_t events) except -1:
        cdef Session session = self.session
        if session is not None and session.ops.session_connect_result(session.handle, events) != -errno.EINPROGRESS:
            self.on_lost()
        return 0

    cdef int on_lost(self) except -1:
        cdef Session session = self.session
        if session is not None:
            self.session = None
            session.connecting = False
            session.close()
        return 0


cdef class Worker:
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
        self.slots = []
        self.free_slots = []
        self.repeats = []
        self.due = []
        self.waiting = []
        if self.ops.traps & VCL_TRAP_WRITE_WAKES:
            self.gathering = Gathering()
        self.events = <epoll_event *> malloc(MAX_EVENTS * sizeof(epoll_event))
        self.buffer = <char *> malloc(BUFFER_SIZE)
        self.buffer_size = BUFFER_SIZE
        if self.events == NULL or self.buffer == NULL:
            raise MemoryError
        self.fd = check(self.ops.worker_fd(self.index), "worker_fd")
        self.vep = check(self.ops.epoll_create(self.index), "epoll_create")
        # Only the host stack has descriptors that add_reader could be given by mistake.
        self.by_fd = {} if self.ops.traps == 0 else None

    def __dealloc__(self):
        free(self.events)
        free(self.buffer)

    @property
    def stack(self):
        """"host" or "vpp"."""
        return self.ops.name.decode()

    @property
    def traps(self):
        """VCL_TRAP_... bits: what the layers above have to answer for."""
        return self.ops.traps

    cdef Session adopt(self, uint32_t handle):
        """A new handle of the stack gets its slot."""
        global generations
        cdef Session session = Session.__new__(Session)
        cdef uint32_t slot
        if self.free_slots:
            slot = self.free_slots.pop()
            self.slots[slot] = session
        else:
            slot = <uint32_t> len(self.slots)
            self.slots.append(session)
        generations += 1
        session.worker = self
        session.ops = self.ops
        session.handle = handle
        session.tag = (<uint64_t> generations << 32) | slot
        self.n_opened += 1
        if self.by_fd is not None:
            self.by_fd[self.ops.session_fd(handle)] = session
        return session

    def create(self, int proto, bint is_ip4):
        """A new session, not yet in the epoll set. VCL: vppcom_session_create."""
        return self.adopt(<uint32_t> check(self.ops.session_create(self.index, proto, is_ip4), "socket", stack=self.stack))

    def adopt_fd(self, int fd):
        """A session over a kernel socket, which it owns from here on."""
        return self.adopt(<uint32_t> check(self.ops.session_adopt(self.index, fd), "adopt"))

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

    cdef int count_waiting(self, int change) except -1:
        """`change` (1 or -1) more transports have writes that wait for room in their FIFO."""
        cdef int64_t now = monotonic_ns()
        self.waited_ns += self.n_waiting * (now - self.waiting_since_ns)
        self.waiting_since_ns = now
        self.n_waiting += change
        return 0

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
