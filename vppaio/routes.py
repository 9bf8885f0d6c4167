"""Routes: which stack an address belongs to.

Made by `Config` and loop.stacks; knows no network but addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final, Literal, cast

from vppaio.settings import Bad

Stack = Literal["host", "vpp"]
Routes = tuple[tuple[str, Stack], ...]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

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


class RoutesKind:
    """Routes as a setting: pairs, or text such as "10.0.0.0/8=host,::/0=vpp"."""

    placeholder = "ROUTES"
    values = "NETWORK=STACK, separated by commas"

    def parse(self, text: str) -> str:
        return text

    def check(self, value: Any) -> Routes:
        found: dict[_Network, Stack] = {}
        try:
            # One by one: the first that will not do ends it. A network, for one, is an iterable of its 2^24 addresses.
            pairs = tuple(
                (str(network), stack) for network, stack in (_split(value) if isinstance(value, str) else value)
            )
        except (TypeError, ValueError):
            raise Bad('pairs such as ("10.0.0.0/8", "host")') from None
        for text, stack in pairs:
            if stack not in ("host", "vpp"):
                raise Bad(f'host or vpp behind "{text}=", not {stack!r}')
            network = _parse_network(text)
            if network in found:
                raise Bad(f"{network} only once")
            found[network] = cast(Stack, stack)
        return tuple((str(network), stack) for network, stack in found.items())

    def spell(self, value: Routes) -> str:
        return ",".join(f"{network}={stack}" for network, stack in value)


def _split(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        network, equals, stack = item.partition("=")
        if not equals:
            raise Bad(f'{RoutesKind.values}, such as "10.0.0.0/8=host,::/0=vpp"')
        pairs.append((network.strip(), stack.strip()))
    return tuple(pairs)


def _parse_network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise Bad(f"networks such as 10.0.0.0/8 or ::/0 ({error})") from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        if mapped := network.network_address.ipv4_mapped:  # lookups see mapped addresses as IPv4
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


class RouteTable:
    """Which stack serves an address. Asked once per connect and bind; wildcard addresses are addresses like others.

    Args:
        routes: the user's as `Config` has checked them; they beat the built-in ones of the same length.
        vpp_attached: without VPP everything is the host's.

    Raises:
        ValueError: a route leads to VPP and there is none.
    """

    def __init__(self, routes: str | Iterable[tuple[str, str]], vpp_attached: bool) -> None:
        table: dict[_Network, Stack] = {}
        try:
            checked = RoutesKind().check(routes)
        except Bad as bad:
            raise ValueError(f"routes: {routes!r} is not allowed; use {bad}") from None
        for network, stack in (*(_WITH_VPP if vpp_attached else _WITHOUT_VPP), *checked):
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
