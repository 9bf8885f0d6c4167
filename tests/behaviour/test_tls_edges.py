"""TLS at its edges: the table of tls_cases.py with both engines, in both roles, with both versions, on both stacks.

What is expected is what asyncio's loop does with ssl, also of pyOpenSSL, but for the rows that say what asyncio has
wrong. A run takes a quarter of the cases: of each row other combinations of engine, role and version than of the row
before. `TESTS_EDGES=all python -m pytest -s tests/behaviour/test_tls_edges.py` takes all, and prints their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from OpenSSL import SSL

import vppaio
from tests.behaviour.tls_cases import ROWS
from tests.behaviour.tls_scripts import Buffered, Ours, Plain, Row
from tests.support.sites import HostSite, Site, VppSite
from tests.support.tlspeer import TlsPeer, peer_context
from vppaio.config import Config
from vppaio.testing.vppinstance import VppInstance

PATIENCE: Final = 10.0  # seconds
ALLOW_CLIENT_RENEGOTIATION: Final = 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION (openssl/ssl.h), which ssl does not name
ENGINES: Final = ("ssl", "pyopenssl")
EVERY: Final = 1 if os.environ.get("TESTS_EDGES") == "all" else 4
CASES: Final = [
    pytest.param(row, role, version, engine, id=f"{row.name}-{role}-{version}-{engine}")
    for n, row in enumerate(ROWS)
    for k, (role, version, engine) in enumerate(itertools.product(row.roles, row.versions, ENGINES))
    if (n + k) % EVERY == 0
]


class Credentials:
    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("localhost")
        self.authority, self.chain, self.key = (str(folder / name) for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.authority)
        made.cert_chain_pems[0].write_to_path(self.chain)
        made.private_key_pem.write_to_path(self.key)
        self._contexts: dict[Any, Any] = {}
        self.peer = {version: peer_context(version, self.chain, self.key) for version in ("1.2", "1.3")}

    def ours(self, engine: str, role: str) -> Any:
        if (engine, role) not in self._contexts:
            make = self._ssl if engine == "ssl" else self._pyopenssl
            self._contexts[engine, role] = make(role)
        return self._contexts[engine, role]

    def _ssl(self, role: str) -> ssl.SSLContext:
        if role == "client":
            return ssl.create_default_context(cafile=self.authority)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        context.options |= ALLOW_CLIENT_RENEGOTIATION
        return context

    def _pyopenssl(self, role: str) -> Any:
        context = SSL.Context(SSL.TLS_METHOD)
        if role == "client":
            context.load_verify_locations(self.authority)
            context.set_verify(SSL.VERIFY_PEER, lambda *arguments: bool(arguments[-1]))
        else:
            context.use_certificate_chain_file(self.chain)
            context.use_privatekey_file(self.key)
            context.set_options(ALLOW_CLIENT_RENEGOTIATION)
        return context


class Stage:
    """A loop, and the kernel around it."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, credentials: Credentials) -> None:
        self.site = site
        self.loop = loop
        self.credentials = credentials

    def play(self, row: Row, engine: str, role: str, version: str) -> dict[str, Any]:
        """What both sides saw."""
        return self.loop.run_until_complete(self._play(row, engine, role, version))

    async def _play(self, row: Row, engine: str, role: str, version: str) -> dict[str, Any]:
        problems: list[str] = []
        self.loop.set_exception_handler(lambda _, context: problems.append(type(context.get("exception")).__name__))
        ours = (Plain if row.buffer is None else Buffered)(row)
        context = self.credentials.ours(engine, role)
        async with contextlib.AsyncExitStack() as stack:
            if role == "server":
                server = await self.loop.create_server(lambda: ours, self.site.address, 0, ssl=context)
                await stack.enter_async_context(server)
                port = server.sockets[0].getsockname()[1]
                peer = _Thread(lambda: self.site.connect(port), self.credentials.peer[version], False, row, ours)
            else:
                listener = stack.enter_context(self.site.listen())
                listener.settimeout(PATIENCE)
                peer = _Thread(lambda: listener.accept()[0], self.credentials.peer[version], True, row, ours)
                address = listener.getsockname()
                with contextlib.suppress(OSError):  # it may end as soon as it is there
                    await self.loop.create_connection(lambda: ours, *address, ssl=context, server_hostname="localhost")
            await ours.until(lambda: ours.transport is not None or not peer.is_alive())
            if row.ours is not None and ours.transport is not None:
                await row.ours(ours)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ours.lost), PATIENCE / 2)
            if not ours.lost.done():
                ours.news.append("is stuck")
                if ours.transport is not None:
                    ours.transport.abort()
            await asyncio.to_thread(peer.join, PATIENCE)
        assert peer.failure is None, peer.failure
        seen = {
            "ours": ours.news,
            "paused at the end": ours.pauses % 2,
            "heard": bytes(ours.heard),
            "problems": problems,
        }
        if row.cut:
            return seen
        # Closing is a FIN or, if something came that nobody read, a reset; of an error that is chance.
        closed = peer.end in ("fin", "reset") and ours.news[-1] != "lost NoneType"
        end = "closed" if closed else peer.end
        return seen | {"heard by peer": bytes(peer.heard), "goodbye": peer.said_goodbye, "end": end}


