"""Where sequences are played: asyncio's own loop, vppaio on the host stack, vppaio on VPP; the peer is the kernel's."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import vppaio
from tests.support.sites import HostSite, Site, VppSite
from vppaio.testing.vppinstance import VppInstance

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
        self._accepting: Any = None

    def close(self) -> None:
        self._listener.close()
        if self._accepting is not None:
            self._accepting.close()
        self._server.close()
        self.loop.run_until_complete(asyncio.sleep(0.4 if self.flight_time else 0))
        self.loop.close()

    async def connect(
        self,
        role: str,
        factory: Callable[[], Any],
        made: Callable[[], bool],
        met: Callable[[socket.socket], None],
        on_socket: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Make a connection.

        Args:
            role: of the loop's end, of operations.ROLES.
            factory: makes its protocol.
            made: says that its transport is there.
            met: gets the kernel's end, before there is a transport.
            on_socket: gets the loop's socket, where there is one before the transport.
        """
        if role == "server":
            self._factory = factory
            met(self._dial(self._port))
            deadline = time.monotonic() + 5
            while not made():
                assert time.monotonic() < deadline, "no connection_made"
                await self.turn()
        elif role == "client":

            def with_peer() -> Any:
                met(self._taken())
                return factory()

            await self.loop.create_connection(with_peer, *self._listener.getsockname())
        elif role == "client socket":
            sock = self.socket()
            await self.loop.sock_connect(sock, self._listener.getsockname())
            met(self._taken())
            await on_socket(sock)
            await self.loop.create_connection(factory, sock=sock)
        else:
            listener = self._listening_socket()
            peer = self._dial(listener.getsockname()[1])
            sock, _ = await self.loop.sock_accept(listener)
            met(peer)
            await on_socket(sock)
            await self.loop.connect_accepted_socket(factory, sock)

    def socket(self) -> Any:
        """A stream socket of the loop's stack."""
        if isinstance(self.loop, vppaio.EventLoop):
            return vppaio.socket()
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as in _serve
        made.setblocking(False)
        return made

    def _listening_socket(self) -> Any:
        if self._accepting is None:
            self._accepting = self.socket()
            self.bound_buffers(self._accepting)
            self._accepting.bind((self.site.address, 0))
            self._accepting.listen(100)
        return self._accepting

    def _dial(self, port: int) -> socket.socket:
        return self._tuned(self.site.connect(port, timeout=None))

    def _taken(self) -> socket.socket:
        return self._tuned(self._listener.accept()[0])

    def _tuned(self, peer: socket.socket) -> socket.socket:
        self.bound_buffers(peer)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        return peer

    async def turn(self) -> None:
        """Let the loop look, at something less than full speed: others want the processor too."""
        await asyncio.sleep(0)
        if self.flight_time:
            time.sleep(0.0001)  # noqa: ASYNC251  so that the kernel and VPP get their turn

    @staticmethod
    def bound_buffers(sock: Any) -> None:
        for option in _BUFFERS:
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    async def _serve(self) -> Any:
        # With its protocol: asyncio sets TCP_NODELAY only where it knows that it is TCP, and small writes would wait.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.bound_buffers(sock)  # accepted sockets inherit them
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
