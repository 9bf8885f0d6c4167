"""What the user decides, in one frozen object, and which stack an address belongs to.

Every field of `Config` has an environment variable, `VPPAIO_` and the field's name in capitals. An argument beats the
environment, the environment beats the default; an empty variable counts as unset. The environment is read when the
Config is made, so one Config does not change under a running loop.

Imported by everybody, imports nothing of vppaio, touches neither VPP nor the network.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast

Stack = Literal["host", "vpp"]
StackChoice = Literal["auto", "vpp", "host"]
Routes = tuple[tuple[str, Stack], ...]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

APP_SOCKET: Final = "/run/vpp/app_ns_sockets/default"  # VPP's own, for the default namespace
BYTES_OF_AN_EVENT: Final = 64  # in the first segment; 40 and what is around them (segment_manager.c, 26.06)
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_SUFFIXES: Final = {"": 1, "K": _KIB, "M": _MIB, "G": _GIB}


class _Bad(Exception):
    """What is allowed instead; `Config` adds the field's name and the value."""


# ---- what a value has to look like -----------------------------------------------------------------------------------


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _Bad("a whole number") from None


def _size(text: str) -> int:
    digits = text.strip().rstrip("KkMmGg")
    try:
        return int(digits) * _SUFFIXES[text.strip()[len(digits) :].upper()]
    except (ValueError, KeyError):
        raise _Bad('a number of bytes such as 65536, "64K" or "4M"') from None


def _flag(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.strip().lower()]
    except KeyError:
        raise _Bad("1 or 0") from None


def _check_flag(value: bool) -> bool:
    if not isinstance(value, bool):
        raise _Bad("True or False")
    return value


def _spelled(value: int) -> str:
    for suffix, unit in (("G", _GIB), ("M", _MIB), ("K", _KIB)):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


def _between(low: int, high: int, spell: Callable[[int], str] = str) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _Bad(f"a whole number from {spell(low)} to {spell(high)}")
        return value

    return check


def _check_stack(value: str) -> str:
    if value not in ("auto", "vpp", "host"):
        raise _Bad("auto, vpp or host")
    return value


def _check_on_stack_loss(value: str) -> str:
    if value not in ("restore", "fail"):
        raise _Bad("restore or fail")
    return value


def _check_name(value: str) -> str:
    # VCL copies it into 64 bytes without looking, into the options behind (vcl_sapi.c: vcl_api_send_attach, 26.06).
    if not isinstance(value, str) or not 0 < len(value.encode()) < 64 or not value.isprintable():
        raise _Bad("1 to 63 bytes of printable text")
    return value


def _check_path(value: str | os.PathLike[str]) -> str:
    try:
        path = os.path.abspath(os.fspath(value))
    except TypeError:
        raise _Bad("a path") from None
    if not os.fspath(value) or "\0" in path:
        raise _Bad("a path")
    return path


def _check_socket(value: str | os.PathLike[str]) -> str:
    path = _check_path(value)
    if any(c.isspace() for c in path):
        raise _Bad("a path without white space, which vcl.conf has no way to write")
    if len(os.fsencode(path)) > 107:
        raise _Bad("a path of at most 107 bytes, the kernel's limit for unix sockets")
    return path


def _check_optional_path(value: str | os.PathLike[str] | None) -> str | None:
    return None if value is None else _check_path(value)


