"""Sequences over TLS: places that serve and connect with it, and a player whose peer speaks it.

The reference is asyncio's loop with ssl, for pyOpenSSL too. Besides what the player normalises:

- write_eof() raises NotImplementedError, and ends nothing.
- A second close() and one after the end: asyncio forgets its protocol then, and each call after it raises.
- A high water of 0: asyncio pauses a protocol when nothing waits to be written, and may leave it so.
- How much the peer got of a connection with much to write that did not get all is "part".
- A BufferedProtocol hands out views: into a bytearray asyncio writes NULs (tls.records names what is mended).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trustme
from OpenSSL import SSL

import vppaio
from tests.differential.operations import BIG, Operation, Sequence, Step
from tests.differential.places import Place
from tests.differential.player import Player, Rule, buffered_kinds
from tests.support.sites import HostSite, Site, VppSite
from tests.support.tlspeer import TlsPeer, peer_context
from vppaio.testing.vppinstance import VppInstance

ENGINES: Final = ("ssl", "pyopenssl")
VERSIONS: Final = ("1.2", "1.3")
_CHUNK: Final = 1 << 18


# ---- sequences -------------------------------------------------------------------------------------------------------


def over_tls(plain: Sequence) -> Sequence:
    """The same from the handshake on, with what only a TLS peer can do; always the same for a sequence."""
    chance = random.Random(repr(plain))
    version = chance.choice(VERSIONS)

    def changed(operation: Operation) -> Operation:
        if operation == ("peer_shutdown",):
            return (chance.choice(("peer_shutdown", "peer_goodbye", "peer_fin")),)
        if operation[0] == "peer_send" and len(operation) > 1 and chance.random() < 0.15:
            return ("peer_update", chance.random() < 0.5) if version == "1.3" else ("peer_empty",)
        return operation

    steps = (
        step if step.is_alone() else Step(tuple(changed(operation) for operation in step.operations))
        for step in plain.steps
    )
    role = plain.role.removesuffix(" socket")
    return Sequence(role, plain.protocol, tuple(steps), tls=version)


# ---- places ----------------------------------------------------------------------------------------------------------


class Credentials:
    """One certificate, and contexts for both sides."""

    def __init__(self, engine: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        authority = trustme.CA()
        made = authority.issue_cert("localhost")
        self.chain, self.key, self.authority = (str(folder / name) for name in ("chain.pem", "key.pem", "ca.pem"))
        made.cert_chain_pems[0].write_to_path(self.chain)
        made.private_key_pem.write_to_path(self.key)
        authority.cert_pem.write_to_path(self.authority)
        self.peer = {version: peer_context(version, self.chain, self.key) for version in VERSIONS}
        self.server, self.client = self._ssl() if engine == "ssl" else self._pyopenssl()

    def close(self) -> None:
        self._folder.cleanup()

    def _ssl(self) -> tuple[Any, Any]:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(self.chain, self.key)
        return server, ssl.create_default_context(cafile=self.authority)

    def _pyopenssl(self) -> tuple[Any, Any]:
        server, client = SSL.Context(SSL.TLS_METHOD), SSL.Context(SSL.TLS_METHOD)
        server.use_certificate_chain_file(self.chain)
        server.use_privatekey_file(self.key)
        client.load_verify_locations(self.authority)
        client.set_verify(SSL.VERIFY_PEER, lambda *arguments: bool(arguments[-1]))
        return server, client


class TlsPlace(Place):
    """A place whose connections speak TLS, with `engine` on the loop's side."""

    def __init__(
        self, name: str, site: Site, loop: asyncio.AbstractEventLoop, flight_time: float = 0, engine: str = "ssl"
    ) -> None:
        self.credentials: Final = Credentials(engine)
        self.version: str = VERSIONS[0]  # of the next connection
        super().__init__(name, site, loop, flight_time)
        self._listener.setblocking(False)

    def close(self) -> None:
        super().close()
        self.credentials.close()

    async def connect(
        self,
        role: str,
        factory: Callable[[], Any],
        made: Callable[[], bool],
        met: Callable[[Any], None],
        on_socket: Callable[[Any], Awaitable[None]],
    ) -> None:
        deadline = time.monotonic() + 30  # the machine may be busy
        context = self.credentials.peer[self.version]
        connecting = None
        if role == "server":
            self._factory = factory
            sock = self.site.connect(self._port, timeout=None)
        else:
            connecting = asyncio.ensure_future(
                self.loop.create_connection(
                    factory, *self._listener.getsockname(), ssl=self.credentials.client, server_hostname="localhost"
                )
            )
            while True:
                await self.turn()
                with contextlib.suppress(BlockingIOError):
                    sock = self._listener.accept()[0]
                    break
                assert time.monotonic() < deadline, "no connection"
        self.bound_buffers(sock)
        sock.setblocking(False)
        end = TlsEnd(sock, context, role == "client")
        while not (end.shakes_hands() and made() and (connecting is None or connecting.done())):
            assert time.monotonic() < deadline, "no handshake"
            await self.turn()
        time.sleep(self.flight_time)  # noqa: ASYNC251
        end.absorb()
        if connecting is not None:
            transport, _ = connecting.result()
            self.bound_buffers(transport.get_extra_info("socket"))
        met(end)

    async def _serve(self) -> Any:
        factory, context = (lambda: self._factory()), self.credentials.server
        if isinstance(self.site, VppSite):
            return await self.loop.create_server(factory, self.site.address, 0, ssl=context)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # see Place
        self.bound_buffers(sock)
        sock.bind((self.site.address, 0))
        return await self.loop.create_server(factory, sock=sock, ssl=context)


