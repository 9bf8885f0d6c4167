# cython: boundscheck=False
"""Sessions and a worker's table of them: handles made safe.

The stack reuses a handle as soon as it is closed, and events for the old one may still be in the batch at hand. So the epoll
set carries our own tag, slot and generation, and an event whose generation has passed is dropped (reactor.worker). And a
closed session has a handle that is nobody's: who goes on using it, such as a transport that outlived its loop, gets EBADF.

News goes up through a `SessionHandler`; calls come down through the `Session`, whose operations are the table's and
return what the table returns (see vcl_ops.h). Used by reactor.worker and the transports, on the loop's thread.
"""
import errno

from libc.stdlib cimport free, malloc

from vppaio.reactor.clock cimport monotonic_ns
from vppaio.reactor.gathering cimport GatheringHandler
from vppaio.vcl.address cimport address_of, fill_endpoint
from vppaio.vcl.ops cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLET,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_PROTO_TCP,
    VCL_PROTO_UDP,
)

from vppaio.vcl.errors import check

cdef enum:
    BUFFER_SIZE = 256 * 1024  # asyncio's read size

cdef uint32_t NO_HANDLE = 0xFFFFFFFF
# Never starts again: a worker is used by one loop after the other, and no tag may mean two sessions.
cdef uint32_t generations = 0

TCP = VCL_PROTO_TCP
UDP = VCL_PROTO_UDP


cdef class SessionHandler(GatheringHandler):
    """Who hears of a session's events: a transport, a listener, a connector."""

    cdef int on_events(self, uint32_t events) except -1:
        raise NotImplementedError("on_events")

    cdef int on_lost(self) except -1:
        """The stack is gone, and the session with it. VCL tells only some sessions (docs/vpp.md 9.1), so the worker
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
        """Ask for events again: VCL clears the mask of a session once the peer has closed (docs/vpp.md 4.4)."""
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
        self._forget()
        self.ops.session_close(self.handle)
        self.handle = NO_HANDLE
        return 0

    cdef int close_with(self, object sock) except -1:
        """Close the session, and make the socket object `sock` that has its descriptor too forget it. Whoever gave us
        the object may have closed it already."""
        if self.given_back:
            sock.close()
            return 0
        if not self.closed and self.ops.session_fd(self.handle) >= 0 and sock.fileno() < 0:
            self._forget()
            self.ops.session_forget(self.handle)
            self.handle = NO_HANDLE
        else:
            self.close()
        sock.detach()
        return 0

    cdef int give_back(self) except -1:
        """The loop ends, and the descriptor stays open: from here on it is its socket object's alone."""
        if not self.closed:
            self._forget()
            self.ops.session_forget(self.handle)
            self.handle = NO_HANDLE
            self.given_back = True
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
        self.handle = NO_HANDLE
        return 0

    def _forget(self):
        cdef SessionTable worker = self.worker
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
        """Bind to a numeric address. VCL: vppcom_session_bind, which blocks for datagrams as a listen does.

        Raises:
            ValueError: `host` is not a numeric address.
            OSError: EADDRINUSE, EADDRNOTAVAIL.
        """
        cdef vcl_endpoint endpoint
        if not fill_endpoint(&endpoint, host, port, scope_id):
            raise ValueError(f"not an IP address: {host!r}")
        cdef int rv
        with nogil:
            rv = self.ops.session_bind(self.handle, &endpoint)
        check(rv, "bind", f"({host!r}, {port})", stack=self.stack)

    def listen(self, int backlog):
        """Start accepting. VCL: vppcom_session_listen."""
        cdef int rv
        with nogil:  # VPP needs up to 100 ms
            rv = self.ops.session_listen(self.handle, backlog)
        check(rv, "listen", str(self.local_address()), stack=self.stack)
        self.mark_listening()

    def shutdown(self, int how):
        check(self.ops.session_shutdown(self.handle, how), "shutdown")

    def local_address(self):
        """The address tuple of this end."""
        cdef vcl_endpoint endpoint
        check(self.ops.session_local(self.handle, &endpoint), "getsockname")
        return address_of(&endpoint)

    def peer_address(self):
        """The address tuple of the other end."""
        cdef vcl_endpoint endpoint
        check(self.ops.session_peer(self.handle, &endpoint), "getpeername")
        return address_of(&endpoint)

    def get_option(self, int level, int option):
        cdef int value = 0
        check(self.ops.session_get_option(self.handle, level, option, &value), "getsockopt", f"{level}, {option}")
        return value

    def set_option(self, int level, int option, int value):
        check(self.ops.session_set_option(self.handle, level, option, value), "setsockopt", f"{level}, {option}")

    def readable_bytes(self):
        """Bytes that a read would find now."""
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


cdef class SessionTable:
    """The sessions of a worker, and what is counted of them. Base of reactor.worker.Worker, which sets `ops`, `index` and
    `vep`."""

    def __cinit__(self):
        self.slots = []
        self.free_slots = []
        self.repeats = []
        self.buffer = <char *> malloc(BUFFER_SIZE)
        self.buffer_size = BUFFER_SIZE
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    @property
    def stack(self):
        """"host" or "vpp"."""
        return self.ops.name.decode()

    @property
    def is_closed(self):
        """With its loop."""
        return self.index < 0

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

    def has_option(self, int level, int option):
        """Whether sessions know an option, on a stack that does not ask the kernel; none has to exist."""
        return self.ops.session_set_option(NO_HANDLE, level, option, 0) != -errno.ENOPROTOOPT

    def adopt_fd(self, int fd):
        """A session over a kernel socket, which it owns from here on."""
        return self.adopt(<uint32_t> check(self.ops.session_adopt(self.index, fd), "adopt"))

    cdef int count_waiting(self, int change) except -1:
        """`change` (1 or -1) more transports have writes that wait for room in their FIFO."""
        cdef int64_t now = monotonic_ns()
        self.waited_ns += self.n_waiting * (now - self.waiting_since_ns)
        self.waiting_since_ns = now
        self.n_waiting += change
        return 0
