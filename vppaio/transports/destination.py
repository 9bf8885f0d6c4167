"""Where a datagram goes: an address as `socket.sendto` takes it, made numeric.

The rules and the words of errors are the socket module's (getsockaddrarg and setipaddr in socketmodule.c). A name is
looked up each time, and blocks meanwhile, as there: what it means may change.

Used by transports.datagram and transports.pseudosocket.
"""

import operator
import socket
from typing import Any


def numeric(address: Any, family: int) -> tuple[str, int, int]:
    """(IP address, port, scope) for a socket of `family`, AF_INET or AF_INET6.

    Raises:
        OSError: gaierror, the name is unknown, or has no address of this family.
        TypeError: it is no address tuple.
        OverflowError: the port, or flow information, is out of range.
    """
    v6 = family == socket.AF_INET6
    name = "AF_INET6" if v6 else "AF_INET"
    if not isinstance(address, tuple):
        raise TypeError(f"sendto(): {name} address must be tuple, not {type(address).__name__}")
    if not 2 <= len(address) <= (4 if v6 else 2):
        shape = "a tuple (host, port[, flowinfo[, scopeid]])" if v6 else "a pair (host, port)"
        raise TypeError(f"{name} address must be {shape}")
    host = _text(address[0])
    port, flow, scope = (operator.index(number) for number in (*address[1:], 0, 0)[:3])
    # What is no C int fails before the name is looked up, the rest behind it.
    ip = _ip(host, family) if -(1 << 31) <= port < 1 << 31 else ""
    if not 0 <= port <= 0xFFFF:
        raise OverflowError("sendto(): port must be 0-65535.")
    if not 0 <= flow <= 0xFFFFF:
        raise OverflowError("sendto(): flowinfo must be 0-1048575.")
    return ip, port, scope


def _text(host: Any) -> bytes:
    if isinstance(host, str):
        text = host.encode("ascii" if host.isascii() else "idna")
    elif isinstance(host, (bytes, bytearray)):
        text = bytes(host)
    else:
        raise TypeError(f"str, bytes or bytearray expected, not {type(host).__name__}")
    if b"\0" in text:
        raise TypeError("host name must not contain null character")
    return text


def _ip(host: bytes, family: int) -> str:
    if not host:
        return "0.0.0.0" if family == socket.AF_INET else "::"
    if host in (b"<broadcast>", b"255.255.255.255"):
        if family != socket.AF_INET:
            raise OSError("address family mismatched")
        return "255.255.255.255"
    found: Any = socket.getaddrinfo(host, None, family)[0][4][0]
    return str(found)
