"""Connecting on VPP: what create_connection does for each address, and sock_connect.

asyncio's create_connection (resolving, happy eyeballs, local addresses, all_errors, the order of errors) stays as it
is; it asks for one connected socket per address, and that is what is made here.
"""

import asyncio
import errno
import ipaddress
import math
import random
import socket
import time
import weakref
from typing import Any, Final

from vppaio.loop.base import StackLoop
from vppaio.reactor.session import SessionTable
from vppaio.tls.engine import tls_context
from vppaio.tls.protocol import TlsProtocol
from vppaio.transports import connector
from vppaio.transports.pseudosocket import SessionSocket, host_port_scope

_CROWD: Final = 256  # connects at once; a sixteenth of what Config's event_queue_size has room for
_RETRIES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)


class _Crowd:
    """Connects under way on one worker. While its event queue is full VPP refuses connects, in the words of a peer that
    does (application_worker.c: app_worker_connect_session, 26.06). So who is refused in a crowd tries again: a peer
    that means it says so again, and others do not hear of what they could not act on."""

    def __init__(self) -> None:
        self._count = 0
        self._large_at = -math.inf

    def __enter__(self) -> None:
        self._count += 1
        if self._count >= _CROWD:
            self._large_at = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._count >= _CROWD:
            self._large_at = time.monotonic()
        self._count -= 1

    def is_large(self) -> bool:
        """Now, or a moment ago."""
        return self._count >= _CROWD or time.monotonic() - self._large_at < 1


_crowds: weakref.WeakKeyDictionary[SessionTable, _Crowd] = weakref.WeakKeyDictionary()
_ANY: Final = tuple(map(ipaddress.ip_address, ("0.0.0.0", "::", "::ffff:0.0.0.0")))
_OWN_FOR_S: Final = 10.0  # an address may be taken from VPP's interface
_own_addresses: weakref.WeakKeyDictionary[SessionTable, dict[str, float]] = weakref.WeakKeyDictionary()  # seen then


async def connect_sock(loop: StackLoop, exceptions: Any, addr_info: Any, local_addr_infos: Any = None) -> SessionSocket:
    """A connected SessionSocket for one address; errors are also collected in `exceptions`, as asyncio has it."""
    mine: list[OSError] = []
    exceptions.append(mine)
    family, type_, _, _, address = addr_info
    await loop._stacks.ready("vpp")
    sock = SessionSocket(loop._stacks.worker("vpp"), family, type_)
    try:
        if local_addr_infos is not None:
            _bind_local(sock, family, local_addr_infos, mine)
        await sock_connect(loop, sock, address)
    except OSError as exc:
        mine.append(exc)
        sock.close()
        raise
    except BaseException:
        sock.close()
        raise
    else:
        return sock
    finally:
        exceptions = mine = None  # type: ignore[assignment]  # break the cycle through the frames


def _bind_local(sock: SessionSocket, family: int, local_addr_infos: Any, errors: list[OSError]) -> None:
    for local_family, _, _, _, address in local_addr_infos:
        if local_family == family:
            sock.bind(address)
            return
    raise OSError(errno.EADDRNOTAVAIL, f"no matching local address with {family=} found")


def _require_source(loop: StackLoop, sock: SessionSocket, address: Any) -> None:
    """VPP connects from any address it is told, and hears no answer to one that is not its own: 66 s of silence. Only
    listen compares, so listen there for a moment (up to 0.1 s), once in a while per address and worker. That VPP
    listens at an address of the host stack's, such as 127.0.0.1, does not mean that it can be reached there.

    Raises:
        OSError: EADDRNOTAVAIL, naming the address.
    """
    host = sock.getsockname()[0]
    known: dict[str, float] = _own_addresses.setdefault(sock.worker, {})
    now = time.monotonic()
    if now - known.get(host, -math.inf) < _OWN_FOR_S or ipaddress.ip_address(host.partition("%")[0]) in _ANY:
        return
    known.pop(host, None)
    if loop._stacks.stack_for(host) != "vpp":
        raise OSError(
            errno.EADDRNOTAVAIL,
            f"cannot connect from {host}, an address of the host stack, to {address}, which is VPP's (see routes): "
            "bind to an address of VPP's, or to none",
        )
    probe = SessionSocket(sock.worker, sock.family, socket.SOCK_STREAM)
    try:
        probe.bind((host, 0, *sock.getsockname()[2:]))
        probe.listen(1)
    except OSError as exc:
        if exc.errno != errno.EADDRNOTAVAIL:
            raise
        cure = "see `vppctl show interface address`"
        raise OSError(exc.errno, f"cannot connect from {host} to {address}: VPP has no such address, {cure}") from None
    finally:
        probe.close()
    known[host] = now


async def sock_connect(loop: StackLoop, sock: SessionSocket, address: Any) -> None:
    """Connect a SessionSocket. Cancelling closes the session, at once for the caller.

    Raises:
        OSError: ConnectionRefusedError, TimeoutError (no answer for 66 s), EHOSTUNREACH; names the address.
    """
    infos = await loop._ensure_resolved(address, family=sock.family, type=sock.type, loop=loop)
    if sock.worker.stack != "vpp":
        await _try_to_connect(loop, sock, infos[0][4])
        return
    crowd = _crowds.setdefault(sock.worker, _Crowd())
    for delay_s in _RETRIES_S:
        with crowd:
            try:
                await _try_to_connect(loop, sock, infos[0][4])
                return
            except ConnectionRefusedError:
                if not crowd.is_large():
                    raise
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # not all at once again
    await _try_to_connect(loop, sock, infos[0][4])


async def _try_to_connect(loop: StackLoop, sock: SessionSocket, address: Any) -> None:
    host, port, *rest = address
    future = loop.create_future()
    is_new = sock._session is None  # after a failed attempt
    if sock._bound is not None and sock.worker.stack == "vpp":
        _require_source(loop, sock, address)
    session = sock.session
    if is_new and sock._bound is not None:
        session.bind(*host_port_scope(sock._bound))
    connector.connect(session, host, port, rest[1] if rest else 0, future)
    try:
        await future
    except BaseException:
        sock.abandon()
        raise
    else:
        sock._io = None  # of a datagram socket that was used before; the session's news went to the connector meanwhile
    finally:
        future = None  # type: ignore[assignment]  # break the cycle through the frame


async def start_tls(
    loop: StackLoop,
    transport: Any,
    protocol: Any,
    sslcontext: Any,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Any:
    """As asyncio's, with TlsProtocol; for contexts of every kind that tls.engine knows."""
    if tls_context(sslcontext) is None:
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    waiter = loop.create_future()
    tls = TlsProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side,
        server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        call_connection_made=False,
    )
    if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
        tls.take_back(protocol._stream_reader)  # type: ignore[attr-defined]
    # Pause early so that "ssl_protocol.data_received()" doesn't have a chance to get called before
    # "ssl_protocol.connection_made()".
    transport.pause_reading()
    transport.set_protocol(tls)
    connection_made = loop.call_soon(tls.connection_made, transport)
    resume = loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        transport.close()
        connection_made.cancel()
        resume.cancel()
        waiter = None  # type: ignore[assignment]  # break the cycle through the frame
        raise
    return tls._app_transport
