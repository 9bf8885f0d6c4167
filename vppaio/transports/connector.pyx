"""Connector: waits for the result of one connect.

Made by loop.connect; asks reactor.session. On the loop's thread.
"""
import errno
import time

from libc.errno cimport EINPROGRESS

from vppaio.vcl.address cimport fill_endpoint
from vppaio.vcl.ops cimport EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, vcl_endpoint

from vppaio.vcl.errors import connect_error, os_error


cdef class Connector(SessionHandler):
    """Waits for the result of a connect.

    Args:
        session: connecting, not yet watched. Watched earlier, a bound datagram session would tell that it can be
            written, which is not the answer to the connect.
        future: gets None, or the OSError that names `address`.
        address: for the message.
    """

    def __cinit__(self, Session session, future, address):
        self.session = session
        self.future = future
        self.address = address
        self.started = time.monotonic()
        session.connecting = True
        session.watch(self, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)

    cdef int on_events(self, uint32_t events) except -1:
        cdef Session session = self.session
        cdef int rv
        if not session.connecting:
            return 0
        rv = session.ops.session_connect_result(session.handle, events)
        if rv == -EINPROGRESS:
            return 0
        session.connecting = False
        if self.future.done():
            return 0
        if rv == 0:
            self.future.set_result(None)
        else:
            self.future.set_exception(connect_error(-rv, time.monotonic() - self.started, self.address))
        return 0

    cdef int on_lost(self) except -1:
        self.session.connecting = False
        if not self.future.done():
            self.future.set_exception(ConnectionResetError(
                errno.ECONNRESET, f"VPP went away while connecting to {self.address}"))
        return 0


def connect(Session session, str host, int port, unsigned int scope_id, future):
    """Start connecting; `future` gets the result. VCL: vppcom_session_connect."""
    cdef vcl_endpoint endpoint
    if not fill_endpoint(&endpoint, host, port, scope_id):
        raise ValueError(f"not an IP address: {host!r}")
    cdef int rv = session.ops.session_connect(session.handle, &endpoint)
    if rv == -errno.ENOMEM:
        raise os_error(rv, "connect", str((host, port)), stack=session.stack)
    if rv < 0 and rv != -EINPROGRESS:
        raise connect_error(-rv, 0, (host, port))
    Connector.__new__(Connector, session, future, (host, port))