def tls_places(stack: str, engine: str, vpp: VppInstance | None) -> tuple[TlsPlace, TlsPlace]:
    """The reference and ours."""
    reference = TlsPlace("asyncio", HostSite(), asyncio.SelectorEventLoop())
    site: Site = HostSite() if vpp is None else VppSite(vpp)
    flight_time = 0 if vpp is None else 0.003
    return reference, TlsPlace(stack, site, vppaio.new_event_loop(site.config), flight_time, engine)


class TlsEnd(TlsPeer):
    """A TlsPeer that waits for nothing, and is used as the kernel's socket is."""

    def __init__(self, sock: socket.socket, context: Any, server_side: bool) -> None:
        super().__init__(sock, context, server_side)
        self._unsent = b""
        self.is_polite = True  # and says goodbye before it closes
        self._has_said_goodbye = False

    def shakes_hands(self) -> bool:
        """Go on with it; whether it is done."""
        if self.records is None:
            self.push(self.step())
            with contextlib.suppress(BlockingIOError):
                self.tls.bio_write(self.sock.recv(_CHUNK))
                self.push(self.step())
        self.push(b"")
        return self.records is not None and not self._unsent

    def push(self, raw: bytes) -> None:
        """Send it, now or later."""
        self._unsent += raw
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def send(self, data: bytes, piece: int = 0) -> int:  # type: ignore[override]
        self.push(b"")
        if self._unsent:
            raise BlockingIOError
        if data:
            self.push(self.data(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        with contextlib.suppress(OSError):
            self.push(b"")
        while not self.heard and not self.said_goodbye:
            raw = self.sock.recv(_CHUNK)
            if not raw:
                return b""
            self.tls.bio_write(raw)
            self._decrypt()
        data = bytes(self.heard[:size])
        del self.heard[:size]
        if not data:
            with contextlib.suppress(OSError):
                self.say_goodbye()
        return data

    def absorb(self) -> None:
        """Read what is no data: tickets, key updates, a goodbye. A close with something unread is a reset."""
        with contextlib.suppress(OSError):
            if raw := self.sock.recv(_CHUNK):
                self.tls.bio_write(raw)
                self._decrypt()

    def say_goodbye(self) -> None:
        if not self._has_said_goodbye:
            self._has_said_goodbye = True
            self.push(self.goodbye())

    def setsockopt(self, *option: Any) -> None:
        self.sock.setsockopt(*option)
        self.is_polite = option[1] != socket.SO_LINGER

    def shutdown(self, how: int) -> None:
        self.say_goodbye()
        self.sock.shutdown(how)

    def close(self) -> None:
        if self.is_polite:
            with contextlib.suppress(OSError):
                self.say_goodbye()
        self.sock.close()


# ---- the player ------------------------------------------------------------------------------------------------------

_KINDS: Final = buffered_kinds(memoryview)


class TlsPlayer(Player):
    place: TlsPlace
    aborted = False

    async def play(self, *arguments: Any) -> Any:
        self.place.version = self.sequence.tls
        return await super().play(*arguments)

    def protocol(self, kind: str, keep_open: bool) -> Any:
        self.kind = kind
        return _KINDS[kind](self, next(self.numbers), keep_open)

    def _write_eof(self) -> Any:
        return self.transport.write_eof()

    def _close(self) -> Any:
        return None if self.transport.is_closing() else self.transport.close()

    def _abort(self) -> Any:
        self.aborted = True
        return self.transport.abort()

    def _set_write_buffer_limits(self, high: int | None, low: int | None) -> Any:
        if 0 not in (high, low if high is None else None):
            return self.transport.set_write_buffer_limits(high, low)

    def _peer_close(self) -> None:
        if Rule.RESET_DROPS_UNREAD in self.rules:
            if self.unread_by_peer or self.lost or self.aborted:
                self.peer.is_polite = False  # this is a reset, and the goodbye could be dropped too
            else:
                self.peer.absorb()
        super()._peer_close()

    def _received(self) -> int | str:
        # asyncio's TLS drops what is written behind a close or the peer's FIN, and the protocol hears of the end a turn
        # after the peer has seen it.
        return "part" if self.received < self.written and self.written >= BIG else self.received

    def _reads_undisturbed(self) -> bool:
        return not self.transport.is_closing() and super()._reads_undisturbed()  # it says "reading" to its end

    def peer_act(self, operation: Operation) -> None:
        name, *arguments = operation
        sends = name not in ("peer_close", "peer_reset", "peer_fin")
        if Rule.CLOSED_STILL_TAKES in self.rules and (self.lost or self.aborted) and sends:
            return
        if name not in ("peer_goodbye", "peer_fin", "peer_update", "peer_empty"):
            super().peer_act(operation)
        elif self.peer is not None and self.peer_writes:
            self.flight()
            if name in ("peer_goodbye", "peer_fin"):
                self.peer_writes = False
            with contextlib.suppress(OSError):
                match name:
                    case "peer_goodbye":
                        self.peer.say_goodbye()
                    case "peer_fin":
                        self.peer.sock.shutdown(socket.SHUT_WR)
                    case "peer_update":
                        self.peer.push(self.peer.key_update(*arguments))
                    case "peer_empty":
                        self.peer.push(self.peer.data(b""))
            self.flight()
