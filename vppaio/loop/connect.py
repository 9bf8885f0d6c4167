"""Connecting on VPP: what create_connection does for each address, and sock_connect.

asyncio's create_connection (resolving, happy eyeballs, local addresses, all_errors, the order of errors) stays as it is; it
asks for one connected socket per address, and that is what is made here.
"""

import errno
import socket
from typing import TYPE_CHECKING, Any

from vppaio.transports import listener
from vppaio.transports.pseudosocket import SessionSocket

if TYPE_CHECKING:
    from vppaio.loop.eventloop import EventLoop


async def connect_sock(loop: "EventLoop", exceptions: Any, addr_info: Any, local_addr_infos: Any = None) -> SessionSocket:
    """A connected SessionSocket for one address; errors are also collected in `exceptions`, as asyncio has it."""
    mine: list[OSError] = []
    exceptions.append(mine)
    family, type_, _, _, address = addr_info
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


async def sock_connect(loop: "EventLoop", sock: SessionSocket, address: Any) -> None:
    """Connect a SessionSocket. Cancelling closes the session, at once for the caller.

    Raises:
        OSError: ConnectionRefusedError, TimeoutError (no answer for 66 s), EHOSTUNREACH; names the address.
    """
    infos = await loop._ensure_resolved(address, family=sock.family, type=socket.SOCK_STREAM, loop=loop)
    host, port, *rest = infos[0][4]
    future = loop.create_future()
    session = sock.session
    if sock._bound is not None:
        session.bind(sock._bound[0], sock._bound[1])
    listener.connect(session, host, port, rest[1] if rest else 0, future)
    try:
        await future
    except BaseException:
        sock.close()
        raise
