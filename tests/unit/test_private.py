"""What vppaio uses of asyncio's private parts is listed in vppaio/private.py, and exists in the running interpreter."""

from __future__ import annotations

import ast
import asyncio
import dis
import inspect
import re
import socket
import ssl
from asyncio import (
    base_events,
    constants,
    events,
    format_helpers,
    futures,
    selector_events,
    sslproto,
    streams,
    transports,
    trsock,
)
from pathlib import Path
from typing import Any

import pytest

import vppaio
from vppaio import private

PACKAGE = Path(vppaio.__file__).parent
CLASSES = {
    node.name: node for node in ast.parse(Path(private.__file__).read_text()).body if isinstance(node, ast.ClassDef)
}
del CLASSES["Private"]
# asyncio's class, and what ours declares of it.
DECLARED = {
    getattr(private, name).__base__: {
        item.target.id if isinstance(item, ast.AnnAssign) else item.name
        for item in ast.walk(node)
        if isinstance(item, ast.AnnAssign | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for name, node in CLASSES.items()
}
OWNERS = [*DECLARED.items(), *((entry.owner, {*entry.names.split()}) for entry in private.PRIVATE)]
LISTED = {name for _, names in OWNERS for name in names}
METHODS = [
    (
        getattr(private, name).__base__,
        method.name,
        [argument.arg for argument in method.args.args[: len(method.args.args) - len(method.args.defaults)]],
    )
    for name, node in CLASSES.items()
    for method in ast.walk(node)
    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name != "__init__"
]
MODULES = (
    base_events,
    constants,
    events,
    format_helpers,
    futures,
    selector_events,
    sslproto,
    streams,
    transports,
    trsock,
)
# asyncio's classes whose fields these modules work on: what a class there has is asyncio's, whoever assigns it.
HEIRS = {
    "loop/eventloop.py": [asyncio.SelectorEventLoop],
    "loop/scheduler.pyx": [asyncio.SelectorEventLoop, asyncio.TimerHandle],
    "loop/serve.py": [base_events.Server],
    "tls/protocol.py": [sslproto.SSLProtocol],
    "tls/records.pyx": [sslproto.SSLProtocol, sslproto._SSLProtocolTransport],
}
_PRIVATE = r"(_[a-zA-Z]\w*)"


def names_of(owner: Any) -> set[str]:
    """What a module has, or a class of asyncio's, and what its methods assign to its objects."""
    if inspect.ismodule(owner):
        return {*vars(owner)}
    found = set(dir(owner))
    for base in owner.__mro__:
        for method in vars(base).values():
            method = getattr(method, "__func__", method)
            if inspect.isfunction(method):
                found |= {step.argval for step in dis.get_instructions(method) if step.opname == "STORE_ATTR"}
    return found


def asyncios_names() -> set[str]:
    """All private ones, of modules, classes and objects."""
    found = set()
    for module in MODULES:
        found |= names_of(module)
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found |= names_of(value)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def code_of(path: Path) -> str:
    """Without comments and docstrings."""
    return re.sub(r"#.*", "", re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL))


def defined_in(path: Path) -> set[str]:
    """Private names that a module of ours gives to its own classes."""
    code = code_of(path)
    header = path.with_suffix(".pxd")
    own = {*re.findall(rf"self\.{_PRIVATE}(?:: [^=\n]+)? = ", code), *re.findall(rf"def {_PRIVATE}\(", code)}
    own |= {*re.findall(rf"^ +cdef .*?\b{_PRIVATE}", code, re.MULTILINE)}
    return own | ({*re.findall(rf"\b{_PRIVATE}", code_of(header))} if header.exists() else set())


def used_in(path: Path) -> set[str]:
    """Private names of asyncio's that a module of ours uses, where neither it nor a neighbour defines them."""
    code = code_of(path)
    used = {*re.findall(rf"\.{_PRIVATE}", code), *re.findall(rf"def {_PRIVATE}\(", code)}
    for line in re.findall(r"from asyncio\S* import (.*)", code):
        used |= {*re.findall(rf"\b{_PRIVATE}", line)}
    heir_of = HEIRS.get(str(path.relative_to(PACKAGE)), [])
    neighbours = [path] if heir_of else [other for other in SOURCES if other.parent == path.parent]
    own = {name for neighbour in neighbours for name in defined_in(neighbour)}
    return (used & asyncios_names()) - own.difference(*map(names_of, heir_of))


SOURCES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx") and path.name != "private.py")


@pytest.mark.parametrize(
    ("owner", "name", "parameters"), METHODS, ids=lambda value: getattr(value, "__name__", str(value)[:40])
)
def test_method_is_there_and_takes_what_we_give(owner, name, parameters):
    theirs = inspect.signature(getattr(owner, name)).parameters
    anything = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in theirs.values())
    assert anything or set(parameters) <= set(theirs)


@pytest.mark.parametrize(("owner", "names"), OWNERS, ids=lambda value: getattr(value, "__name__", ""))
def test_names_are_there(owner, names):
    assert names - names_of(owner) == set()


def test_openssls_object_has_what_the_fast_path_calls():
    connection = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    for name in ("read", "write", "pending"):
        assert callable(getattr(connection._sslobj, name))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_uses_only_what_is_listed(path):
    assert used_in(path) - LISTED == set(), "list them in vppaio/private.py"


def test_uses_are_found():
    """A rule that finds nothing to judge is kept by everybody."""
    assert "_write_backlog" in used_in(PACKAGE / "tls" / "records.pyx")
    assert "_stream_reader" in used_in(PACKAGE / "loop" / "connect.py")
    assert "_set_result_unless_cancelled" in used_in(PACKAGE / "transports" / "base.pyx")
    assert "_ready" in used_in(PACKAGE / "loop" / "scheduler.pyx")


def test_what_is_listed_is_used():
    code = "".join(path.read_text() for path in SOURCES) + inspect.getsource(private.check_ssl_socket)
    assert {name for name in LISTED if not re.search(rf"\b{name}\b", code)} == set()


def test_copies_of_asyncios_numbers():
    """A Cython enum cannot ask asyncio."""
    values = {"LOG_THRESHOLD": constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES}
    found = [match for path in SOURCES for match in re.findall(r"(LOG_THRESHOLD) = (\d+)", path.read_text())]
    assert len(found) == 3
    assert all(int(number) == values[name] for name, number in found)


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
