"""Listener: hears of new connections and hands each accepted session up.

It accepts until the queue is empty, at most a backlog's worth per turn, as asyncio does; when descriptors or memory run
out it pauses for a second and says so. When its stack was lost and is back, it listens again.

Made by loop.serve; asks reactor.session. On the loop's thread.
"""
import errno
import logging
from asyncio import constants, trsock

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from libc.errno cimport EAGAIN, ECONNABORTED

from vppaio.vcl.address cimport address_of
from vppaio.vcl.ops cimport EPOLLIN, vcl_endpoint

from vppaio.transports.pseudosocket import SessionSocket
from vppaio.vcl.errors import os_error

logger = logging.getLogger("vppaio")
cdef double MIN_RETRY_S = 0.05, MAX_RETRY_S = 1.0

_RESOURCE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


cdef class Listener(SessionHandler):
    """Accepts connections on a listening session.

    Args:
        loop: the event loop.
        session: listening, not yet watched.
        sock: the socket object to name in errors.
        on_connection: called with each accepted session and its peer's address.
        backlog: most connections accepted in one turn.
        reopen: called when the stack is back after it was lost; returns a fresh listening session, or raises OSError.
        give_up: called soon after the stack was lost where there is no `reopen`.
    """

    owns_session = True  # see transports.base

    def __cinit__(self, loop, Session session, sock, on_connection, int backlog, reopen=None, give_up=None):
        self.loop = loop
        self.session = session
        self.sock = sock
        self.on_connection = on_connection
        self.accepts_per_turn = max(backlog, 1)
        self.reopen = reopen
        self.give_up = give_up
        self.context = PyContext_CopyCurrent()
        try:
            session.mark_listening()
            session.watch(self, EPOLLIN)
        except BaseException:  # no memory; the session has the descriptor, and nobody has the session
            session.close()
            sock.detach()
            raise
        session.again(EPOLLIN)  # who came before we watched is not announced

    def close(self):
        """Stop accepting; queued connections are refused. Idempotent."""
        self.closed = True
        if self.retry_handle is not None:
            self.retry_handle.cancel()
            self.retry_handle = None
        self.session.close_with(self.sock)

    cdef int on_events(self, uint32_t events) except -1:
        PyContext_Enter(self.context)
        try:
            self._accept()
        finally:
            PyContext_Exit(self.context)
        return 0

    cdef int _accept(self) except -1:
        cdef vcl_endpoint peer
        cdef Session session
        cdef int error = 0
        cdef int n
        if self.retry_handle is not None:
            return 0
        for n in range(self.accepts_per_turn):
            if self.session.closed:
                return 0
            session = self.session.accept(&peer, &error)
            if session is not None:
                # In the next turn, as asyncio, which makes a task for it.
                self.loop.call_soon(self._introduce, session, address_of(&peer))
            elif error == -EAGAIN:
                return 0
            elif error != -ECONNABORTED:
                return self._refused(os_error(error, "accept", stack=self.session.stack))
        # The backlog was used up, so there may be more: next turn.
        self.session.again(EPOLLIN)
        return 0

    def _introduce(self, Session session, peer):
        if session.worker.lost:
            session.close()  # meanwhile, and nobody has heard of it yet
            return
        try:
            self.on_connection(session, peer)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            session.close()
            if not self.closed:  # else the server was, and asyncio says nothing either
                self.loop.call_exception_handler({
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                })

    def _refused(self, exc):
        """Accepting failed: out of resources, wait for some; anything else is news."""
        if exc.errno in _RESOURCE_ERRORS:
            # The connections wait in the stack's queue meanwhile.
            message = "socket.accept() out of system resource"
            self.retry_handle = self.loop.call_later(constants.ACCEPT_RETRY_DELAY, self._retry)
        else:
            message = "Accepting connections failed"
        self.loop.call_exception_handler({
            "message": message,
            "exception": exc,
            "socket": trsock.TransportSocket(self.sock),
        })
        return 0

    def _retry(self):
        self.retry_handle = None
        if not self.session.closed:
            self.session.again(EPOLLIN)

    cdef int on_lost(self) except -1:
        if self.reopen is not None:
            self.session.worker.wait_restored(self)
        elif self.give_up is not None:
            self.loop.call_soon(self.give_up)
        self.session.close()
        return 0

    cdef int on_restored(self) except -1:
        self._reopen()
        return 0

    cdef int on_closing(self) except -1:
        # The socket is its owner's: as in asyncio, the end of a loop closes none.
        if isinstance(self.sock, SessionSocket):
            self.sock.kernel_socket = None
            self.session.close_with(self.sock)
        else:
            self.session.give_back()
        self.on_connection = self.reopen = self.give_up = None
        return 0

    def _reopen(self):
        """Listen again on a fresh session; VPP's addresses may not be configured yet, so keep trying."""
        self.retry_handle = None
        if self.closed:
            return
        if self.session.worker.lost:  # again, before it could serve
            self.session.worker.wait_restored(self)
            return
        try:
            self.session = self.reopen()
            self.session.mark_listening()
            self.session.watch(self, EPOLLIN)
        except OSError as exc:
            self.session.close()
            self.retry_s = min(2 * self.retry_s, MAX_RETRY_S) if self.retry_s else MIN_RETRY_S
            # Once; every further try is for who looks closely.
            level = logging.WARNING if self.retry_s == MIN_RETRY_S else logging.DEBUG
            self._log(level, "listener waiting", f' retry_s={self.retry_s:g} error="{exc}"')
            self.retry_handle = self.loop.call_later(self.retry_s, self._reopen)
            return
        self.session.again(EPOLLIN)
        self.retry_s = 0
        self._log(logging.INFO, "listener serving")

    def _log(self, level, what, more=""):
        host, port = self.sock.getsockname()[:2]
        logger.log(level, "%s stack=%s address=%s port=%d%s", what, self.session.stack, host, port, more)