def _parse_network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise _Bad(f"networks such as 10.0.0.0/8 or ::/0 ({error})") from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        if mapped := network.network_address.ipv4_mapped:  # lookups see mapped addresses as IPv4
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _split_routes(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        network, equals, stack = item.partition("=")
        if not equals:
            raise _Bad('NETWORK=STACK, separated by commas, such as "10.0.0.0/8=host,::/0=vpp"')
        pairs.append((network.strip(), stack.strip()))
    return tuple(pairs)


def _check_routes(value: str | Iterable[tuple[str, str]]) -> Routes:
    found: dict[_Network, Stack] = {}
    try:
        pairs = _split_routes(value) if isinstance(value, str) else tuple(value)
        pairs = tuple((str(network), stack) for network, stack in pairs)
    except (TypeError, ValueError):
        raise _Bad('pairs such as ("10.0.0.0/8", "host")') from None
    for text, stack in pairs:
        if stack not in ("host", "vpp"):
            raise _Bad(f'host or vpp behind "{text}=", not {stack!r}')
        network = _parse_network(text)
        if network in found:
            raise _Bad(f"{network} only once")
        found[network] = cast(Stack, stack)
    return tuple((str(network), stack) for network, stack in found.items())


# ---- the object ------------------------------------------------------------------------------------------------------

_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "stack": _check_stack,
    "app_socket": _check_socket,
    "vcl_config": _check_optional_path,
    "app_name": _check_name,
    "routes": _check_routes,
    # VPP never allots less than a page; above 1 GiB the doubling of fifo chunks overflows 32 bits.
    "rx_fifo_size": _between(4 * _KIB, _GIB, _spelled),
    "tx_fifo_size": _between(4 * _KIB, _GIB, _spelled),
    "segment_size": _between(4 * _MIB, 64 * _GIB, _spelled),
    "heap_size": _between(16 * _MIB, 4 * _GIB - _MIB, _spelled),
    "event_queue_size": _between(256, 1 << 20),
    "busy_poll_us": _between(0, 1_000_000),
    "adopt_sockets": _check_flag,
    "on_stack_loss": _check_on_stack_loss,
}
_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "rx_fifo_size": _size,
    "tx_fifo_size": _size,
    "segment_size": _size,
    "heap_size": _size,
    "event_queue_size": _number,
    "busy_poll_us": _number,
    "adopt_sockets": _flag,
}
# VCL's own sizes, but 32 times its events: a sixteenth is room for connections that come and go, and of 1000 made at
# once through shared memory VPP refused some with 16384. It costs 2.5 MB of shared memory for each loop.
_DEFAULTS: Final[dict[str, Any]] = {
    "stack": "auto",
    "app_socket": APP_SOCKET,
    "vcl_config": None,
    "routes": (),
    "rx_fifo_size": _MIB,
    "tx_fifo_size": _MIB,
    "segment_size": 256 * _MIB,
    "heap_size": 256 * _MIB,
    "event_queue_size": 65536,
    "busy_poll_us": 0,
    "adopt_sockets": True,
    "on_stack_loss": "restore",
}
# VCL_CONFIG is how VCL's other programs name a vcl.conf: whoever set it means us as well.
_FURTHER_VARIABLES: Final = {"vcl_config": ("VCL_CONFIG",)}
# Settings that are in vcl.conf's hands once the user names one.
IN_VCL_CONFIG: Final = ("app_socket", "rx_fifo_size", "tx_fifo_size", "segment_size", "heap_size", "event_queue_size")


def variable(name: str) -> str:
    """Name of the environment variable of field `name`."""
    return f"VPPAIO_{name.upper()}"


def _checked(name: str, value: Any, source: str) -> Any:
    try:
        return _CHECKS[name](value)
    except _Bad as bad:
        raise ValueError(f"{source}: {value!r} is not allowed; use {bad}") from None


def _from_environment(name: str) -> Callable[[], Any]:
    """What a field is when no argument gives it."""

    def find() -> Any:
        for key in (variable(name), *_FURTHER_VARIABLES.get(name, ())):
            if text := os.environ.get(key):
                source = f"{name} (from the environment, {key})"
                try:
                    value = _PARSERS.get(name, str)(text)
                except _Bad as bad:
                    raise ValueError(f"{source}: {text!r} is not allowed; use {bad}") from None
                return _checked(name, value, source)
        return f"vppaio-{os.getpid()}" if name == "app_name" else _DEFAULTS[name]

    return find


