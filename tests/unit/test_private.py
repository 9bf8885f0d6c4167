"""What vppaio uses of asyncio's private parts exists in the running interpreter, with the parameters it relies on."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import socket
import ssl
from asyncio import base_events, sslproto
from pathlib import Path

import pytest

import vppaio
from vppaio.loop import private
from vppaio.tls import private as tls

SOURCE = ast.parse(Path(private.__file__).read_text())
BASES = {"SelectorLoop": asyncio.SelectorEventLoop, "BaseServer": base_events.Server}
METHODS = [
    (
        owner.name,
        method.name,
        [argument.arg for argument in method.args.args[: len(method.args.args) - len(method.args.defaults)]],
    )
    for owner in SOURCE.body
    if isinstance(owner, ast.ClassDef)
    for method in ast.walk(owner)
    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name != "__init__"
]
TLS = Path(tls.__file__).parent
TLS_SOURCE = ast.parse(Path(tls.__file__).read_text())
TLS_NAMES = {
    owner.name: sorted(
        item.target.id if isinstance(item, ast.AnnAssign) else item.name
        for item in ast.walk(owner)
        if isinstance(item, ast.AnnAssign | ast.FunctionDef)
    )
    for owner in TLS_SOURCE.body
    if isinstance(owner, ast.ClassDef)
}
OURS = {"_calls", "_write_through"}  # of RecordProtocol


@pytest.mark.parametrize(("owner", "name", "parameters"), METHODS, ids=lambda value: str(value)[:40])
def test_method_is_there_and_takes_what_we_give(owner, name, parameters):
    theirs = inspect.signature(getattr(BASES[owner], name)).parameters
    anything = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in theirs.values())
    assert anything or set(parameters) <= set(theirs)


def test_asyncios_and_ssls_objects_have_what_tls_uses():
    loop = asyncio.SelectorEventLoop()
    protocol = sslproto.SSLProtocol(loop, asyncio.BufferedProtocol(), ssl.create_default_context(), None)
    transport = protocol._app_transport
    reader = asyncio.StreamReader(loop=loop)
    objects = {
        "SslProtocol": protocol,
        "SslTransport": transport,
        "SslObject": protocol._sslobj,
        "StreamReader": reader,
    }
    transport.abort()
    loop.close()
    assert objects.keys() == TLS_NAMES.keys()
    for owner, names in TLS_NAMES.items():
        assert names
        for name in names:
            assert hasattr(objects[owner], name), f"{owner}.{name}"
    for name in ("read", "write", "pending"):
        assert callable(getattr(protocol._sslobj._sslobj, name))


def test_tls_uses_no_private_name_that_is_not_listed():
    """Used is what it asks for as an attribute, and what it replaces."""
    used = set()
    for name in ("records.pyx", "protocol.py"):
        used |= set(re.findall(r"(?:\.|\bdef )(_[a-z]\w*)", (TLS / name).read_text()))
    listed = set().union(*TLS_NAMES.values())
    assert used - OURS == listed


def test_loop_has_what_we_use():
    loop = asyncio.SelectorEventLoop()
    for name in ("_csock", "_debug", "_selector", "_signal_handlers"):
        assert hasattr(loop, name), name
    loop.close()


def test_ssl_sockets_are_refused():
    """In asyncio's words: their bytes would go around the TLS that they do."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        plain, peer = socket.socketpair()
        context = ssl.create_default_context()
        with peer, context.wrap_socket(plain, server_hostname="x", do_handshake_on_connect=False) as sock:
            sock.setblocking(False)
            refused = pytest.raises(TypeError, match="Socket cannot be of type SSLSocket")
            with refused:
                private.check_ssl_socket(sock)
            with refused:
                await loop.sock_recv(sock, 1)
            with refused:
                await loop.create_connection(asyncio.Protocol, sock=sock)
            with refused:
                await loop.create_server(asyncio.Protocol, sock=sock)

    vppaio.run(main(), config=vppaio.Config(stack="host"))
