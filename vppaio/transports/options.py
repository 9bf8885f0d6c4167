"""Options of sockets: which have no effect on VPP, and how programs call them."""

import errno
import socket

# Accepted and without effect, and not for VCL to see: VPP's TCP has no keepalive, and its buffers are the FIFOs that
# Config sizes. Clients set them unguarded (redis-py), so refusing would break them for nothing.
WITHOUT_EFFECT = {
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
}

LINGER = (socket.SOL_SOCKET, socket.SO_LINGER)
_PREFIXES = {
    socket.SOL_SOCKET: "SO_",
    socket.IPPROTO_IP: "IP_",
    socket.IPPROTO_IPV6: "IPV6_",
    socket.IPPROTO_TCP: "TCP_",
    socket.IPPROTO_UDP: "UDP_",
}


def as_number(level: int, option: int, value: int | bytes | None) -> int:
    """The value that setsockopt takes as the number that sessions know.

    Raises:
        OSError: ENOPROTOOPT, it is none.
    """
    if isinstance(value, int):
        return value
    if value is None or len(value) > 4:
        raise OSError(errno.ENOPROTOOPT, f"Protocol not available: {name(level, option)} has to be a number")
    return int.from_bytes(value, "little")


def name(level: int, option: int) -> str:
    """An option as programs call it."""
    prefix = _PREFIXES.get(level, "\0")
    names = [found for found in vars(socket) if found.startswith(prefix) and getattr(socket, found) == option]
    # Numbers of special protocols' options, with longer names, begin with SO_ too.
    return min(names, key=len, default=f"option {option} of level {level}")
