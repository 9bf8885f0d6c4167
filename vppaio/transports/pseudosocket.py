"""SessionSocket: what stands for a socket where the session has no descriptor.

asyncio's own code (Server, create_connection) and frameworks expect a socket object: its family, its names, a few
options. This one answers for a VPP session. Options that VCL stores are stored; VPP's TCP acts on none of them,
because it has neither Nagle's delay nor keepalive (docs/vpp.md 5.9). Options it does not know raise, as on a socket,
and at once: also while there is no session that could be asked.

Made by loop.serve and loop.connect, and by a transport that is asked for its socket.
"""

import errno
import os
import random
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from vppaio.reactor.session import TCP, UDP, Session, SessionTable
from vppaio.transports import destination, options
from vppaio.transports.socketcalls import SocketCalls
from vppaio.transports.socketio import SocketIO, closed_error

# vcl_ops.h
_TRAP_PORT_ZERO = 1 << 2

EPHEMERAL_PORTS = range(32768, 61000)  # Linux's own default range


class SessionSocket(SocketCalls):
    """A socket object on a session.

    Args:
        worker: whose stack it lives on.
        family: socket.AF_INET or AF_INET6.
        type: socket.SOCK_STREAM or SOCK_DGRAM.
    """

    def __init__(self, worker: SessionTable, family: int, type: int, session: Session | None = None) -> None:
        self.worker = worker
        self.family = socket.AddressFamily(family)
        self.type = socket.SocketKind(type)
        self.proto = socket.IPPROTO_TCP if type == socket.SOCK_STREAM else socket.IPPROTO_UDP
        self._session: Session | None = session
        self._bound: tuple[Any, ...] | None = None
        self._any_port = False
        self._options: dict[tuple[int, int], int] = {}
        self._io: SocketIO | None = None
        self._poll_fd = -1
        self._readable = False
        self._closed = False
        self._sharers: weakref.WeakSet[SessionSocket] | None = None  # this one and its duplicates, once it has some
        # A kernel socket that this one stands in for (loop.sockets); closed with it.
        self.kernel_socket: socket.socket | None = None

    @classmethod
    def of(cls, session: Session, type: int) -> "SessionSocket":
        """The socket object of an open session."""
        family = socket.AF_INET if len(session.local_address()) == 2 else socket.AF_INET6
        return cls(session.worker_, family, type, session)

    def __repr__(self) -> str:
        return (
            f"<vppaio.SessionSocket stack={self.worker.stack}, family={self.family!s}, type={self.type!s}"
            f"{', closed' if self._closed else ''}, laddr={self._bound}>"
        )

    @property
    def session(self) -> Session:
        """The session behind it, made when it is first needed.

        Raises:
            OSError: EBADF, it is closed.
        """
        self._require_open()
        if self._session is not None and self._session.closed:
            raise closed_error(self.worker)  # with its transport, another owner's, or with its loop
        if self._session is None:
            protocol = TCP if self.type == socket.SOCK_STREAM else UDP
            self._session = self.worker.create(protocol, self.family == socket.AF_INET)
            for option, value in self._options.items():
                self._apply(option, value)
        return self._session

    def _apply(self, option: tuple[int, int], value: int) -> None:
        if self.worker.has_option(*option):
            self.session.set_option(*option, value)

    def _require_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def fileno(self) -> int:
        """A descriptor: the kernel's, or on VPP one that is only good for polling, made when it is first asked for.

        It is readable once the peer has closed, or while data waits because reading is paused. Connection pools look
        for that before they use an idle connection again (httpcore). It is -1 after close.
        """
        if self._session is None or self._session.closed:
            return -1
        fd = self._session.fileno()
        if fd >= 0:
            return fd
        if self._poll_fd < 0:
            self._poll_fd = os.eventfd(int(self._readable), os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._poll_fd

    def set_readable(self, readable: bool) -> None:
        """What polling `fileno` is to say; the transport tells."""
        if readable == self._readable:
            return
        self._readable = readable
        if self._poll_fd >= 0:
            if readable:
                os.eventfd_write(self._poll_fd, 1)
            else:
                os.eventfd_read(self._poll_fd)

    def bind(self, address: tuple[Any, ...]) -> None:
        """Bind to a numeric address. VCL: vppcom_session_bind; of a stream socket `listen` checks it.

        Raises:
            OSError: EINVAL, it is bound, listens or is connected; of others what the kernel says.
        """
        self._any_port = bool(address[1] == 0 and self.worker.traps & _TRAP_PORT_ZERO)
        if not self._any_port:
            self.session.bind(*host_port_scope(address))
            self._bound = tuple(address) if address[1] else self.session.local_address()
            return

        self._retry_ports(lambda: self._bind_somewhere(address))

    def _bind_somewhere(self, address: tuple[Any, ...]) -> None:
        bound = (address[0], random.choice(EPHEMERAL_PORTS), *address[2:])
        self.session.bind(*host_port_scope(bound))
        self._bound = bound

    def listen(self, backlog: int = 128) -> None:
        """Start to accept. Listening sockets stay as they are. VCL: vppcom_session_listen.

        Raises:
            OSError: EADDRINUSE, EADDRNOTAVAIL; EINVAL, it is connected or connecting.
        """
        if self._bound is None:
            self.bind(("0.0.0.0" if self.family == socket.AF_INET else "::", 0))
        if not self._any_port:
            self.session.listen(backlog)
            return

        def listen() -> None:
            assert self._bound is not None
            try:
                self.session.listen(backlog)
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    self.abandon()
                    self._bind_somewhere(self._bound)
                raise

        self._retry_ports(listen)

    @staticmethod
    def _retry_ports(attempt: Callable[[], None]) -> None:
        """Ports chosen by us may be in use: try others."""
        for tries_left in reversed(range(64)):
            try:
                attempt()
                return
            except OSError as exc:
                if not tries_left or exc.errno != errno.EADDRINUSE:
                    raise

    def reopen(self, backlog: int) -> Session:
        """Listen on the same address with a fresh session, after the stack was lost."""
        self._session = None
        assert self._bound is not None
        try:
            self.bind(self._bound)
            self.listen(backlog)
        except OSError:
            self.abandon()
            raise
        return self.session

    def getsockname(self) -> tuple[Any, ...]:
        """Where it is bound: ("0.0.0.0", 0) before. VCL: vppcom_session_attr."""
        self._require_open()
        if self._bound is not None:
            return self._bound  # VCL overwrites a datagram session's own address with that of the last datagram
        if self._session is None:
            return ("0.0.0.0", 0) if self.family == socket.AF_INET else ("::", 0, 0, 0)
        return self._session.local_address()

    def getpeername(self) -> tuple[Any, ...]:
        """Where it is connected to. VCL: vppcom_session_attr.

        Raises:
            OSError: ENOTCONN, it is not.
        """
        self._require_open()
        if self._session is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self._session.peer_address()

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """An option's number; with `buflen` as so many bytes. VCL: vppcom_session_attr.

        Raises:
            OSError: ENOPROTOOPT, the stack does not know the option.
        """
        self._require_open()
        if (level, option) in self._options:
            value = self._options[level, option]
        else:
            value = self.session.get_option(level, option)
        return value.to_bytes(4, "little")[:buflen] if buflen else value

    def setsockopt(self, level: int, option: int, value: int | bytes | None, optlen: int = 0) -> None:
        """Set an integer option. VCL: vppcom_session_attr.

        Raises:
            OSError: ENOPROTOOPT, the stack does not know the option.
        """
        self._require_open()
        key = (level, option)
        if key == options.LINGER or not (key in options.WITHOUT_EFFECT or self.worker.has_option(level, option)):
            cure = "; use the transport's abort()" if key == options.LINGER else ""
            name = options.name(level, option)
            raise OSError(errno.ENOPROTOOPT, f"Protocol not available: sessions have no {name}{cure}")
        number = options.as_number(level, option, value)
        self._apply(key, number)
        self._options[key] = number

    @property
    def io(self) -> SocketIO:
        """The session's input and output, for sock_*."""
        if self._io is None:
            listening = bool(self.session.get_option(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            self._io = SocketIO(self.session, self.type == socket.SOCK_DGRAM, listening)
        return self._io

    def sendto(self, data: Any, address: tuple[Any, ...] | None) -> int:
        """Send a datagram; returns its bytes. None stands for the peer of a connected one. VCL: vppcom_session_sendto.

        Raises:
            BlockingIOError: there is no room.
            OSError: EMSGSIZE, it is too large for VPP.
        """
        if address is not None:
            host, port, scope = destination.numeric(address, self.family)
            address = (host, port, 0, scope)
        if self.type == socket.SOCK_DGRAM and self._bound is None and not self._has_peer():
            # VCL destroys an unbound session that sends; the kernel binds it on the fly, and so do we.
            mapped = address is not None and str(address[0]).lower().startswith("::ffff:")
            self.bind(("0.0.0.0" if self.family == socket.AF_INET else "::ffff:0.0.0.0" if mapped else "::", 0))
        return self.io.sendto(data, address)

    def _has_peer(self) -> bool:
        try:
            self.getpeername()
        except OSError:
            return False
        return True

    def accept(self) -> tuple["SessionSocket", tuple[Any, ...]]:
        """The next connection and its peer's address. VCL: vppcom_session_accept.

        Raises:
            BlockingIOError: there is none.
        """
        session, address = self.io.accept()
        return SessionSocket(self.worker, self.family, self.type, session), address

    def shutdown(self, how: int) -> None:
        """As socket.shutdown. VCL: vppcom_session_shutdown.

        Raises:
            OSError: ENOTCONN, it is not connected.
        """
        self._require_open()
        if self._session is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        self._session.shutdown(how)

    def dup(self) -> "SessionSocket":
        """Another socket on the same session, which closes with the last of them.

        For who takes a connection away from its transport to give it to a new one (aiomysql, before TLS). Only one can
        hear of a session's events: the new one takes over, and the old one is to be closed.

        Raises:
            NotImplementedError: there is no connection to share.
            BlockingIOError: its transport has something to send yet, which nobody would.
        """
        self._require_open()
        session = self._session
        if (
            self.type != socket.SOCK_STREAM
            or session is None
            or session.closed
            or session.get_option(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            raise NotImplementedError("dup: only an open connection can be duplicated, no listener, no datagram socket")
        if getattr(session.owner, "get_write_buffer_size", int)():
            raise BlockingIOError(errno.EAGAIN, "dup: the transport has not sent everything yet, drain it before")
        copy = SessionSocket(self.worker, self.family, self.type, session)
        copy._bound, copy._options = self._bound, self._options.copy()
        if self._sharers is None:
            self._sharers = weakref.WeakSet([self])
        copy._sharers = self._sharers
        copy._sharers.add(copy)
        return copy

    def sole_owner(self) -> Any:
        """The transport or listener that has the session, unless it was duplicated for another to take over."""
        owner = None if self._session is None or self._session.closed else self._session.owner
        if not getattr(owner, "owns_session", False) or self._sharers or getattr(owner, "is_closing", bool)():
            return None
        return owner

    def leave(self) -> bool:
        """Let go of the session; returns whether a duplicate goes on with it."""
        sharers, self._sharers = self._sharers, None
        if sharers is not None:
            sharers.discard(self)
        return bool(sharers)

    def __del__(
        self, warn: Callable[..., None] = warnings.warn, is_finalizing: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        # As socket.socket's. A session that has its transport, or listener, is theirs.
        session = self._session
        if self._closed or session is None or session.closed or getattr(session.owner, "owns_session", False):
            return
        try:
            try:
                warn(f"unclosed socket {self!r}", ResourceWarning, stacklevel=2, source=self)
            finally:
                self.close()
        except Exception:  # as in transports.base
            if not is_finalizing():
                raise

    def detach(self) -> int:
        """Close the session, unless a transport has it and goes on. Returns -1: there is no descriptor to hand out."""
        if self._session is not None and getattr(self._session.owner, "owns_session", False):
            self.hand_over()
        else:
            self.close()
        return -1

    def hand_over(self) -> None:
        """Forget the session, which another goes on with."""
        self._session = None
        self._close_descriptors()

    def abandon(self) -> None:
        """Close the session and be as new: after a connect that failed, another may be tried."""
        session, self._session = self._session, None
        self._io = None
        if not self.leave() and session is not None:
            session.discard()

    def close(self) -> None:
        """Close the session, unless a duplicate goes on with it. VCL: vppcom_session_close."""
        self.abandon()
        self._close_descriptors()

    def __enter__(self) -> "SessionSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_descriptors(self) -> None:
        self._closed = True
        self._io = None
        sock, self.kernel_socket = self.kernel_socket, None
        if sock is not None:
            sock.close()
        fd, self._poll_fd = self._poll_fd, -1
        if fd >= 0:
            os.close(fd)


def host_port_scope(address: tuple[Any, ...] | None) -> tuple[str, int, int]:
    assert address is not None
    return address[0], address[1], address[3] if len(address) > 3 else 0