@dataclass(frozen=True)
class Config:
    """Settings of an event loop; those of the attach count for the whole process.

    Args:
        stack: "host" for the kernel's stack only, "vpp" to insist on VPP, "auto" to use VPP where it is configured (an
            app socket exists, or a vcl.conf is named or installed). A configured VPP that fails is an error.
        app_socket: VPP's app socket; it also selects the application namespace.
        vcl_config: a vcl.conf to use as it is. Without one vppaio writes its own from the settings below. Also taken
            from VCL_CONFIG.
        app_name: the name in VPP's `show app`.
        routes: which addresses go to which stack, as pairs or as text: "10.0.0.0/8=host,::/0=vpp". The most specific
            network wins. See `RouteTable` for what holds without.
        rx_fifo_size: bytes of receive buffer per connection; VPP fills it in steps, so an idle one is small.
        tx_fifo_size: the same for sending.
        segment_size: bytes of shared memory VPP adds at a time for those buffers.
        heap_size: bytes of libvppcom's own memory, about 1 KiB per connection; near its end new ones are refused.
        event_queue_size: events VPP can have pending for one loop; a sixteenth of it for new connections.
        busy_poll_us: microseconds to look for work before sleeping: latency for CPU time. 0 sleeps at once.
        adopt_sockets: whether VPP serves, or connects, a kernel socket given to the loop when its address is VPP's.
        on_stack_loss: what becomes of servers when VPP dies. "restore": they serve again when it is back. "fail": they
            are closed, and `serve_forever` raises ConnectionResetError.

    Raises:
        ValueError: names the field, its environment variable if the value came from there, and what is allowed.
    """

    stack: StackChoice = field(default_factory=_from_environment("stack"))
    app_socket: str = field(default_factory=_from_environment("app_socket"))
    vcl_config: str | None = field(default_factory=_from_environment("vcl_config"))
    app_name: str = field(default_factory=_from_environment("app_name"))
    routes: str | Routes = field(default_factory=_from_environment("routes"))
    rx_fifo_size: int = field(default_factory=_from_environment("rx_fifo_size"))
    tx_fifo_size: int = field(default_factory=_from_environment("tx_fifo_size"))
    segment_size: int = field(default_factory=_from_environment("segment_size"))
    heap_size: int = field(default_factory=_from_environment("heap_size"))
    event_queue_size: int = field(default_factory=_from_environment("event_queue_size"))
    busy_poll_us: int = field(default_factory=_from_environment("busy_poll_us"))
    adopt_sockets: bool = field(default_factory=_from_environment("adopt_sockets"))
    on_stack_loss: Literal["restore", "fail"] = field(default_factory=_from_environment("on_stack_loss"))

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), item.name))
        # A segment has to hold the buffers of some connections: VPP drops every connection without a word if it cannot.
        least = 4 * (self.rx_fifo_size + self.tx_fifo_size)
        if self.segment_size < least:
            raise ValueError(
                f"segment_size: {self.segment_size} is not allowed; use at least {_spelled(least)}, four times "
                f"rx_fifo_size ({_spelled(self.rx_fifo_size)}) and tx_fifo_size ({_spelled(self.tx_fifo_size)})"
            )
        # And the first one the event queue: VPP 26.06 crashes on an attach whose queue does not fit.
        least = BYTES_OF_AN_EVENT * self.event_queue_size
        if self.segment_size < least:
            raise ValueError(
                f"segment_size: {self.segment_size} is not allowed; use at least {_spelled(least)}, "
                f"{BYTES_OF_AN_EVENT} bytes for each event of event_queue_size ({self.event_queue_size})"
            )
        if self.vcl_config is not None:
            for name in IN_VCL_CONFIG:
                if getattr(self, name) != _DEFAULTS[name]:
                    raise ValueError(
                        f"{name}: {getattr(self, name)!r} has no effect beside vcl_config, "
                        f"set it in {self.vcl_config} instead"
                    )


# ---- routes ----------------------------------------------------------------------------------------------------------

_WITHOUT_VPP: Final[Routes] = (("0.0.0.0/0", "host"), ("::/0", "host"))
# Loopback is the kernel's: a service on VPP still reaches its database on 127.0.0.1, and a server bound there is not
# exposed on a VPP interface. Link-local addresses need the interface index of a stack, which VCL has no room for.
_WITH_VPP: Final[Routes] = (
    ("127.0.0.0/8", "host"),
    ("::1/128", "host"),
    ("fe80::/10", "host"),
    ("0.0.0.0/0", "vpp"),
    ("::/0", "vpp"),
)


class RouteTable:
    """Which stack serves an address. Asked once per connect and bind; wildcard addresses are addresses like others.

    Args:
        routes: the user's, they beat the built-in ones of the same length.
        vpp_attached: without VPP everything is the host's.

    Raises:
        ValueError: a route leads to VPP and there is none.
    """

    def __init__(self, routes: str | Iterable[tuple[str, str]], vpp_attached: bool) -> None:
        table: dict[_Network, Stack] = {}
        for network, stack in (*(_WITH_VPP if vpp_attached else _WITHOUT_VPP), *_checked("routes", routes, "routes")):
            if stack == "vpp" and not vpp_attached:
                raise ValueError(f"routes: {network}=vpp leads to VPP, but this loop runs on the host stack only")
            table[_parse_network(network)] = stack
        self._longest_first = sorted(table.items(), key=lambda item: item[0].prefixlen, reverse=True)

    def stack_for(self, ip_text: str) -> Stack:
        """Return the stack of a literal address; a scope ("%eth0") is ignored, v4-mapped IPv6 counts as IPv4."""
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(ip_text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return next(stack for network, stack in self._longest_first if address in network)
