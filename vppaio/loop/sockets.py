"""sock_* on sessions, the adoption of kernel sockets, and sendfile.

Two kinds of sockets come here: a `SessionSocket`, which `vppaio.socket` made, and a kernel socket whose address
belongs to VPP. Programs that own their sockets (uvicorn's workers, hypercorn, gunicorn, aiohttp's client) make the
second kind. Such a socket cannot carry VPP's packets, so a session stands in for it: it serves or connects the same
address, and the kernel socket is kept, unused, and closed together with it. `Config.adopt_sockets` switches this off.
"""

import asyncio
import errno
import io
import os
import socket
import stat
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from vppaio.loop import connect
from vppaio.loop.base import StackLoop
from vppaio.private import SelectorLoop, check_ssl_socket
from vppaio.transports.pseudosocket import SessionSocket
from vppaio.transports.socketio import READABLE, WRITABLE
from vppaio.transports.stream import StreamTransport

_INET: Final = (socket.AF_INET, socket.AF_INET6)

# Which session stands in for which kernel socket; forgotten, and closed, with the socket.
_stand_ins: Final[weakref.WeakKeyDictionary[socket.socket, SessionSocket]] = weakref.WeakKeyDictionary()


# Stand-ins of these are; the future gets a result when they are no more.
_connecting: Final[weakref.WeakKeyDictionary[socket.socket, asyncio.Future[None]]] = weakref.WeakKeyDictionary()


class _StoodInFor(socket.socket):
    """What a kernel socket becomes when a session stands in for it: its owner's calls reach the session. (The object
    has no room for an attribute of ours, but its class may change.)"""

    __slots__ = ()

    def close(self) -> None:
        made = _stand_ins.pop(self, None)
        if made is not None:
            made.close()
        super().close()


def _forward(name: str) -> None:
    def method(self: _StoodInFor, *args: Any) -> Any:
        made = _stand_ins.get(self)
        return getattr(super(_StoodInFor, self) if made is None else made, name)(*args)

    setattr(_StoodInFor, name, method)


for _name in ("getpeername", "getsockname", "recv", "recv_into", "send", "shutdown"):
    _forward(_name)


def session_socket(loop: StackLoop, sock: Any) -> SessionSocket | None:
    """The session's socket to use for `sock`: itself, its stand-in, or None for one that stays the kernel's.

    Raises:
        OSError: EBADF; its loop is closed.
        ValueError: it is another loop's.
        RuntimeError: a transport, or a server, has it; in asyncio's words.
    """
    made: SessionSocket | None
    if isinstance(sock, SessionSocket):
        made = sock
    else:
        made = _stand_ins.get(sock) if _stand_ins and isinstance(sock, socket.socket) else None
    if made is not None and made.worker.is_closed:
        raise OSError(
            errno.EBADF,
            f"the session of {sock!r} ended with its event loop, which is closed; make or connect a socket in the loop "
            "that is to use it",
        )
    if made is not None and not loop._stacks.has(made.worker):
        raise ValueError(
            f"{sock!r} belongs to another event loop: a session stays with the loop that it was made in, and its data "
            "arrives there; make or connect the socket in the loop that is to use it"
        )
    owner = None if made is None else made.sole_owner()
    if owner is not None:
        raise RuntimeError(f"File descriptor {sock!r} is used by transport {owner!r}")
    return made


def take(loop: StackLoop, sock: Any) -> SessionSocket | None:
    """As `session_socket`, for a transport that owns it from here on; it closes the kernel socket too."""
    made = session_socket(loop, sock)
    if made is not None and made is not sock:
        del _stand_ins[sock]
        made.kernel_socket = sock
    return made


def _stand_in(made: SessionSocket, sock: socket.socket) -> None:
    _stand_ins[sock] = made
    weakref.finalize(sock, made.close)
    if type(sock) is socket.socket:
        sock.__class__ = _StoodInFor


def adopts(loop: StackLoop, sock: Any, ip: str) -> bool:
    """Whether a kernel socket for this address is to be VPP's."""
    return sock.family in _INET and loop._config.adopt_sockets and loop._stacks.stack_for(ip) == "vpp"


