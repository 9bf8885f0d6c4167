"""SocketIO: a session used as a socket, by the loop's sock_* methods.

The operations are a non-blocking socket's: they act at once or raise BlockingIOError, and `wait` gives a future for trying
again. The session is watched from the start, before the first try, so no edge is missed between the two.

Made by transports.pseudosocket; asks reactor.session. On the loop's thread.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EMSGSIZE, ENOBUFS
from libc.stdint cimport uint32_t

from vppaio.reactor.session cimport Session, SessionHandler
from vppaio.vcl.address cimport address_of, fill_endpoint
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_MSS_IP4,
    VCL_MSS_IP6,
    VCL_TRAP_DATAGRAM_EVENTS,
    VCL_TRAP_DATAGRAM_SPLIT,
    vcl_endpoint,
)

from vppaio.vcl.errors import check

READABLE = EPOLLIN
WRITABLE = EPOLLOUT

cdef double LOOK_AGAIN_READ_S = 0.05  # VPP's datagram sessions do not announce all, see transports.datagram
cdef double LOOK_AGAIN_WRITE_S = 0.001


cdef class SocketIO(SessionHandler):
    """The input and output of one session."""

    cdef Session session
    cdef list waiters  # (event mask, future)
    cdef bint datagram
    cdef bint starved  # the last write found no memory for the FIFO, and nothing will tell when there is

    def __cinit__(self, Session session, bint datagram, bint listening):
        self.session = session
        self.datagram = datagram
        self.waiters = []
        session.watch(self, EPOLLIN if listening else EPOLLIN | EPOLLOUT | EPOLLRDHUP)

    cdef int on_events(self, uint32_t events) except -1:
        cdef list waiters = self.waiters
        cdef uint32_t wanted
        if events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP):
            events |= EPOLLIN | EPOLLOUT
        self.waiters = []
        for wanted, future in waiters:
            if future.done():
                continue
            if wanted & events:
                future.set_result(None)
            else:
                self.waiters.append((wanted, future))
        return 0

    def wait(self, loop, uint32_t events):
        """A future that is done when trying again makes sense. Cancel it freely."""
        future = loop.create_future()
        self.waiters.append((events, future))
        if self.datagram and self.session.ops.traps & VCL_TRAP_DATAGRAM_EVENTS or self.starved and events == EPOLLOUT:
            delay = LOOK_AGAIN_READ_S if events == EPOLLIN else LOOK_AGAIN_WRITE_S
            timer = loop.call_later(delay, _wake, future)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    cdef int _read(self, int n, str call) except -1:
        """Check and count a read."""
        if n == -EAGAIN:
            self.session.worker.n_read_blocked += 1
        check(n, call)
        self.session.worker.n_read_bytes += n
        return n

    cdef int _written(self, int n, str call, str detail="") except -1:
        """The same for a write."""
        self.starved = n == -ENOBUFS
        if n == -EAGAIN or n == -ENOBUFS:
            self.session.worker.n_write_blocked += 1
            self.session.worker.n_write_starved += self.starved
            n = -EAGAIN
        check(n, call, detail, stack=self.session.stack)
        self.session.worker.n_written_bytes += n
        return n

    def recv(self, Py_ssize_t size):
        # By way of the worker's buffer: a large bytes object for each read costs more than copying the little that came.
        cdef Session session = self.session
        cdef size_t room = min(<size_t> size, session.worker.buffer_size)
        cdef int n = session.ops.session_read(session.handle, session.worker.buffer, room)
        return PyBytes_FromStringAndSize(session.worker.buffer, self._read(n, "recv"))

    def recv_into(self, buffer):
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        cdef int n = self.session.ops.session_read(self.session.handle, view.buf, <size_t> view.len)
        PyBuffer_Release(&view)
        return self._read(n, "recv_into")

    def recvfrom(self, Py_ssize_t size):
        cdef Session session = self.session
        cdef size_t room = min(<size_t> size, session.worker.buffer_size)
        cdef vcl_endpoint source
        cdef int n = session.ops.session_recvfrom(session.handle, session.worker.buffer, room, &source)
        return PyBytes_FromStringAndSize(session.worker.buffer, self._read(n, "recvfrom")), address_of(&source)

    def send(self, data):
        if self.datagram:
            return self.sendto(data, None)
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        cdef int n = self.session.ops.session_write(self.session.handle, view.buf, <size_t> view.len)
        PyBuffer_Release(&view)
        return self._written(n, "send")

    def sendto(self, data, address):
        cdef Py_buffer view
        cdef vcl_endpoint target
        cdef int n
        if address is not None and not fill_endpoint(
            &target, address[0], address[1], address[3] if len(address) > 3 else 0
        ):
            raise ValueError(f"not an IP address: {address[0]!r}")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if view.len > VCL_MSS_IP6 and self._would_be_split(view.len, NULL if address is None else &target):
            n = -EMSGSIZE
        else:
            n = self.session.ops.session_sendto(
                self.session.handle, view.buf, <size_t> view.len, NULL if address is None else &target
            )
        PyBuffer_Release(&view)
        return self._written(n, "sendto", str(address))

    cdef bint _would_be_split(self, Py_ssize_t size, vcl_endpoint *to):
        """Whether VPP would make several datagrams of one of this size."""
        cdef vcl_endpoint peer
        if not self.session.ops.traps & VCL_TRAP_DATAGRAM_SPLIT:
            return False
        if to == NULL:
            to = &peer
            if self.session.ops.session_peer(self.session.handle, to) < 0:
                return False
        return size > (VCL_MSS_IP4 if to.is_ip4 else VCL_MSS_IP6)

    def accept(self):
        """The next connection's session and peer address."""
        cdef vcl_endpoint peer
        cdef int error = 0
        cdef Session session = self.session.accept(&peer, &error)
        if session is None:
            check(error, "accept")
        return session, address_of(&peer)


def _wake(future):
    if not future.done():
        future.set_result(None)
