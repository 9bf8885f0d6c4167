"""DatagramTransport: asyncio's datagram endpoint on a UDP session.

The rules are those of asyncio.selector_events._SelectorDatagramTransport: a datagram is sent at once or waits in the
backlog whole; errors of sending and receiving go to `error_received`, and the endpoint lives on.

VPP's UDP differs in ways that the table names as traps (vcl_ops.h, docs/vpp.md 6), answered here:

- EAGAIN on send is never followed by EPOLLOUT, and an empty datagram in the rx FIFO silences the session until a
  further one is queued and somebody looks. Both are answered by a timer: soon after EAGAIN on send or an event that brought
  nothing, with growing pauses up to a second on an idle endpoint.
- A datagram above the MSS would be split: EMSGSIZE instead.
- An empty datagram would not be sent, and one from a wildcard address would be lost: the table refuses them, and the
  protocol gets the error.
- ICMP unreachable ends a connected session. The protocol gets ConnectionRefusedError, as on the kernel, and a fresh
  session takes over.
"""
import asyncio
import collections
import errno
import socket
import sys
from asyncio.log import logger

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINPROGRESS, EMSGSIZE, ENOTCONN
from libc.string cimport memcmp, memcpy

from vppaio.reactor.session cimport Session
from vppaio.transports.base cimport SessionTransport
from vppaio.transports.mss cimport would_be_split
from vppaio.vcl.address cimport address_of, fill_endpoint
from vppaio.vcl.ops cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_PROTO_UDP,
    VCL_TRAP_DATAGRAM_DIES,
    VCL_TRAP_DATAGRAM_EVENTS,
    vcl_endpoint,
)

from vppaio.transports import destination
from vppaio.vcl.errors import os_error

cdef enum:
    READS_PER_TURN = 32
    LOG_THRESHOLD = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
    # asyncio counts each datagram's header from 3.13 on, so that a flood of empty ones is flow-controlled too.
    HEADER_SIZE = 8

cdef double RETRY_S = 0.001  # after EAGAIN on send
cdef double SUSPICIOUS_S = 0.01  # after an event that brought nothing
cdef double IDLE_S = 1.0
cdef int SUSPICIOUS_LOOKS = 200
cdef bint SENDS_EMPTY = sys.version_info >= (3, 13)


cdef inline bint _is_plain(object address) except -1:
    """Whether it is what most addresses are: a pair of text and number, which nobody can change or replace by equals."""
    return type(address) is tuple and len(address) == 2 and type(address[0]) is str and type(address[1]) is int


class _Facade(asyncio.transports._FlowControlMixin, asyncio.DatagramTransport):
    """What `isinstance` sees, see transports.stream."""