async def adopt_bound(loop: StackLoop, sock: Any) -> Any:
    """A SessionSocket bound to the address of `sock`, if that is VPP's and `sock` has no peer; else `sock`."""
    check_ssl_socket(sock)  # asyncio would see the SessionSocket only
    session_socket(loop, sock)  # is it ours?
    # Not only socket.socket: gunicorn's workers hand over its TCPSocket, which forwards to one. What has no `close`, as
    # asyncio's TransportSocket, is not the owner.
    if isinstance(sock, SessionSocket) or getattr(sock, "family", None) not in _INET or not hasattr(sock, "close"):
        return sock
    address = sock.getsockname()
    if address[1] == 0 or _is_connected(sock) or not adopts(loop, sock, address[0]):
        return sock
    await loop._stacks.ready("vpp")
    made = SessionSocket(loop._stacks.worker("vpp"), sock.family, sock.type)
    made.bind(address)
    made.kernel_socket = sock
    return made


def give_back(sock: Any, given: Any) -> None:
    """Close what `adopt_bound` has made of `given`, which stays its owner's."""
    if sock is not given:
        sock.kernel_socket = None
        sock.close()


def _check_non_blocking(loop: StackLoop, sock: Any) -> None:
    """asyncio's check in debug mode, in asyncio's words."""
    if loop._debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _connect_stand_in(loop: StackLoop, sock: socket.socket, address: Any) -> None:
    while (other := _connecting.get(sock)) is not None:
        if other.get_loop() is not loop:
            raise OSError(errno.EALREADY, f"Connect call failed {address}: another loop connects this socket")
        # The kernel's second connect waits for the result of the first, too; who began the first may cancel it.
        await asyncio.wait([other])
        if sock in _stand_ins:
            return
    under_way = _connecting[sock] = loop.create_future()
    try:
        await loop._stacks.ready("vpp")
        made = SessionSocket(loop._stacks.worker("vpp"), sock.family, sock.type)
        try:
            local = sock.getsockname()
            if local[1] != 0:
                made.bind(local)
            await connect.sock_connect(loop, made, address)
            if sock.fileno() < 0:
                raise OSError(errno.EBADF, f"Connect call failed {address}: the socket was closed meanwhile")
        except BaseException:
            made.close()
            raise
        _stand_in(made, sock)
    finally:
        del _connecting[sock]
        under_way.set_result(None)


def _forget_ended(sock: Any) -> None:
    """A kernel socket whose session ended with another loop can connect again."""
    if _stand_ins and isinstance(sock, socket.socket) and sock in _stand_ins and _stand_ins[sock].worker.is_closed:
        del _stand_ins[sock]


async def sock_connect(loop: StackLoop, sock: Any, address: Any) -> None:
    _forget_ended(sock)
    made = session_socket(loop, sock)
    if made is not None:
        _check_non_blocking(loop, sock)
        await connect.sock_connect(loop, made, address)
        return
    if isinstance(sock, socket.socket) and sock.family in _INET and loop._stacks.with_vpp:
        info = (await loop._ensure_resolved(address, family=sock.family, type=sock.type, loop=loop))[0]
        address = info[4]
        if adopts(loop, sock, address[0]):
            _check_non_blocking(loop, sock)
            await _connect_stand_in(loop, sock, address)
            return
    try:
        await SelectorLoop.sock_connect(loop, sock, address)
    except OSError as exc:
        if sock.family in _INET and exc.errno and str(address) not in str(exc):
            # asyncio names the address only if the answer had to be waited for.
            exc.strerror = f"Connect call failed {address}: {exc.strerror}"
        raise


async def _repeat(loop: StackLoop, sock: SessionSocket, events: int, attempt: Callable[[], Any]) -> Any:
    """Try until it does not block."""
    while True:
        try:
            return attempt()
        except (BlockingIOError, InterruptedError):
            await sock.io.wait(loop, events)  # not asked for before: it would make a session, and sendto binds first


async def _sendall(loop: StackLoop, sock: SessionSocket, data: Any) -> None:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")  # the socket module's words
    view = view.cast("B")
    while view:
        view = view[await _repeat(loop, sock, WRITABLE, lambda: sock.send(view)) :]  # noqa: B023  awaited in its round


