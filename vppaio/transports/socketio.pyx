"""SocketIO: a session used as a socket, by the loop's sock_* methods.

The operations are a non-blocking socket's: they act at once or raise BlockingIOError, and `wait` gives a future for trying
again. The session is watched from the start, before the first try, so no edge is missed between the two.

Once the peer has closed its side, VPP announces nothing more and gives the connection up in 2 s, unread data with it
(VCL_TRAP_FIN_EXPIRES): so that data is kept here, events are asked for again, and a writer looks by itself, too.

Made by transports.pseudosocket; asks reactor.session. On the loop's thread.
"""
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EBADF, ECONNRESET, EMSGSIZE, ENOBUFS, ENOTCONN
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from vppaio.reactor.session cimport Session, SessionHandler, SessionTable
from vppaio.transports.mss cimport would_be_split
from vppaio.vcl.address cimport address_of, fill_endpoint
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    VCL_TRAP_DATAGRAM_EVENTS,
    VCL_TRAP_FIN_EXPIRES,
    vcl_endpoint,
)

from vppaio.vcl.errors import check

READABLE = EPOLLIN
WRITABLE = EPOLLOUT

cdef double LOOK_AGAIN_READ_S = 0.05  # VPP's datagram sessions do not announce all, see transports.datagram
cdef double LOOK_AGAIN_WRITE_S = 0.001
cdef double LOOK_AT_HALF_OPEN_S = 0.25


def closed_error(SessionTable worker):
    """What a socket raises whose session is closed."""
    why = "" if worker.index >= 0 else ": its session ended with its event loop, which is closed; connect a new socket"
    return OSError(EBADF, os.strerror(EBADF) + why)


cdef class SocketIO(SessionHandler):
    """The input and output of one session."""

    cdef Session session
    cdef dict waiters  # future: what it waits for; it leaves when it is done
    cdef bytearray kept  # read already, for who asks next
    cdef bint datagram
    cdef bint starved  # the last write found no memory for the FIFO, and nothing will tell when there is
    cdef bint ended  # what is kept is the rest, and `end` comes behind it: 0, or the error
    cdef int end

    def __cinit__(self, Session session, bint datagram, bint listening):
        self.session = session
        self.datagram = datagram
        self.waiters = {}
        self.kept = bytearray()
        session.watch(self, EPOLLIN if listening else EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)
        if not listening:
            self._hung_up()  # perhaps: who watched before may have heard of it, or nobody did

    cdef int on_events(self, uint32_t events) except -1:
        cdef uint32_t wanted
        if events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP):
            events |= EPOLLIN | EPOLLOUT
            self._hung_up()
        for future, wanted in self.waiters.items():
            if wanted & events:
                _wake(future)
        return 0

    cdef int _hung_up(self) except -1:
        """The peer has closed its side."""
        cdef Session session = self.session
        cdef int n = 1
        if self.datagram or self.ended or not session.ops.traps & VCL_TRAP_FIN_EXPIRES:
            return 0
        session.rearm()  # VCL clears the mask when it tells of the end, and a writer waits for EPOLLOUT
        while n > 0:  # the FIFO's size bounds it, because a FIN comes behind its bytes
            n = session.ops.session_read(session.handle, session.worker.buffer, session.worker.buffer_size)
            if n > 0:
                self.kept += session.worker.buffer[:n]
        self.ended = n != -EAGAIN
        self.end = n
        return 0

    def take_kept(self):
        """What was read and not asked for, for a transport that goes on with the session."""
        kept, self.kept = bytes(self.kept), bytearray()
        self.session.worker.n_read_bytes += len(kept)
        return kept

    @property
    def waiting(self):
        """How many wait."""
        return len(self.waiters)

    def wait(self, loop, uint32_t events):
        """A future that is done when trying again makes sense. Cancel it freely."""
        cdef double delay = 0
        future = loop.create_future()
        self.waiters[future] = events
        future.add_done_callback(self.waiters.pop)
        if self.datagram and self.session.ops.traps & VCL_TRAP_DATAGRAM_EVENTS:
            delay = LOOK_AGAIN_READ_S if events == EPOLLIN else LOOK_AGAIN_WRITE_S
        elif events == EPOLLOUT and self.starved:
            delay = LOOK_AGAIN_WRITE_S
        elif events == EPOLLOUT and self.ended:
            delay = LOOK_AT_HALF_OPEN_S  # VPP does not say when it gives the connection up
        if delay:
            timer = loop.call_later(delay, _wake, future)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    cdef int _take(self, void *buffer, size_t size) noexcept:
        """Read into `buffer`, from what was kept first."""
        cdef size_t n = min(size, <size_t> len(self.kept))
        if n:
            memcpy(buffer, PyByteArray_AS_STRING(self.kept), n)
            del self.kept[:n]
            return <int> n
        if self.ended:
            return self.end
        return self.session.ops.session_read(self.session.handle, buffer, size)

    cdef int _read(self, int n, str call) except -1:
        """Check and count a read."""
        if n == -EAGAIN:
            self.session.worker.n_read_blocked += 1
        elif n == -EBADF:
            raise closed_error(self.session.worker)
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
        elif n == -ENOTCONN and self.ended and self.end == 0:
            n = -ECONNRESET  # it was connected, until VPP gave the half-closed connection up
        elif n == -EBADF:
            raise closed_error(self.session.worker)
        check(n, call, detail, stack=self.session.stack)
        self.session.worker.n_written_bytes += n
        return n

    def recv(self, Py_ssize_t size):
        # By way of the worker's buffer: a large bytes object for each read costs more than copying the little that came.
        cdef Session session = self.session
        cdef size_t room = min(<size_t> size, session.worker.buffer_size)
        cdef int n = self._take(session.worker.buffer, room)
        return PyBytes_FromStringAndSize(session.worker.buffer, self._read(n, "recv"))

    def recv_into(self, buffer):
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        cdef int n = self._take(view.buf, <size_t> view.len)
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
        cdef vcl_endpoint *to = NULL if address is None else &target
        cdef int n = -EMSGSIZE
        if address is not None and not (isinstance(address, tuple) and len(address) > 1):
            raise TypeError(f"sendto: the address has to be a (host, port) tuple, not {address!r}")
        if address is not None and not fill_endpoint(
            &target, address[0], address[1], address[3] if len(address) > 3 else 0
        ):
            raise ValueError(f"not an IP address: {address[0]!r}")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if not would_be_split(self.session, view.len, to):
            n = self.session.ops.session_sendto(self.session.handle, view.buf, <size_t> view.len, to)
        PyBuffer_Release(&view)
        return self._written(n, "sendto", str(address))

    def accept(self):
        """The next connection's session and peer address."""
        cdef vcl_endpoint peer
        cdef int error = 0
        cdef Session session = self.session.accept(&peer, &error)
        if error == -EBADF:
            raise closed_error(self.session.worker)
        if session is None:
            check(error, "accept")
        return session, address_of(&peer)


def _wake(future):
    if not future.done():
        future.set_result(None)
