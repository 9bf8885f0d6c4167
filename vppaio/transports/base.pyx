"""SessionTransport: what a stream and a datagram transport have in common.

Life (begin -> opened -> closing -> connection_lost, once), flow control, extra information, and the context in which the
protocol is called. The rules are those of asyncio.selector_events._SelectorTransport and transports._FlowControlMixin.

asyncio introduces a transport in one turn of the loop and starts to read in the next. So a task that `connection_made`
started, and whoever waited for the connection and then calls `set_protocol`, goes on before the first data. A session is
watched from birth, and its events may come in any turn: those that come before the second of the two are kept for it.

Base of transports.stream and transports.datagram; knows its session (reactor.session). On the loop's thread.
"""
import asyncio
import collections
import errno
import math
import socket
import sys
import warnings
from asyncio import trsock
from asyncio.futures import _set_result_unless_cancelled
from asyncio.log import logger

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from libc.stdint cimport uint32_t

from vppaio.vcl.ops cimport EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

from vppaio.transports.pseudosocket import SessionSocket

cdef object is_finalizing = sys.is_finalizing  # the module's names are None when it is asked

cdef object MOST_BYTES = sys.maxsize

cdef enum:
    DEFAULT_HIGH_WATER = 64 * 1024


cdef class SessionTransport(SessionHandler):

    owns_session = True  # its socket object does not close it when nobody has that any more

    cdef int begin(self, Session session, object loop, object protocol, object waiter, object extra, object server,
                   object sock) except -1:
        """Take over the session; the protocol hears of it soon."""
        self._loop = loop
        self.session = session
        self.sock = sock
        self.server = server
        self.extra = {} if extra is None else extra
        self.context = PyContext_CopyCurrent()
        self.high_water = DEFAULT_HIGH_WATER
        self.low_water = DEFAULT_HIGH_WATER // 4
        self.set_protocol(protocol)
        try:
            session.watch(self, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)
            if server is not None:
                server._attach(self)
        except BaseException:  # no memory, or the server is closed; the session has the descriptor, and nobody has it
            self.finished = True
            self.server = None
            session.close()
            if sock is not None:
                sock.detach()
            raise
        # asyncio's three, in asyncio's order.
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start_reading)
        if waiter is not None:
            loop.call_soon(_set_result_unless_cancelled, waiter, None)
        return 0

    def _start_reading(self):
        """From the next turn on."""
        self.opens_at = self.session.worker.turn + 1
        self.session.again(EPOLLIN)

    cdef bint is_early(self, uint32_t *events):
        """Whether `events` come before reading starts, and are kept; once it does, they become all that came."""
        events[0] |= self.early
        self.opened = self.opens_at != 0 and self.session.worker.turn >= self.opens_at
        self.early = 0 if self.opened else events[0]
        return not self.opened

    def __repr__(self):
        info = [type(self).__name__]
        if self.session is None or self.finished:
            info.append("closed")
        else:
            if self.closing:
                info.append("closing")
            info.append(f"stack={self.session.stack}")
            info.append(f"session={self.session.handle:#x}")
            info.append("read=paused" if self.paused else "read=on")
            info.append(f"write=<{'polling' if self.backlog_size else 'idle'}, bufsize={self.backlog_size}>")
        return f"<{' '.join(info)}>"

    def __del__(self):
        if self.session is None or self.finished:
            return
        try:
            try:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            finally:  # also where warnings are errors
                self._release()
                self._detach_from_server()
        except Exception:
            # Python is taking its modules apart, and their names are None. The stack hears of the end from the process's.
            if not is_finalizing():
                raise

    # ---- news from the session ----------------------------------------------------------------------------------

    cdef int on_events(self, uint32_t events) except -1:
        cdef object context = self.context
        if not self.opened and self.is_early(&events):
            return 0
        PyContext_Enter(context)
        try:
            self.handle(events)
        except BaseException as exc:
            # Something may be left to read, and this was its only event.
            if not self.session.closed:
                self.session.again(EPOLLIN)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            # What asyncio's Handle does for a callback that fails, such as connection_lost().
            self._report(f"Exception in callback of {self!r}", exc)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int on_lost(self) except -1:
        self._fatal_error(
            ConnectionResetError(errno.ECONNRESET, "VPP went away, and the connection with it"),
            "Fatal error: VPP went away",
        )
        return 0

    cdef int on_closing(self) except -1:
        # Without connection_lost: no loop is there to call it.
        self.closing = True
        self.lost_writes += 1
        if self.sock is None:
            self._release()
        elif isinstance(self.sock, SessionSocket):
            self.sock.kernel_socket = None  # as below
            self._release()
        else:
            # As in asyncio a loop's end closes no socket: its owner may go on with it. Otherwise it ends with us.
            self._keep_names()
            self.session.give_back()
        return 0

    cdef int handle(self, uint32_t events) except -1:
        """Act on events; called in the transport's context."""
        raise NotImplementedError("handle")

    # ---- flow control -------------------------------------------------------------------------------------------

    def is_reading(self):
        return not self.closing and not self.paused

    def pause_reading(self):
        if not self.is_reading():
            return
        self.paused = True
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self):
        if self.closing or not self.paused:
            return
        self.paused = False
        # asyncio's pause_reading cancels what this turn would have read, so it is the next one's.
        self.resumed_at = self.session.worker.turn
        self.session.again(EPOLLIN)
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)

    def get_write_buffer_size(self):
        return self.backlog_size

    def get_write_buffer_limits(self):
        return (self.low_water, self.high_water) if self.limits is None else self.limits

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = DEFAULT_HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.limits = (low, high)  # as they were given: asyncio takes any numbers
        self.high_water = <Py_ssize_t> math.floor(min(MOST_BYTES, high))
        self.low_water = <Py_ssize_t> math.floor(min(MOST_BYTES, low))
        self.maybe_pause_protocol()

    cdef int count_waiting(self) except -1:
        """See that the worker's count of waiting writers is right."""
        cdef bint waits = self.backlog_size > 0
        if waits != self.waits:
            self.waits = waits
            self.session.worker.count_waiting(1 if waits else -1)
        return 0

    cdef int maybe_pause_protocol(self) except -1:
        self.count_waiting()
        if self.backlog_size > self.high_water and not self._protocol_paused:
            self._protocol_paused = True
            self._tell_protocol("pause_writing")
        return 0

    cdef int maybe_resume_protocol(self) except -1:
        self.count_waiting()
        if self._protocol_paused and self.backlog_size <= self.low_water:
            self._protocol_paused = False
            self._tell_protocol("resume_writing")
        return 0

    def _tell_protocol(self, name):
        try:
            getattr(self.protocol, name)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(f"protocol.{name}() failed", exc)

    def _report(self, message, exc):
        self._loop.call_exception_handler({
            "message": message,
            "exception": exc,
            "transport": self,
            "protocol": self.protocol,
        })

    cdef int drop_backlog(self) except -1:
        if self.backlog is not None:
            self.backlog.clear()
        self.backlog_size = 0
        self.count_waiting()
        return 0

    # ---- protocol and extra information -------------------------------------------------------------------------

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def get_extra_info(self, name, default=None):
        if name in self.extra:
            return self.extra[name]
        if name in ("socket", "sockname", "peername") and self.session is not None:
            # Made when it is first asked for: most connections never are.
            self.extra[name] = value = self._look_up(name)
            return value
        return default

    def _look_up(self, name):
        if name == "socket":
            return trsock.TransportSocket(self._closed_socket() if self.session.closed else self._socket())
        try:
            if self.sock is not None:
                return self.sock.getsockname() if name == "sockname" else self.sock.getpeername()
            return self.session.local_address() if name == "sockname" else self.session.peer_address()
        except OSError:
            return None

    def _socket(self):
        """A socket object for the session: the kernel's where there is one."""
        if self.sock is None:
            fd = self.session.fileno()
            if fd >= 0:
                self.sock = socket.socket(fileno=fd)
                self.sock.setblocking(False)  # the descriptor is; now the object knows
            else:
                self.sock = SessionSocket.of(self.session, socket.SOCK_STREAM)
        return self.sock

    def _closed_socket(self):
        """For who asks after the end: a socket object that says so, as the one that asyncio's transport had."""
        name = self.get_extra_info("sockname")
        family = socket.AF_INET6 if name is not None and len(name) == 4 else socket.AF_INET
        kind = socket.SOCK_DGRAM if isinstance(self, asyncio.DatagramTransport) else socket.SOCK_STREAM
        sock = socket.socket(family, kind)
        sock.close()
        return sock

    # ---- what programs look at although asyncio does not promise it; read-only ---------------------------------------

    @property
    def _protocol(self):
        return self.protocol
    @property
    def _server(self):
        return self.server
    @property
    def _extra(self):
        for name in ("socket", "sockname", "peername"):
            self.get_extra_info(name)
        return self.extra
    @property
    def _sock(self):
        return None if self.finished or self.session.closed else self._socket()
    @property
    def _sock_fd(self):
        sock = self._sock
        return -1 if sock is None else sock.fileno()
    @property
    def _buffer(self):
        """A copy of what waits to be sent."""
        return collections.deque(self.backlog or ())
    @property
    def _closing(self):
        return self.closing
    @property
    def _paused(self):
        return self.paused
    @property
    def _conn_lost(self):
        return self.lost_writes
    @property
    def _high_water(self):
        return self.get_write_buffer_limits()[1]
    @property
    def _low_water(self):
        return self.get_write_buffer_limits()[0]

    # ---- the end ------------------------------------------------------------------------------------------------

    def is_closing(self):
        return self.closing

    def close(self):
        if self.closing:
            return
        self.closing = True
        if not self.backlog_size:
            self.lost_writes += 1
            self._loop.call_soon(self._call_connection_lost, None)

    def abort(self):
        self._force_close(None)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=(type(exc), exc, exc.__traceback__))
        else:
            self._report(message, exc)
        self._force_close(exc)

    def _force_close(self, exc):
        if self.lost_writes:
            return
        self.drop_backlog()
        self.closing = True
        self.lost_writes += 1
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc):
        if self.finished:
            return
        self.finished = True
        # The end of a close that had something left to write comes here unannounced; the handle may soon be another's.
        if not self.lost_writes:
            self.lost_writes = 1
        try:
            self.protocol.connection_lost(exc)
        finally:
            self._release()
            self.protocol = None
            self._detach_from_server()

    def _detach_from_server(self):
        server, self.server = self.server, None
        if server is not None:
            server._detach(self)

    cdef int _keep_names(self) except -1:
        """The session is about to close, and the names stay known, as in asyncio's extra dict."""
        self.get_extra_info("sockname")
        self.get_extra_info("peername")
        return 0

    def _release(self):
        """Let go of session and socket."""
        if self.session is None:
            return
        self._keep_names()
        sock, self.sock = self.sock, None
        if sock is None:
            self.session.close()
        elif isinstance(sock, SessionSocket) and sock.leave():
            if self.session.handler is self:  # who goes on with it has not taken over yet
                self.session.handler = None
            sock.hand_over()
        else:
            self.session.close_with(sock)