_READS: Final[dict[str, Callable[..., Any]]] = {
    "sock_accept": SessionSocket.accept,
    "sock_recv": SessionSocket.recv,
    "sock_recv_into": SessionSocket.recv_into,
    "sock_recvfrom": SessionSocket.recvfrom,
    "sock_recvfrom_into": SessionSocket.recvfrom_into,
}


def _on_session(loop: StackLoop, name: str, sock: SessionSocket, args: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
    if name == "sock_sendall":
        return _sendall(loop, sock, *args)
    if name == "sock_sendto":
        return _repeat(loop, sock, WRITABLE, lambda: sock.sendto(*args))
    return _repeat(loop, sock, READABLE, lambda: _READS[name](sock, *args))


async def _on_kernel_socket(loop: StackLoop, name: str, sock: Any, args: tuple[Any, ...]) -> Any:
    """As asyncio does it, but for the waiting: see `Poller.wait_once`."""
    write = name.startswith("sock_send")
    if name == "sock_sendall":
        view = memoryview(args[0])
        if not view.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")  # the socket module's words
        args = (view.cast("B"),)
    elif name == "sock_recvfrom_into" and not args[1]:
        args = (args[0], len(args[0]))
    method = "send" if name == "sock_sendall" else name.removeprefix("sock_")
    while True:
        try:
            done = getattr(sock, method)(*args)
        except (BlockingIOError, InterruptedError):
            fd = sock.fileno()
            loop._ensure_fd_no_transport(fd)
            if fd in loop._selector.get_map():  # the program watches it too, with add_reader or add_writer
                return await getattr(SelectorLoop, name)(loop, sock, *args)
            waiter = loop.create_future()
            loop._selector.poller.wait_once(fd, write, waiter)
            await waiter
            continue
        if name == "sock_accept":
            done[0].setblocking(False)
        elif name == "sock_sendall":
            if done < len(args[0]):
                args = (args[0][done:],)
                continue
            return None
        return done


def perform(loop: StackLoop, name: str, sock: Any, *args: Any) -> Coroutine[Any, Any, Any]:
    """The sock_* method `name`, on the kernel's socket or on the session."""
    made = session_socket(loop, sock)
    check_ssl_socket(sock)
    _check_non_blocking(loop, sock)
    return _on_kernel_socket(loop, name, sock, args) if made is None else _on_session(loop, name, made, args)


async def as_native(fallback: Callable[..., Any], target: Any, file: Any, offset: int, count: int | None) -> int:
    """asyncio's `fallback` of sendfile, for a session, which has nothing else. The kernel's begins at `offset`, and
    leaves the file alone if nothing was to be sent; asyncio's begins where the file stands if `offset` is 0. So make it
    stand as the kernel would have it, if the kernel would take it."""
    try:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, io.UnsupportedOperation):
        regular = False
    if not regular:
        return cast(int, await fallback(target, file, offset, count))
    stands = file.tell()
    file.seek(offset)
    sent: int = await fallback(target, file, offset, count)
    if not sent:
        file.seek(stands)
    return sent


async def sendfile(loop: StackLoop, transport: StreamTransport, file: Any, offset: int, count: int | None) -> int:
    """What `loop.sendfile` tries first: the kernel's sendfile, for a connection on the host stack.

    Raises:
        SendfileNotAvailableError: the connection is on VPP, or it is no regular file; asyncio then reads and writes.
        ConnectionError: it was closed meanwhile, by whichever side.
    """
    sock = transport.kernel_socket()
    if sock is None:
        raise asyncio.SendfileNotAvailableError("VPP has no sendfile")
    was_reading = transport.is_reading()
    transport.pause_reading()
    written = transport._make_empty_waiter()
    try:
        await written
        if sock.fileno() < 0:
            raise ConnectionError("Connection is closed")  # by who has the socket object, too
        with loop._stacks.lent(sock.fileno()):
            sending = transport.sending = loop.create_task(
                loop.sock_sendfile(sock, file, offset, count, fallback=False)
            )
            return await sending
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if transport.sending is not None or (task is not None and task.cancelling()):
            raise
        raise ConnectionError("Connection is closed") from None
    finally:
        transport.sending = None
        transport._reset_empty_waiter()
        if was_reading:
            transport.resume_reading()