cdef class DatagramTransport(SessionTransport):
    """A UDP endpoint.

    Args:
        loop: the event loop.
        session: bound or connected, not yet watched.
        protocol: an asyncio.DatagramProtocol; its `connection_made` is called soon.
        address: the remote address, if there is only one.
        waiter: a future that gets a result after `connection_made`.
        extra: initial extra information.
        sock: the socket object of the session.
    """

    max_size = 256 * 1024

    def __cinit__(self, loop, Session session, protocol, address=None, waiter=None, extra=None, sock=None):
        self.remote = address
        self.begin(session, loop, protocol, waiter, extra, None, sock)
        name = self.get_extra_info("sockname")  # now: VCL overwrites it with every datagram's
        self.is_ip4 = name is None or len(name) == 2
        self.peer = self.get_extra_info("peername")  # None with a remote address for broadcasts: not connected

    def _start_reading(self):
        SessionTransport._start_reading(self)
        if self.session.ops.traps & VCL_TRAP_DATAGRAM_EVENTS:
            self._look_again(SUSPICIOUS_S)

    @property
    def __class__(self):
        return _Facade

    @property
    def _address(self):
        return self.remote

    cdef int handle(self, uint32_t events) except -1:
        if self.finished or self.closing and not self.backlog_size:
            return 0
        if self.reviving:
            return self._revived(events)
        if events & EPOLLOUT and self.backlog_size:
            self._flush()
        if events & (EPOLLERR | EPOLLHUP) and self.session.ops.traps & VCL_TRAP_DATAGRAM_DIES and self.peer:
            self.protocol.error_received(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
            self._revive()
        elif events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP) and not self.paused:
            if self._read_ready():
                self.looks_left = 0
            elif self.timer_delay:  # an event that brought nothing: is there an empty datagram in the way?
                self.looks_left = SUSPICIOUS_LOOKS
        return 0

    # ---- inbound ------------------------------------------------------------------------------------------------

    cdef int _read_ready(self) except -1:
        """Read until nothing is left; returns how many datagrams there were."""
        cdef Session session = self.session
        cdef vcl_endpoint source
        cdef int n, rounds
        for rounds in range(READS_PER_TURN):
            if self.paused or self.closing or session.closed or session.worker.turn == self.resumed_at:
                return rounds
            n = session.ops.session_recvfrom(session.handle, session.worker.buffer, session.worker.buffer_size, &source)
            if n == -EAGAIN or n == -ENOTCONN:
                session.worker.n_read_blocked += 1
                if session.ops.traps & VCL_TRAP_DATAGRAM_EVENTS:
                    self._look_again(SUSPICIOUS_S)
                return rounds
            if n < 0:
                self.protocol.error_received(os_error(n, "recvfrom"))
                if self.finished:
                    return rounds
                continue
            session.worker.n_read_bytes += n
            if self.from_address is None or memcmp(&source, &self.from_endpoint, sizeof(source)) != 0:
                memcpy(&self.from_endpoint, &source, sizeof(source))
                self.from_address = address_of(&source)
            self._deliver(PyBytes_FromStringAndSize(session.worker.buffer, n), self.from_address)
        session.again(EPOLLIN)
        return READS_PER_TURN

    def _deliver(self, data, address):
        try:
            self.protocol.datagram_received(data, address)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            # asyncio has it the same way: the callback fails, the endpoint lives.
            self._report("Exception in callback datagram_received()", exc)

    cdef int _look_again(self, double delay) except -1:
        """Read, or send, after `delay` seconds even if nothing is announced."""
        if self.timer is not None:
            if delay >= self.timer_delay:
                return 0
            self.timer.cancel()
        self.timer_delay = delay
        self.timer = self._loop.call_later(delay, self._on_timer)
        return 0

    def _on_timer(self):
        cdef double delay = self.timer_delay
        cdef int looks_left = self.looks_left
        self.timer = None
        if self.finished or self.session.closed:
            return
        if self.reviving:  # the fresh session would refuse; _revived sends what waits
            self._look_again(SUSPICIOUS_S)
            return
        if self.backlog_size:
            self._flush()
        if not self.paused and not self.closing and self._read_ready():
            looks_left = 0
            delay = 0
        self.looks_left = max(looks_left - 1, 0)
        if not self.finished:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            if self.backlog_size:
                self._look_again(RETRY_S)
            elif looks_left:
                self._look_again(SUSPICIOUS_S)
            else:
                self._look_again(min(max(delay * 2, SUSPICIOUS_S), IDLE_S))

    # ---- outbound -----------------------------------------------------------------------------------------------

    def sendto(self, data, addr=None):
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if not data and not SENDS_EMPTY:
            return
        if self.remote:
            if addr not in (None, self.remote):
                raise ValueError(f"Invalid address: must be None or {self.remote}")
            if self.lost_writes:
                if self.lost_writes >= LOG_THRESHOLD:
                    logger.warning("socket.send() raised exception.")
                self.lost_writes += 1
                return
            addr = self.remote
        if self.finished:
            return
        if not self.backlog_size and not self.reviving:
            if self._send(data, addr):
                return
        if self.backlog is None:
            self.backlog = collections.deque()
        # A copy, since the caller may change its buffer as soon as we return.
        self.backlog.append((bytes(data), addr))
        self.backlog_size += len(data) + HEADER_SIZE
        self.maybe_pause_protocol()
        if self.session.ops.traps & VCL_TRAP_DATAGRAM_EVENTS:
            self._look_again(RETRY_S)

    cdef int _send(self, object data, object address) except 1:
        """Offer one datagram: -1 it is gone (or its error was reported), 0 the FIFO has no room."""
        cdef Session session = self.session
        cdef Py_buffer view
        cdef const vcl_endpoint *to
        cdef int n
        if self.peer:
            address = None  # as asyncio, which calls send then
        to = NULL if self.peer else &self.to_endpoint
        if not self.peer and self._resolve(address) < 0:
            return -1
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except BufferError as exc:  # a memoryview with steps
            self._fatal_error(exc, "Fatal write error on datagram transport")
            return -1
        if would_be_split(session, view.len, to):
            n = -EMSGSIZE
        else:
            n = session.ops.session_sendto(session.handle, view.buf, <size_t> view.len, to)
        PyBuffer_Release(&view)
        if n >= 0:
            session.worker.n_written_bytes += n
            return -1
        if n == -EAGAIN:
            session.worker.n_write_blocked += 1
            return 0
        self.protocol.error_received(os_error(n, "sendto", str(address or self.peer), stack=session.stack))
        return -1

    cdef int _resolve(self, object address) except -1:
        """Fill `to_endpoint`; -2 if that failed, and was told."""
        if self.to_address is not None:
            if address is self.to_address or _is_plain(address) and address == self.to_address:
                return 0
        self.to_address = None
        if (_is_plain(address) and 0 <= address[1] <= 65535 and fill_endpoint(&self.to_endpoint, address[0], address[1], 0)
                and self.to_endpoint.is_ip4 == self.is_ip4):
            self.to_address = address  # datagrams come in rows; a name is looked up for each of them
            return 0
        try:
            host, port, scope = destination.numeric(address, socket.AF_INET if self.is_ip4 else socket.AF_INET6)
            fill_endpoint(&self.to_endpoint, host, port, scope)
        except OSError as exc:
            self.protocol.error_received(exc)
            return -2
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on datagram transport")
            return -2
        return 0

    cdef int _flush(self) except -1:
        """Send the backlog until it is empty or the FIFO has no room."""
        while self.backlog:
            data, address = self.backlog[0]
            if not self._send(data, address):
                break
            if not self.backlog:  # the protocol closed us in error_received
                return 0
            self.backlog.popleft()
            self.backlog_size -= len(data) + HEADER_SIZE
        self.maybe_resume_protocol()
        if not self.backlog_size and self.closing and not self.lost_writes:
            self._call_connection_lost(None)
        return 0

    # ---- VPP: a connected session that died ----------------------------------------------------------------------

    def _revive(self):
        """A fresh session between the same two addresses."""
        cdef Session old = self.session
        cdef Session fresh
        cdef vcl_endpoint remote
        if self.finished or self.closing:
            return
        fill_endpoint(&remote, self.peer[0], self.peer[1], 0)
        local = self.get_extra_info("sockname")
        old.close()
        try:
            fresh = old.worker.create(VCL_PROTO_UDP, remote.is_ip4)
            self.session = fresh
            if local:
                fresh.bind(local[0], local[1])
        except OSError as exc:
            self._fatal_error(exc, "Fatal error on datagram transport")
            return
        cdef int rv = fresh.ops.session_connect(fresh.handle, &remote)
        # Watched only now: before its connect a bound session can be written, and says so.
        self.reviving = fresh.connecting = rv == -EINPROGRESS
        fresh.watch(self, EPOLLIN | EPOLLOUT | EPOLLRDHUP)
        if rv < 0 and rv != -EINPROGRESS:
            self._fatal_error(os_error(rv, "connect", str(self.peer)), "Fatal error on datagram transport")

    def _revived(self, uint32_t events):
        cdef int rv = self.session.ops.session_connect_result(self.session.handle, events)
        if rv == -EINPROGRESS:
            return 0
        self.reviving = self.session.connecting = False
        if rv < 0:
            self._fatal_error(os_error(rv, "connect", str(self.peer)), "Fatal error on datagram transport")
        else:
            self._flush()
        return 0

    def _release(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        SessionTransport._release(self)
