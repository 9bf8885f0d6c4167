"""What is looked up is not kept: a method that a protocol assigns, or its class gets, and the address of a name.

Each case runs on asyncio's loop too, and has to give the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import vppaio
from tests.behaviour.test_first_data import NAME, TLS
from tests.support.sites import HostSite, Site
from vppaio.transports import destination

# ---- methods of the protocol ----------------------------------------------------------------------------------------

STREAM: Final = ("data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost")
BUFFERED: Final = ("get_buffer", "buffer_updated", "eof_received", "pause_writing", "resume_writing", "connection_lost")
DATAGRAM: Final = ("datagram_received", "error_received", "connection_lost")
BASES: Final[dict[str, Any]] = {
    "stream": (asyncio.Protocol, STREAM),
    "buffered": (asyncio.BufferedProtocol, BUFFERED),
    "datagram": (asyncio.DatagramProtocol, DATAGRAM),
}
# Who gets the new method, and when: before the transport calls the old one for the first time, between two calls, or in
# the call itself.
OWNERS: Final = ("instance", "class", "base", "__class__", "__getattribute__", "removed")
MOMENTS: Final = ("before", "between", "inside")


class Seen(list[str]):
    """What was called."""


def make(kind: str, seen: Seen) -> Any:
    """A protocol whose methods note their names, and a base class of its own."""
    base, names = BASES[kind]

    def noting(name: str, mark: str) -> Callable[..., Any]:
        def method(self: Any, *arguments: Any) -> Any:
            seen.append(f"{mark}{name}")
            if (inside := self.__dict__.get("inside")) is not None and name == inside[0]:
                self.inside = None
                inside[1]()
            return bytearray(1 << 16) if name == "get_buffer" else None

        return method

    below = type("Below", (base,), {name: noting(name, "") for name in names})
    made = type("Made", (below,), {})()
    made.noting = noting
    made.below = below
    return made


def replace(protocol: Any, owner: str, name: str) -> None:
    new = protocol.noting(name, "new ")
    if owner == "instance":
        setattr(protocol, name, new.__get__(protocol))
    elif owner == "class":
        setattr(type(protocol), name, new)
    elif owner == "base":
        setattr(protocol.below, name, new)
    elif owner == "__class__":
        protocol.__class__ = type("Other", (type(protocol),), {name: new})
    elif owner == "__getattribute__":
        kept = type(protocol)

        def found(self: Any, asked: str) -> Any:
            return new.__get__(self) if asked == name else object.__getattribute__(self, asked)

        protocol.__class__ = type("Dynamic", (kept,), {"__getattribute__": found})
    else:
        delattr(protocol.below, name)  # what asyncio's base has is left


def method_cases() -> Iterator[tuple[str, str, str, str]]:
    for kind, (_, names) in BASES.items():
        yield from ((kind, name, owner, moment) for name, owner, moment in itertools.product(names, OWNERS, MOMENTS))


async def play_stream(site: Site, kind: str, name: str, owner: str, moment: str) -> Seen:
    loop = asyncio.get_running_loop()
    seen = Seen()
    loop.set_exception_handler(lambda loop, context: seen.append(f"failed: {type(context['exception']).__name__}"))
    protocol = make(kind, seen)
    arm(protocol, owner, name, moment)
    with site.listen() as listener:
        transport, _ = await loop.create_connection(lambda: protocol, *listener.getsockname()[:2])
        peer = listener.accept()[0]
    with peer:
        for _ in range(2):
            with contextlib.suppress(ConnectionError):  # a method failed, and ended the connection
                peer.sendall(b"x")
                await turns(site)
                transport.set_write_buffer_limits(high=0)
                transport.write(bytes(1 << 23))  # more than fits anywhere
                await drained(peer, transport)
            if moment == "between":
                replace(protocol, owner, name)
                moment = ""
            seen.append("-")
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
        await turns(site)
        transport.abort()
        await asyncio.sleep(0)
    return Seen(entry for entry, _ in itertools.groupby(seen))


def arm(protocol: Any, owner: str, name: str, moment: str) -> None:
    if moment == "before":
        replace(protocol, owner, name)
    elif moment == "inside":
        protocol.inside = (name, lambda: replace(protocol, owner, name))


async def turns(site: Site) -> None:
    """Let the loop hear of what the kernel's end has done."""
    site.settle()
    for _ in range(6):
        await asyncio.sleep(0)


async def drained(peer: socket.socket, transport: Any) -> None:
    peer.setblocking(False)
    while transport.get_write_buffer_size():
        with contextlib.suppress(BlockingIOError):
            peer.recv(1 << 20)
        await asyncio.sleep(0)
    peer.setblocking(True)