class _Thread(threading.Thread):
    """The peer."""

    def __init__(self, connect: Any, context: Any, server_side: bool, row: Row, ours: Ours) -> None:
        super().__init__(daemon=True)
        self.heard = bytearray()
        self.said_goodbye = False
        self.end = ""
        self.failure: BaseException | None = None
        self._arguments = connect, context, server_side, row, ours
        self.start()

    def run(self) -> None:
        connect, context, server_side, row, ours = self._arguments
        try:
            with connect() as sock:
                sock.settimeout(PATIENCE)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                peer = TlsPeer(sock, context, server_side)
                peer.handshake(row.piece, lambda: row.behind(peer))
                with contextlib.suppress(OSError):  # the other side may end it
                    if not peer.end:
                        row.peer(peer, ours)
                    if not peer.end:
                        peer.shutdown_by_openssl() if peer.speaks_openssl else peer.send(peer.goodbye())
                if not peer.end:
                    peer.read_to_end()
            self.heard, self.said_goodbye, self.end = peer.heard, peer.said_goodbye, peer.end
        except BaseException as exc:
            self.failure = exc


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def staged(site: Site, loop: asyncio.AbstractEventLoop, credentials: Credentials) -> Iterator[Stage]:
    try:
        yield Stage(site, loop, credentials)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(scope="module")
def reference(credentials: Credentials) -> Iterator[Stage]:
    with staged(HostSite(), asyncio.SelectorEventLoop(), credentials) as stage:
        yield stage


@pytest.fixture(scope="module")
def host_stage(credentials: Credentials) -> Iterator[Stage]:
    with staged(HostSite(), vppaio.new_event_loop(Config(stack="host")), credentials) as stage:
        yield stage


@pytest.fixture(scope="module")
def vpp_stage(credentials: Credentials, vpp_instance: VppInstance) -> Iterator[Stage]:
    if not vpp_instance.healthy():
        vpp_instance.restart()
    site = VppSite(vpp_instance)
    with staged(site, vppaio.new_event_loop(site.config), credentials) as stage:
        yield stage
    assert not vpp_instance.crashed(), vpp_instance.log_tail()


@pytest.fixture(scope="module")
def known() -> dict[Any, dict[str, Any]]:
    """What asyncio did."""
    return {}


@pytest.fixture(params=["host", pytest.param("vpp", marks=pytest.mark.vpp)])
def stage(request: pytest.FixtureRequest) -> Stage:
    return request.getfixturevalue(f"{request.param}_stage")


def shortened(outcome: dict[str, Any]) -> dict[str, Any]:
    """For a message."""
    return {key: f"{len(value)} bytes" if isinstance(value, bytes) else value for key, value in outcome.items()}


@pytest.mark.parametrize(("row", "role", "version", "engine"), CASES)
def test_an_edge_of_tls_is_as_asyncio_has_it(
    row: Row, role: str, version: str, engine: str, stage: Stage, reference: Stage, known: dict[Any, dict[str, Any]]
) -> None:
    seen = stage.play(row, engine, role, version)
    expected = row.expected
    if expected is None:
        key = row.name, role, version
        if key not in known:
            known[key] = reference.play(row, "ssl", role, version)
        expected = known[key]
    different = [key for key, value in expected.items() if seen[key] != value]
    assert not different, f"\n  expected: {shortened(expected)}\n  seen:     {shortened(seen)}"
    assert "is stuck" not in seen["ours"]


def test_the_table_is_large_enough() -> None:
    number = len(CASES) * 2
    print(f"TLS at its edges: {number} cases, {number // 2} on each stack")
    assert number >= 400
