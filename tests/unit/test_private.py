"""What vppaio uses of asyncio's private parts exists in the running interpreter, with the parameters it relies on."""

from __future__ import annotations

import ast
import asyncio
import inspect
import socket
import ssl
from asyncio import base_events, sslproto
from pathlib import Path

import pytest

import vppaio
from vppaio.loop import private

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
# What tls.records replaces or uses.
TLS_METHODS = (
    "_call_eof_received",
    "_control_app_writing",
    "_control_ssl_reading",
    "_do_read",
    "_do_read__buffered",
    "_do_read__copied",
    "_do_write",
    "_get_app_transport",
    "_get_read_buffer_size",
    "_on_handshake_complete",
    "_process_outgoing",
    "_start_shutdown",
    "_write_appdata",
)


@pytest.mark.parametrize(("owner", "name", "parameters"), METHODS, ids=lambda value: str(value)[:40])
def test_method_is_there_and_takes_what_we_give(owner, name, parameters):
    theirs = inspect.signature(getattr(BASES[owner], name)).parameters
    anything = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in theirs.values())
    assert anything or set(parameters) <= set(theirs)


@pytest.mark.parametrize("name", TLS_METHODS)
def test_tls_protocol_has_what_records_builds_on(name):
    assert callable(getattr(sslproto.SSLProtocol, name))


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
