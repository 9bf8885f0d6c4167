"""127.0.0.1 and ::1 for tests whose two ends are on different stacks; only for child.py, inside a VppInstance.

CPython's tests say 127.0.0.1 for both ends. Here one end has VPP's address and the other the kernel's, so addresses are
translated at the two edges of the process: in the tables of operations (vcl_ops.h), below everything vppaio does, and
in the methods of `socket.socket`. Bound or connected to is the real address, reported is loopback again.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Final

_INET: Final = (socket.AF_INET, socket.AF_INET6)
_KERNEL: Final = {
    family: os.environ.get(f"VPP_KERNEL_ADDRESS{n}", "") for family, n in zip(_INET, ("", "6"), strict=True)
}
_VPP: Final = {family: os.environ.get(f"VPP_ADDRESS{n}", "") for family, n in zip(_INET, ("", "6"), strict=True)}
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_NAMES: Final = (*_LOOPBACK.values(), "localhost")
_WILDCARDS: Final = ("", "0.0.0.0", "::")

_vpp_ports: set[int] = set()  # bound on VPP: to send there, the kernel takes VPP's address
_sessions = itertools.count()
_last = -1


def sessions_made() -> int:
    """How many sessions this process has made on VPP."""
    return _last + 1


def _to_bind(stack: str, family: int, host: str, port: int) -> str:
    own = _VPP if stack == "vpp" else _KERNEL
    return own[socket.AddressFamily(family)] if host in _NAMES else host


def _to_reach(stack: str, family: int, host: str, port: int) -> str:
    if host not in (*_NAMES, *_WILDCARDS):
        return host
    other = _VPP if stack == "host" and port in _vpp_ports else _KERNEL
    return other[socket.AddressFamily(family)]


def _reported(family: int, host: str, port: int) -> str:
    kind = socket.AddressFamily(family)
    if host == _VPP[kind]:
        _vpp_ports.add(port)
    return _LOOPBACK[kind] if host in (_KERNEL[kind], _VPP[kind]) else host


# ---- the tables of operations ----------------------------------------------------------------------------------------


class _Endpoint(ctypes.Structure):
    _fields_ = [
        ("ip", ctypes.c_uint8 * 16),
        ("port", ctypes.c_uint16),
        ("is_ip4", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("scope_id", ctypes.c_uint32),
    ]

    def change(self, rule: Callable[..., str], *where: Any) -> None:
        family, size = (socket.AF_INET, 4) if self.is_ip4 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, bytes(self.ip)[:size])
        where = (*where, family, host, socket.ntohs(self.port))
        ctypes.memmove(self.ip, socket.inet_pton(family, rule(*where)), size)


_Session = ctypes.c_uint32
_Address = ctypes.POINTER(_Endpoint)
_with_address = ctypes.CFUNCTYPE(ctypes.c_int, _Session, _Address)
_with_data = ctypes.CFUNCTYPE(ctypes.c_int, _Session, ctypes.c_void_p, ctypes.c_size_t, _Address)
_create = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)
# Their places in vcl_ops, in pointers; the name and the traps are the first two.
_SLOTS: Final = 30
_CREATE, _BIND, _ACCEPT, _CONNECT, _RECVFROM, _SENDTO, _LOCAL, _PEER = 9, 10, 12, 13, 18, 19, 23, 24
_alive: list[Any] = []


def translated(stack: str, table_address: int) -> int:
    """Address of a copy of a table that translates."""
    table = (ctypes.c_void_p * _SLOTS)()
    ctypes.memmove(table, table_address, ctypes.sizeof(table))

    def replace(slot: int, kind: Any, make: Callable[[Any], Any]) -> None:
        made = kind(make(kind(table[slot])))
        table[slot] = ctypes.cast(made, ctypes.c_void_p).value
        _alive.append(made)

    def telling(original: Any) -> Any:
        def call(*arguments: Any) -> int:
            result: int = original(*arguments)
            if result >= 0:
                arguments[-1].contents.change(_reported)
            return result

        return call

    def told(rule: Callable[..., str]) -> Any:
        def wrap(original: Any) -> Any:
            def call(*arguments: Any) -> int:
                if not arguments[-1]:
                    return int(original(*arguments))
                mine = _Endpoint.from_buffer_copy(arguments[-1].contents)
                mine.change(rule, stack)
                if rule is _to_bind and stack == "vpp":
                    _vpp_ports.add(socket.ntohs(mine.port))
                return int(original(*arguments[:-1], ctypes.byref(mine)))

            return call

        return wrap

    def counted(original: Any) -> Any:
        def call(*arguments: int) -> int:
            global _last
            _last = next(_sessions)
            return int(original(*arguments))

        return call

    for slot in (_ACCEPT, _LOCAL, _PEER):
        replace(slot, _with_address, telling)
    replace(_RECVFROM, _with_data, telling)
    replace(_BIND, _with_address, told(_to_bind))
    replace(_CONNECT, _with_address, told(_to_reach))
    replace(_SENDTO, _with_data, told(_to_reach))
    if stack == "vpp":
        replace(_CREATE, _create, counted)
    _alive.append(table)
    return ctypes.addressof(table)


# ---- the kernel's sockets --------------------------------------------------------------------------------------------


def translate_sockets() -> None:
    """Let every socket of this process translate."""

    def is_inet(sock: socket.socket, address: Any) -> bool:
        return sock.family in _INET and isinstance(address, tuple) and len(address) >= 2 and type(address[0]) is str

    def telling(name: str, pick: int | None) -> None:
        original = getattr(socket.socket, name)

        def method(sock: Any, *args: Any) -> Any:
            result = original(sock, *args)
            address = result if pick is None else result[pick]
            if is_inet(sock, address):
                address = (_reported(sock.family, *address[:2]), *address[1:])
            return address if pick is None else (*result[:pick], address)

        setattr(socket.socket, name, method)

    def told(name: str) -> None:
        original = getattr(socket.socket, name)

        def method(sock: Any, *args: Any) -> Any:
            if args and is_inet(sock, args[-1]) and isinstance(args[-1][1], int):
                host, port, *rest = args[-1]
                host = (_to_bind if name == "bind" else _to_reach)("host", sock.family, host, port)
                args = (*args[:-1], (host, port, *rest))
            result = original(sock, *args)
            if name == "bind" and sock.family in _INET:
                _vpp_ports.discard(sock.getsockname()[1])  # a stale one: VPP's would have been told later
            return result

        setattr(socket.socket, name, method)

    telling("getsockname", None)
    telling("getpeername", None)
    for name in ("accept", "recvfrom", "recvfrom_into"):
        telling(name, 1)
    for name in ("bind", "connect", "connect_ex", "sendto"):
        told(name)
