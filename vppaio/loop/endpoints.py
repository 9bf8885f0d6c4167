"""create_datagram_endpoint on VPP; the host stack's is asyncio's own, which asks the loop for the transport."""

import errno
import socket
from collections.abc import Callable
from typing import Any

from vppaio.loop.base import StackLoop
from vppaio.loop.connect import sock_connect
from vppaio.loop.sockets import adopt_bound, give_back
from vppaio.private import SelectorLoop
from vppaio.transports.datagram import DatagramTransport
from vppaio.transports.pseudosocket import SessionSocket


async def create_datagram_endpoint(
    loop: StackLoop,
    protocol_factory: Callable[[], Any],
    local_addr: Any = None,
    remote_addr: Any = None,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    reuse_port: bool | None = None,
    allow_broadcast: bool | None = None,
    sock: Any = None,
) -> tuple[Any, Any]:
    """As asyncio's. On VPP `reuse_port` has no effect: an address has one application.

    Raises:
        OSError: as asyncio; EOPNOTSUPP for `allow_broadcast` on VPP.
    """

    async def on_host() -> tuple[Any, Any]:
        try:
            return await SelectorLoop.create_datagram_endpoint(
                loop,
                protocol_factory,
                local_addr,
                remote_addr,
                family=family,
                proto=proto,
                flags=flags,
                reuse_port=reuse_port,
                allow_broadcast=allow_broadcast,
                sock=sock,
            )
        except OSError as exc:
            if exc.errno and not isinstance(exc, socket.gaierror) and family != socket.AF_UNIX:
                exc.strerror = f"{exc.strerror} (datagram endpoint {local_addr} to {remote_addr})"
            raise

    if sock is not None:
        given = sock
        if getattr(sock, "type", None) == socket.SOCK_DGRAM:  # asyncio refuses others
            sock = await adopt_bound(loop, given)
        try:
            return await on_host()
        except BaseException:
            give_back(sock, given)
            raise
    if family == socket.AF_UNIX or not (local_addr or remote_addr) or not loop._stacks.with_vpp:
        return await on_host()
    pairs = await _address_pairs(loop, local_addr, remote_addr, family, proto, flags)
    # The remote end decides, since that is where packets have to arrive.
    if loop._stacks.stack_for((pairs[0][2] or pairs[0][1])[0]) == "host":
        return await on_host()
    if allow_broadcast:
        raise OSError(errno.EOPNOTSUPP, "allow_broadcast: VPP's session layer has no broadcast")
    await loop._stacks.ready("vpp")
    errors: list[OSError] = []
    for af, local, remote in pairs:
        made = SessionSocket(loop._stacks.worker("vpp"), af, socket.SOCK_DGRAM)
        try:
            if remote is None:
                made.bind(local)
            else:
                if local is not None:
                    made._bound = local
                await sock_connect(loop, made, remote)
                made._bound = made.session.local_address()  # port 0 has become one
        except OSError as exc:
            made.close()
            errors.append(exc)
        except BaseException:
            made.close()
            raise
        else:
            protocol = protocol_factory()
            waiter = loop.create_future()
            transport = DatagramTransport(loop, made.session, protocol, remote, waiter, {"peername": remote}, made)
            try:
                await waiter
            except BaseException:
                transport.close()
                raise
            return transport, protocol
    raise errors[0]


async def _address_pairs(
    loop: StackLoop, local_addr: Any, remote_addr: Any, family: int, proto: int, flags: int
) -> list[tuple[int, Any, Any]]:
    """(family, local or None, remote or None) for every family that both ends have."""
    found: dict[int, list[Any]] = {}
    for index, address in enumerate((local_addr, remote_addr)):
        if address is None:
            continue
        if not (isinstance(address, tuple) and len(address) == 2):
            raise TypeError("2-tuple is expected")
        infos = await loop._ensure_resolved(
            address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags, loop=loop
        )
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        for af, _, _, _, resolved in infos:
            found.setdefault(af, [None, None])[index] = resolved
    pairs = [
        (af, local, remote)
        for af, (local, remote) in found.items()
        if not (local_addr and local is None) and not (remote_addr and remote is None)
    ]
    if not pairs:
        raise ValueError("can not get address information")
    return pairs