async def play_datagrams(site: Site, kind: str, name: str, owner: str, moment: str) -> Seen:
    loop = asyncio.get_running_loop()
    seen = Seen()
    loop.set_exception_handler(lambda loop, context: seen.append(f"failed: {type(context['exception']).__name__}"))
    protocol = make(kind, seen)
    arm(protocol, owner, name, moment)
    with site.datagrams() as peer:
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(site.address, free_port(site)))
        address = transport.get_extra_info("sockname")
        for _ in range(2):
            peer.sendto(b"x", address)
            await turns(site)
            transport.sendto(bytes(70000), peer.getsockname())  # EMSGSIZE
            if moment == "between":
                replace(protocol, owner, name)
                moment = ""
            seen.append("-")
    transport.close()
    for _ in range(3):
        await asyncio.sleep(0)
    return seen


def free_port(site: Site) -> int:
    with site.datagrams() as sock:
        port: int = sock.getsockname()[1]
        return port


def play_methods(loop_factory: Callable[[], Any], site: Site, cases: list[Any]) -> list[Seen]:
    async def main() -> list[Seen]:
        return [await (play_datagrams if case[0] == "datagram" else play_stream)(site, *case) for case in cases]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


@pytest.mark.parametrize("kind", BASES)
def test_no_method_is_called_that_the_protocol_has_replaced(stack: Site, kind: str) -> None:
    cases = [case for case in method_cases() if case[0] == kind]
    expected = play_methods(asyncio.SelectorEventLoop, HostSite(), cases)
    seen = play_methods(lambda: vppaio.new_event_loop(stack.config), stack, cases)
    for case, theirs, ours in zip(cases, expected, seen, strict=True):
        assert ours == theirs, case
    print(f"{len(cases)} replaced methods on {stack.name}")


def test_no_write_of_the_transport_below_tls_is_kept(stack: Site) -> None:
    async def main() -> tuple[list[str], bytes]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        with stack_of_loop(stack).listen() as listener:
            below, protocol = await loop.create_connection(asyncio.Protocol, *listener.getsockname()[:2])
            peer = listener.accept()[0]

            def echo() -> bytes:
                with TLS.server().wrap_socket(peer, server_side=True) as tls:
                    return b"".join(tls.recv(1) for _ in range(3))

            received = loop.run_in_executor(None, echo)
            above: Any = await loop.start_tls(below, protocol, TLS.client(), server_hostname=NAME)
            above.write(b"1")
            write = below.write
            below.write = lambda data: (seen.append("replaced"), write(data))[1]
            above.write(b"2")
            below.write = lambda data: (seen.append("again"), write(data))[1]
            above.write(b"3")
            data = await received
            above.abort()
            await asyncio.sleep(0)
        return seen, data

    def stack_of_loop(site: Site) -> Site:
        return site if isinstance(asyncio.get_running_loop(), vppaio.EventLoop) else HostSite()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        expected = runner.run(main())
    assert expected == (["replaced", "again"], b"123")
    assert stack.run(main) == expected


# ---- the address of a name, and addresses that are none --------------------------------------------------------------


def told(exc: BaseException) -> str:
    """What of an exception is the same: our OSErrors also name the call and the address."""
    return f"{type(exc).__name__} {exc.errno}" if isinstance(exc, OSError) else repr(exc)


class Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def error_received(self, exc: Exception) -> None:
        self.seen.append(f"error_received: {told(exc)}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(f"connection_lost: {exc and told(exc)}")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_no_name_keeps_its_first_address(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """The host stack's; VPP's endpoint has the same code."""
    loopback, other = ("127.0.0.1", "127.0.0.2") if family == socket.AF_INET else ("::1", "::1")
    answers = itertools.cycle([loopback, other])
    asked = []

    def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if host == b"moving.test":
            asked.append(host)
            host = next(answers)
        return real(host, port, *rest, **named)

    real = socket.getaddrinfo

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(family, socket.SOCK_DGRAM) as first, socket.socket(family, socket.SOCK_DGRAM) as second:
            first.bind((loopback, 0))
            second.bind((other, first.getsockname()[1] if other != loopback else 0))
            transport, _ = await loop.create_datagram_endpoint(Answers, local_addr=(loopback, 0), family=family)
            for _ in range(4):
                transport.sendto(b"x", ("moving.test", first.getsockname()[1]))
            assert len(asked) == 4
            for peer in (first, second) if other != loopback else (first, first):
                peer.settimeout(5)
                assert [peer.recv(10) for _ in range(2)] == [b"x", b"x"]
            transport.close()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    vppaio.run(main(), config=HostSite.config)


HOSTS: Final[tuple[Any, ...]] = (
    "127.0.0.1", "127.1", "", "localhost", b"127.0.0.1", bytearray(b"127.0.0.1"), "::1", "::", "::ffff:127.0.0.1",
    "fe80::1", "no.such.name.invalid", "256.0.0.1", "1", "\u00e9.invalid", "a\0b", "x" * 300, None, 1, ("127.0.0.1",),
    "<broadcast>", "255.255.255.255", " 127.0.0.1", "127.0.0.1 ", "[::1]", "127.0.0.1:9",
)  # fmt: skip
PORTS: Final[tuple[Any, ...]] = (9, 0, -1, 65535, 65536, 1 << 40, "9", None, 9.0, True)
TUPLES: Final[tuple[Any, ...]] = (
    None, (), ("127.0.0.1",), ["127.0.0.1", 9], "127.0.0.1", 9, ("127.0.0.1", 9, 0), ("127.0.0.1", 9, 0, 0),
    ("::1", 9, 0), ("::1", 9, 0, 0), ("::1", 9, 1 << 20, 0), ("::1", 9, -1, 0), ("::1", 9, 0, 0, 0), ("::1", 9, "0", 0),
    ("::1", 9, 0, 99), {"127.0.0.1": 9},
)  # fmt: skip


class Pair(tuple[Any, ...]):
    """An address that is more than a tuple."""


def addresses() -> list[Any]:
    every = [(host, port) for host in HOSTS for port in PORTS[:1]]
    every += [(host, port) for host in ("127.0.0.1", "::1", "localhost", None) for port in PORTS[1:]]
    return [*every, *TUPLES, Pair(("127.0.0.1", 9)), Pair(("::1", 9))]


async def outcomes(family: int, twice: bool) -> list[list[str]]:
    """What becomes of a datagram to each address."""
    loop = asyncio.get_running_loop()
    found = []
    for address in addresses():
        loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
        transport, protocol = await loop.create_datagram_endpoint(Answers, local_addr=(loopback, 0), family=family)
        loop.set_exception_handler(
            lambda loop, context, seen=protocol.seen: seen.append(f"{context['message']}: {told(context['exception'])}")
        )
        if twice:  # after one that is kept and equal, if it is kept
            transport.sendto(b"x", (loopback, 9))
            protocol.seen.clear()
        try:
            transport.sendto(b"x", address)
        except Exception as exc:
            protocol.seen.append(f"raised {exc!r}")
        await asyncio.sleep(0)
        transport.abort()
        await asyncio.sleep(0)
        found.append([entry for entry in protocol.seen if entry != "connection_lost: None"])
    return found


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
@pytest.mark.parametrize("twice", [False, True], ids=["first", "second"])
def test_no_address_means_what_it_does_not_on_asyncio(family: int, twice: bool) -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        expected = runner.run(outcomes(family, twice))
    with asyncio.Runner(loop_factory=lambda: vppaio.new_event_loop(HostSite.config)) as runner:
        seen = runner.run(outcomes(family, twice))
    for address, theirs, ours in zip(addresses(), expected, seen, strict=True):
        assert ours == theirs, address
    print(f"{len(seen)} addresses")


@pytest.mark.parametrize("host", ["::1", "2001:db8::1", "no.such.name.invalid"])
def test_no_datagram_to_another_family_disappears(stack: Site, host: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Answers, local_addr=(stack.address, free_port(stack)))
        transport.sendto(b"x", (host, 9))
        assert [entry.partition(" ")[2][:8] for entry in protocol.seen] == ["gaierror"]
        sock = vppaio.socket(type=socket.SOCK_DGRAM)
        with pytest.raises(socket.gaierror):
            await loop.sock_sendto(sock, b"x", (host, 9))
        sock.close()
        transport.close()

    stack.run(main)


def test_no_own_address_is_believed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was VPP's may be taken away; what is known of it is asked again after a while."""
    from vppaio.loop import connect

    probes = []

    class Probe:
        worker = type("Worker", (), {"__hash__": object.__hash__})()
        family = socket.AF_INET

        def __init__(self, *arguments: Any) -> None:
            pass

        def getsockname(self) -> Any:
            return ("192.0.2.7", 0)

        def bind(self, address: Any) -> None:
            probes.append(address)

        def listen(self, backlog: int) -> None:
            if len(probes) > 1:
                raise OSError("gone")

        def close(self) -> None:
            pass

    now = [100.0]
    monkeypatch.setattr(connect, "SessionSocket", Probe)
    monkeypatch.setattr(connect.time, "monotonic", lambda: now[0])
    sock: Any = Probe()
    loop: Any = types.SimpleNamespace(_stacks=types.SimpleNamespace(stack_for=lambda ip: "vpp"))
    peer = ("192.0.2.1", 80)
    connect._require_source(loop, sock, peer)
    connect._require_source(loop, sock, peer)
    assert len(probes) == 1
    now[0] += connect._OWN_FOR_S
    with pytest.raises(OSError, match="gone"):
        connect._require_source(loop, sock, peer)
    with pytest.raises(OSError, match="gone"):
        connect._require_source(loop, sock, peer)


def test_numeric_addresses_are_what_the_socket_module_makes_of_them() -> None:
    assert destination.numeric(("localhost", 9), socket.AF_INET) == ("127.0.0.1", 9, 0)
    assert destination.numeric(("::1", 9, 0, 3), socket.AF_INET6) == ("::1", 9, 3)
