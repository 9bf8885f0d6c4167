"""Where sequences are played: asyncio's own loop, vppaio on the host stack, vppaio on VPP; the peer is the kernel's."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import vppaio
from testbed.vppinstance import VppInstance
from tests.support.sites import HostSite, Site, VppSite

_BUFFER: Final = 1 << 16  # bytes; the kernel doubles it
_BUFFERS: Final = (socket.SO_RCVBUF, socket.SO_SNDBUF)


class Place:
    """A loop with a server, a kernel listener, and connections between the kernel and either.

    Args:
        name: for messages.
        site: where the loop serves and the kernel does.
        loop: made for this place, and closed with it.
        flight_time: seconds until a packet has surely arrived at the other side.
    """

    def __init__(self, name: str, site: Site, loop: asyncio.AbstractEventLoop, flight_time: float = 0) -> None:
        self.name: Final = name
        self.site: Final = site
        self.loop: Final = loop
        self.flight_time: Final = flight_time
        self._factory: Callable[[], Any] = asyncio.Protocol
        self._server: Any = loop.run_until_complete(self._serve())
        self._port: int = self._server.sockets[0].getsockname()[1]
        self._listener = site.listen()

    def close(self) -> None:
        self._listener.close()
        self._server.close()
        self.loop.run_until_complete(asyncio.sleep(0.4 if self.flight_time else 0))
        self.loop.close()

    async def connect(self, role: str, factory: Callable[[], Any], made: Callable[[], bool]) -> socket.socket:
        """A connection; returns the kernel's end when `made` says that the other is there."""
        if role == "server":
            self._factory = factory
            peer = self.site.connect(self._port, timeout=None)
            deadline = time.monotonic() + 5
            while not made():
                assert time.monotonic() < deadline, "no connection_made"
                await self.turn()
        else:
            transport, _ = await self.loop.create_connection(factory, *self._listener.getsockname())
            peer = self._listener.accept()[0]
            self._bound_buffers(transport.get_extra_info("socket"))
        self._bound_buffers(peer)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        return peer

    async def turn(self) -> None:
        """Let the loop look, at something less than full speed: others want the processor too."""
        await asyncio.sleep(0)
        if self.flight_time:
            time.sleep(0.0001)  # noqa: ASYNC251  so that the kernel and VPP get their turn

    @staticmethod
    def _bound_buffers(sock: Any) -> None:
        for option in _BUFFERS:
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    async def _serve(self) -> Any:
        # With its protocol: asyncio sets TCP_NODELAY only where it knows that it is TCP, and small writes would wait.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._bound_buffers(sock)  # accepted sockets inherit them
        sock.bind((self.site.address, 0))
        return await self.loop.create_server(lambda: self._factory(), sock=sock)


class VppPlace(Place):
    def __init__(self, vpp: VppInstance, flight_time: float = 0.003) -> None:
        self.vpp = vpp
        site = VppSite(vpp)
        super().__init__("vpp", site, vppaio.new_event_loop(site.config), flight_time)

    async def _serve(self) -> Any:
        return await self.loop.create_server(lambda: self._factory(), self.site.address, 0)


def stock() -> Place:
    """The reference."""
    return Place("asyncio", HostSite(), asyncio.SelectorEventLoop())


def host() -> Place:
    site = HostSite()
    return Place("host", site, vppaio.new_event_loop(site.config))
