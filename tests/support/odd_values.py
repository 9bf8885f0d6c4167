"""What programs hand to a loop although the documentation does not name it: one table of cases.

A case is a coroutine function that gets the running loop and returns what came of it, in plain values. An exception is
an outcome, too. Everything is on the loopback interface.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import enum
import io
import ipaddress
import mmap
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

Case = Callable[[Any], Awaitable[Any]]
HOST = "127.0.0.1"


class Bytes(bytes):
    pass


class Bytearray(bytearray):
    pass


class Structure(ctypes.Structure):
    _fields_ = (("a", ctypes.c_uint16), ("b", ctypes.c_uint16))


class Exporter:
    """Looks like bytes and is none."""

    def __bytes__(self) -> bytes:
        return b"abc"

    def __len__(self) -> int:
        return 3


def mapped() -> mmap.mmap:
    made = mmap.mmap(-1, 16)
    made[:3] = b"abc"
    return made


DATA: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abc",
    "empty bytes": lambda: b"",
    "bytes subclass": lambda: Bytes(b"abc"),
    "large bytes": lambda: b"x" * 300_000,
    "bytearray": lambda: bytearray(b"abc"),
    "empty bytearray": lambda: bytearray(),
    "bytearray subclass": lambda: Bytearray(b"abc"),
    "memoryview": lambda: memoryview(b"abc"),
    "empty memoryview": lambda: memoryview(b""),
    "writable memoryview": lambda: memoryview(bytearray(b"abc")),
    "slice of a memoryview": lambda: memoryview(b"abcdef")[1:4],
    "memoryview with steps": lambda: memoryview(bytearray(b"abcdef"))[::2],
    "reversed memoryview": lambda: memoryview(bytearray(b"abcdef"))[::-1],
    "memoryview of ints": lambda: memoryview(array.array("i", [1, 2, 3])),
    "memoryview of two dimensions": lambda: memoryview(bytearray(b"abcdef")).cast("B", [2, 3]),
    "memoryview of no dimension": lambda: memoryview(bytearray(b"abcd")).cast("I", []),
    "memoryview with an empty dimension": lambda: memoryview(bytearray(b"")).cast("B", [0]),
    "released memoryview": lambda: released(),
    "array of bytes": lambda: array.array("b", b"abc"),
    "array of ints": lambda: array.array("I", [1, 2, 3]),
    "empty array": lambda: array.array("d"),
    "mmap": mapped,
    "ctypes chars": lambda: (ctypes.c_char * 3)(*b"abc"),
    "ctypes ints": lambda: (ctypes.c_int32 * 3)(1, 2, 3),
    "ctypes structure": lambda: Structure(1, 2),
    "ctypes number": lambda: ctypes.c_uint16(7),
    "buffer of a BytesIO": lambda: io.BytesIO(b"abc").getbuffer(),
    "BytesIO": lambda: io.BytesIO(b"abc"),
    "str": lambda: "abc",
    "empty str": lambda: "",
    "int": lambda: 3,
    "zero": lambda: 0,
    "True": lambda: True,
    "float": lambda: 1.5,
    "None": lambda: None,
    "list of ints": lambda: [1, 2, 3],
    "empty list": lambda: [],
    "list of bytes": lambda: [b"abc", b"def"],
    "tuple of ints": lambda: (1, 2),
    "object with __bytes__": Exporter,
    "object": lambda: object(),
}


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


class Port(enum.IntEnum):
    """Its member is made for a port."""


def port_enum(port: int) -> Any:
    return enum.IntEnum("Port", {"it": port}).it  # type: ignore[attr-defined]


PORTS: dict[str, Callable[[int], Any]] = {
    "int": lambda port: port,
    "str": str,
    "IntEnum": port_enum,
    "bytes": lambda port: str(port).encode(),
    "None": lambda port: None,
    "negative": lambda port: -1,
    "too large": lambda port: 65536 + port,
    "huge": lambda port: 1 << 70,
    "float": float,
    "word": lambda port: "no-such-service",
    "empty str": lambda port: "",
    "True": lambda port: True,
    "list": lambda port: [port],
}
HOSTS: dict[str, Any] = {
    "str": HOST,
    "short": "127.1",
    "name": "localhost",
    "bytes": HOST.encode(),
    "bytearray": bytearray(HOST.encode()),
    "IPv4Address": ipaddress.IPv4Address(HOST),
    "int": 0x7F000001,
    "None": None,
    "empty str": "",
    "nonsense": "256.256.256.256.",
    "with NUL": "127.0.0.1\0",
    "not ASCII": "\udc80",
    "IPv6": "::1",
    "IPv6 with scope": "::1%lo",
    "IPv6 with brackets": "[::1]",
    "list": [HOST],
}


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def datagram_received(self, data: bytes, _: Any) -> None:
        self.heard += b"<" + data + b">"

    def error_received(self, exc: Exception) -> None:
        self.heard += f"!{name_of(exc)}".encode()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result("end" if exc is None else name_of(exc))


def name_of(exc: BaseException) -> str:
    # A kernel answers "Name or service not known" in several numbers; the type is what programs catch.
    number = exc.errno if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror) else None
    return f"{type(exc).__name__}{f' {number}' if number is not None else ''}"


@contextlib.asynccontextmanager
async def connection(loop: Any) -> AsyncIterator[tuple[Any, Recorder, socket.socket]]:
    """A transport, its protocol, and the kernel's end of it."""
    with socket.create_server((HOST, 0)) as listener:
        transport, protocol = await loop.create_connection(Recorder, *listener.getsockname())
        peer, _ = listener.accept()
        peer.setblocking(False)
        with peer:
            try:
                yield transport, protocol, peer
            finally:
                if not protocol.lost.done():  # asyncio's abort fails afterwards
                    transport.abort()
                await protocol.lost


async def rest(loop: Any, peer: socket.socket) -> bytes:
    """All that comes until the end. Read by polling: the loop's own sock_recv is under test."""
    said = b""
    while True:
        try:
            data = peer.recv(1 << 20)
        except BlockingIOError:
            await asyncio.sleep(0.001)
            continue
        except ConnectionResetError:
            return said + b"<reset>"
        if not data:
            return short(said)
        said += data


def short(said: bytes) -> bytes:
    return said if len(said) < 100 else b"%d bytes" % len(said)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# ---- data ------------------------------------------------------------------------------------------------------------


def of_stream(use: Callable[[Any, Any], Any], value: Callable[[], Any]) -> Case:
    async def case(loop: Any) -> Any:
        async with connection(loop) as (transport, protocol, peer):
            raised = ""
            try:
                use(transport, value())
            except Exception as exc:
                raised = name_of(exc)
            await settle()
            if not transport.is_closing():
                with contextlib.suppress(TypeError):  # it was left with what it cannot send
                    transport.write(b".")
            transport.close()
            return raised, await rest(loop, peer), await protocol.lost

    return case


STREAM_USES: dict[str, Callable[[Any, Any], Any]] = {
    "write": lambda transport, value: transport.write(value),
    "write behind a backlog": lambda transport, value: (transport.write(bytes(6_000_000)), transport.write(value)),
    "writelines of one": lambda transport, value: transport.writelines([value]),
    "writelines between others": lambda transport, value: transport.writelines([b"a", value, b"b"]),
    "writelines of a generator": lambda transport, value: transport.writelines(item for item in (value, b"z")),
    "writelines itself": lambda transport, value: transport.writelines(value),
}


def of_datagram(with_address: bool, connected: bool, value: Callable[[], Any]) -> Case:
    async def case(loop: Any) -> Any:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((HOST, 0))
            peer.settimeout(5)
            ends = {"remote_addr": peer.getsockname()} if connected else {"local_addr": (HOST, 0)}
            transport, protocol = await loop.create_datagram_endpoint(Recorder, **ends)
            raised = ""
            try:
                transport.sendto(value(), *([peer.getsockname()] if with_address else []))
            except Exception as exc:
                raised = name_of(exc)
            await settle()
            said = b""
            if not transport.is_closing():
                transport.sendto(b"end", peer.getsockname())
                while (data := peer.recv(1 << 16)) != b"end":
                    said += b"<" + data + b">"
            transport.abort()
            return raised, said, protocol.heard, await protocol.lost

    return case


@contextlib.contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A non-blocking TCP socket and its peer."""
    with (
        socket.create_server((HOST, 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
    ):
        theirs, _ = listener.accept()
        with theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            yield ours, theirs


@contextlib.contextmanager
def datagram_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        for end in (ours, theirs):
            end.bind((HOST, 0))
            end.setblocking(False)
        yield ours, theirs


def of_sendall(value: Callable[[], Any]) -> Case:
    async def case(loop: Any) -> Any:
        with sockets() as (ours, theirs):
            reading = asyncio.ensure_future(rest(loop, theirs))
            try:
                done = await loop.sock_sendall(ours, value())
            except Exception as exc:
                done = name_of(exc)
            ours.close()
            return done, await reading

    return case


def of_sock_sendto(value: Callable[[], Any]) -> Case:
    async def case(loop: Any) -> Any:
        with datagram_sockets() as (ours, theirs):
            done = await loop.sock_sendto(ours, value(), theirs.getsockname())
            theirs.settimeout(5)
            return done, short(theirs.recv(1 << 16))

    return case


def of_receive(method: str, size: Callable[[], Any], datagram: bool) -> Case:
    async def case(loop: Any) -> Any:
        with datagram_sockets() if datagram else sockets() as (ours, theirs):
            if datagram:
                theirs.sendto(b"hello", ours.getsockname())
            else:
                theirs.send(b"hello")
            buffer = size()
            done = await getattr(loop, method)(ours, *(buffer if isinstance(buffer, tuple) else (buffer,)))
            if isinstance(done, tuple):
                done = done[0]
            return done, bytes(buffer)[:20] if isinstance(buffer, bytearray | memoryview | array.array) else None

    return case


SIZES: dict[str, Callable[[], Any]] = {
    "0": lambda: 0,
    "1": lambda: 1,
    "100": lambda: 100,
    "-1": lambda: -1,
    "True": lambda: True,
    "1.5": lambda: 1.5,
    "str": lambda: "1",
    "None": lambda: None,
    "IntEnum": lambda: port_enum(3),
    "1 << 40": lambda: 1 << 62,
    "1 << 64": lambda: 1 << 64,
}

# ---- addresses and options -------------------------------------------------------------------------------------------


def of_connect(host: Any, port: Callable[[int], Any], **options: Any) -> Case:
    async def case(loop: Any) -> Any:
        with socket.create_server((HOST, 0)) as listener:
            number = listener.getsockname()[1]
            transport, protocol = await loop.create_connection(Recorder, host, port(number), **options)
            peername = transport.get_extra_info("peername")
            transport.abort()
            await protocol.lost
            return peername[0], peername[1] == number

    return case


def of_sock_connect(address: Callable[[int], Any], datagram: bool) -> Case:
    async def case(loop: Any) -> Any:
        with (
            socket.create_server((HOST, 0)) as listener,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM) as ours,
        ):
            ours.setblocking(False)
            number = listener.getsockname()[1]
            await loop.sock_connect(ours, address(number))
            return ours.getpeername()[0], ours.getpeername()[1] == number

    return case


ADDRESSES: dict[str, Callable[[int], Any]] = {
    "tuple": lambda port: (HOST, port),
    "list": lambda port: [HOST, port],
    "name": lambda port: ("localhost", port),
    "bytes": lambda port: (HOST.encode(), port),
    "bytearray": lambda port: (bytearray(HOST.encode()), port),
    "IPv4Address": lambda port: (ipaddress.IPv4Address(HOST), port),
    "short": lambda port: ("127.1", port),
    "empty host": lambda port: ("", port),
    "no host": lambda port: (None, port),
    "str port": lambda port: (HOST, str(port)),
    "IntEnum port": lambda port: (HOST, port_enum(port)),
    "no port": lambda port: (HOST, None),
    "negative port": lambda port: (HOST, -1),
    "large port": lambda port: (HOST, 70000),
    "float port": lambda port: (HOST, float(port)),
    "one": lambda port: (HOST,),
    "three": lambda port: (HOST, port, 0),
    "four": lambda port: (HOST, port, 0, 0),
    "IPv6": lambda port: ("::1", port),
    "IPv6 of four": lambda port: ("::1", port, 0, 0),
    "broadcast": lambda port: ("<broadcast>", port),
    "str": lambda port: HOST,
    "None": lambda port: None,
    "int": lambda port: 5,
    "bytes address": lambda port: b"x",
}


def of_sendto(address: Callable[[int], Any], connected: bool) -> Case:
    async def case(loop: Any) -> Any:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((HOST, 0))
            peer.settimeout(5)
            ends = {"remote_addr": peer.getsockname()} if connected else {"local_addr": (HOST, 0)}
            transport, protocol = await loop.create_datagram_endpoint(Recorder, **ends)
            raised = ""
            try:
                transport.sendto(b"x", address(peer.getsockname()[1]))
            except Exception as exc:
                raised = name_of(exc)
            await settle()
            said = b""
            lost = ""
            if not transport.is_closing():
                transport.sendto(b"end", peer.getsockname())
                while (data := peer.recv(1 << 16)) != b"end":
                    said += b"<" + data + b">"
                transport.abort()
            else:
                lost = "closing"
            return raised, said, protocol.heard, lost, await protocol.lost

    return case


def of_sock_sendto_address(address: Callable[[int], Any]) -> Case:
    async def case(loop: Any) -> Any:
        with datagram_sockets() as (ours, theirs):
            return await loop.sock_sendto(ours, b"x", address(theirs.getsockname()[1]))

    return case


def of_server(host: Any, port: Any, **options: Any) -> Case:
    async def case(loop: Any) -> Any:
        server = await loop.create_server(Recorder, host, port, **options)
        try:
            found = sorted(
                (
                    sock.family.name,
                    sock.getsockname()[0],
                    bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)),
                    bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)),
                    bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
                    bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)),
                )
                for sock in server.sockets
            )
            return found, server.is_serving()
        finally:
            server.close()
            await asyncio.sleep(0)

    return case


def of_endpoint(**options: Any) -> Case:
    async def case(loop: Any) -> Any:
        made = {key: value() if callable(value) else value for key, value in options.items()}
        try:
            transport, protocol = await loop.create_datagram_endpoint(Recorder, **made)
            sock = transport.get_extra_info("socket")
            found = (
                sock.family.name,
                transport.get_extra_info("sockname")[:1],
                transport.get_extra_info("peername"),
                bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)),
                bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)),
            )
            transport.abort()
            await protocol.lost
            return found
        finally:
            if isinstance(made.get("sock"), socket.socket):
                made["sock"].close()

    return case


def of_given_socket(method: str, make: Callable[[], Any], **options: Any) -> Case:
    """`sock=` of what is no such socket, or with what does not go with it."""

    async def case(loop: Any) -> Any:
        sock = make()
        try:
            if method == "connect_accepted_socket":
                made = await loop.connect_accepted_socket(Recorder, sock, **options)
            else:
                made = await getattr(loop, method)(Recorder, sock=sock, **options)
            if method == "create_server":
                made.close()
                await asyncio.sleep(0)
                return "server"
            made[0].abort()
            return "transport", await made[1].lost
        finally:
            if isinstance(sock, socket.socket):
                sock.close()

    return case


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def ssl_socket() -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x", do_handshake_on_connect=False)


SOCKETS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "int": lambda: 5,
    "str": lambda: "x",
    "closed": closed_socket,
    "unconnected TCP": socket.socket,
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "Unix": lambda: socket.socket(socket.AF_UNIX),
    "raw descriptor": lambda: 0,
    "ssl": ssl_socket,
    "listener": lambda: socket.create_server((HOST, 0)),
}

# ---- sendfile, limits ------------------------------------------------------------------------------------------------

FILES: dict[str, Callable[[], Any]] = {
    "file": lambda: _file(),
    "text file": lambda: tempfile.TemporaryFile("w+"),
    "BytesIO": lambda: io.BytesIO(b"0123456789"),
    "StringIO": lambda: io.StringIO("0123456789"),
    "no file": lambda: None,
    "object": lambda: object(),
    "bytes": lambda: b"0123456789",
}
RANGES: dict[str, tuple[Any, Any]] = {
    "all": (0, None),
    "middle": (2, 3),
    "behind the end": (100, None),
    "too much": (5, 1000),
    "count 0": (0, 0),
    "negative count": (0, -1),
    "negative offset": (-1, None),
    "float count": (0, 1.5),
    "float offset": (1.5, None),
    "str count": (0, "1"),
    "no offset": (None, None),
    "True": (True, True),
}


def _file() -> Any:
    made = tempfile.TemporaryFile()
    made.write(b"0123456789")
    made.flush()
    return made


def of_sendfile(file: Callable[[], Any], offset: Any, count: Any, *, fallback: bool, plain: bool) -> Case:
    async def case(loop: Any) -> Any:
        source = file()
        try:
            if plain:
                with sockets() as (ours, theirs):
                    try:
                        done = await loop.sock_sendfile(ours, source, offset, count, fallback=fallback)
                    except Exception as exc:
                        done = name_of(exc)
                    ours.close()
                    return done, await rest(loop, theirs), place(source)
            async with connection(loop) as (transport, protocol, peer):
                try:
                    done = await loop.sendfile(transport, source, offset, count, fallback=fallback)
                except Exception as exc:
                    done = name_of(exc)
                transport.close()
                return done, await rest(loop, peer), place(source), await protocol.lost
        finally:
            if hasattr(source, "close"):
                source.close()

    return case


def place(file: Any) -> Any:
    return file.tell() if hasattr(file, "tell") else None


def of_limits(high: Any, low: Any) -> Case:
    async def case(loop: Any) -> Any:
        async with connection(loop) as (transport, _, _):
            raised = ""
            try:
                transport.set_write_buffer_limits(high, low)
            except Exception as exc:
                raised = name_of(exc)
            return raised, transport.get_write_buffer_limits()

    return case


# ---- the table -------------------------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, Case]]:
    for kind, value in DATA.items():
        for use, act in STREAM_USES.items():
            yield f"{use}: {kind}", of_stream(act, value)
        if kind != "large bytes":
            yield f"sendto to one address: {kind}", of_datagram(False, True, value)
            yield f"sendto: {kind}", of_datagram(True, False, value)
            yield f"sock_sendto: {kind}", of_sock_sendto(value)
        yield f"sock_sendall: {kind}", of_sendall(value)
        yield f"sock_recv_into: {kind}", of_receive("sock_recv_into", value, False)
        yield f"sock_recvfrom_into: {kind}", of_receive("sock_recvfrom_into", value, True)
    for kind, size in SIZES.items():
        yield f"sock_recv: {kind}", of_receive("sock_recv", size, False)
        yield f"sock_recvfrom: {kind}", of_receive("sock_recvfrom", size, True)
        yield (
            f"sock_recvfrom_into with size: {kind}",
            of_receive("sock_recvfrom_into", lambda size=size: (bytearray(10), size()), True),
        )
    for kind, host in HOSTS.items():
        yield f"create_connection to host: {kind}", of_connect(host, PORTS["int"])
        yield f"create_server on host: {kind}", of_server(host, 0)
        yield f"create_datagram_endpoint on host: {kind}", of_endpoint(local_addr=(host, 0))
        yield f"create_datagram_endpoint to host: {kind}", of_endpoint(remote_addr=(host, 9))
        yield f"create_connection from host: {kind}", of_connect(HOST, PORTS["int"], local_addr=(host, 0))
    for kind, port in PORTS.items():
        yield f"create_connection to port: {kind}", of_connect(HOST, port)
        yield f"create_server on port: {kind}", of_server(HOST, port(0))
        yield f"create_datagram_endpoint on port: {kind}", of_endpoint(local_addr=(HOST, port(0)))
        yield f"create_datagram_endpoint to port: {kind}", of_endpoint(remote_addr=(HOST, port(9)))
        yield f"create_connection from port: {kind}", of_connect(HOST, PORTS["int"], local_addr=(HOST, port(0)))
    for kind, address in ADDRESSES.items():
        yield f"sendto address: {kind}", of_sendto(address, False)
        yield f"sendto address of one: {kind}", of_sendto(address, True)
        yield f"sock_sendto address: {kind}", of_sock_sendto_address(address)
        yield f"sock_connect address: {kind}", of_sock_connect(address, False)
        yield f"sock_connect address of a datagram socket: {kind}", of_sock_connect(address, True)
        yield f"create_datagram_endpoint local_addr: {kind}", of_endpoint(local_addr=address(0))
        yield f"create_datagram_endpoint remote_addr: {kind}", of_endpoint(remote_addr=address(9))
        yield f"create_connection local_addr: {kind}", of_connect(HOST, PORTS["int"], local_addr=address(0))
    for kind, hosts in {
        "two": [HOST, "127.0.0.2"],
        "twice": [HOST, HOST],
        "tuple": (HOST, "127.0.0.2"),
        "none": [],
        "None": [None],
        "empty str": [""],
        "with bytes": [HOST, b"127.0.0.2"],
        "int": [5],
        "both families": [HOST, "::1"],
    }.items():
        yield f"create_server on hosts: {kind}", of_server(hosts, 0)
    yield "create_server on hosts: set", of_server({HOST}, 0)
    yield "create_server on hosts: dict", of_server({HOST: 1}, 0)
    for name, values in {
        "family": [0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 999, -1, "x", None, 2.0],
        "flags": [0, socket.AI_NUMERICHOST, socket.AI_PASSIVE, -1, 1 << 40, "x", None],
    }.items():
        for value in values:
            yield f"create_connection {name}: {value!r}", of_connect(HOST, PORTS["int"], **{name: value})
            yield f"create_server {name}: {value!r}", of_server(HOST, 0, **{name: value})
            yield f"create_datagram_endpoint {name}: {value!r}", of_endpoint(local_addr=(HOST, 0), **{name: value})
            yield f"create_datagram_endpoint {name} alone: {value!r}", of_endpoint(**{name: value})
    for value in [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, 999, -1, "x", None]:
        yield f"create_connection proto: {value!r}", of_connect(HOST, PORTS["int"], proto=value)
        yield f"create_datagram_endpoint proto: {value!r}", of_endpoint(local_addr=(HOST, 0), proto=value)
    for value in [0, 1, -1, True, None, 1.5, "x", 1 << 40]:
        yield f"create_server backlog: {value!r}", of_server(HOST, 0, backlog=value)
    for name in ("reuse_address", "reuse_port", "start_serving", "keep_alive"):
        for value in [True, False, None, 0, 1, "x", ""]:
            yield f"create_server {name}: {value!r}", of_server(HOST, 0, **{name: value})
    for value in [True, False, "x", 1, ""]:
        yield f"create_server ssl: {value!r}", of_server(HOST, 0, ssl=value)
        yield f"create_connection ssl: {value!r}", of_connect(HOST, PORTS["int"], ssl=value, ssl_handshake_timeout=0.05)
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        for value in [1, 0, -1, None, "x"]:
            yield f"create_server {name} without ssl: {value!r}", of_server(HOST, 0, **{name: value})
            yield f"create_connection {name} without ssl: {value!r}", of_connect(HOST, PORTS["int"], **{name: value})
    for options in [
        {"server_hostname": "x"},
        {"server_hostname": ""},
        {"happy_eyeballs_delay": 0},
        {"happy_eyeballs_delay": -1},
        {"happy_eyeballs_delay": 0.25, "interleave": 1},
        {"interleave": 0},
        {"interleave": -1},
        {"happy_eyeballs_delay": "x"},
        {"all_errors": True},
        {"all_errors": "x"},
        {"nonsense": 1},
        {"local_addr": ()},
        {"local_addr": "127.0.0.1"},
    ]:
        yield f"create_connection with {options}", of_connect(HOST, PORTS["int"], **options)
        yield f"create_connection to nobody with {options}", of_connect(HOST, lambda _: 1, **options)
    for options in [
        {"reuse_port": True},
        {"reuse_port": 1},
        {"reuse_port": False},
        {"allow_broadcast": True},
        {"allow_broadcast": "x"},
        {"allow_broadcast": False},
        {"reuse_address": True},
        {"reuse_address": False},
        {"reuse_address": None},
        {"nonsense": 1},
    ]:
        yield f"create_datagram_endpoint with {options}", of_endpoint(local_addr=(HOST, 0), **options)
        yield f"create_datagram_endpoint to one with {options}", of_endpoint(remote_addr=(HOST, 9), **options)
        yield (
            f"create_datagram_endpoint of a socket with {options}",
            of_endpoint(sock=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), **options),
        )
    for method in ("create_connection", "create_server", "create_datagram_endpoint", "connect_accepted_socket"):
        for kind, make in SOCKETS.items():
            yield f"{method} of socket: {kind}", of_given_socket(method, make)
        if method != "connect_accepted_socket":
            yield (
                f"{method} of socket and host",
                of_given_socket(
                    method,
                    socket.socket,
                    **({"local_addr": (HOST, 0)} if "datagram" in method else {"host": HOST, "port": 0}),
                ),
            )
    for kind, file in FILES.items():
        for part, (offset, count) in RANGES.items():
            if kind in ("file", "BytesIO") or part == "all":
                for fallback in (True, False):
                    for plain in (True, False):
                        yield (
                            f"{'sock_' if plain else ''}sendfile {part} of {kind}{'' if fallback else ', native'}",
                            of_sendfile(file, offset, count, fallback=fallback, plain=plain),
                        )
    for high, low in [
        (None, None), (0, None), (None, 0), (0, 0), (10, 5), (5, 10), (-1, None), (None, -1), (1.5, None), (10, 2.5),
        ("x", None), (None, "x"), (1 << 40, None), (1 << 80, 1), (True, False),
    ]:  # fmt: skip
        yield f"set_write_buffer_limits({high!r}, {low!r})", of_limits(high, low)
    yield from _methods()


def _methods() -> Iterator[tuple[str, Case]]:
    """sock_* of what is no socket, and in debug mode of one that blocks."""
    calls: dict[str, tuple[Any, ...]] = {
        "sock_recv": (10,),
        "sock_recv_into": (bytearray(10),),
        "sock_recvfrom": (10,),
        "sock_recvfrom_into": (bytearray(10),),
        "sock_sendall": (b"x",),
        "sock_sendto": (b"x", (HOST, 9)),
        "sock_connect": ((HOST, 1),),
        "sock_accept": (),
    }
    for method, args in calls.items():
        for kind, make in SOCKETS.items():
            if kind in ("listener", "raw descriptor") or (method in ("sock_accept",) and kind == "unconnected TCP"):
                continue
            if kind in ("UDP", "Unix", "unconnected TCP") and method != "sock_connect":
                continue  # they would wait

            async def case(loop: Any, method: str = method, args: Any = args, make: Any = make) -> Any:
                sock = make()
                try:
                    if isinstance(sock, socket.socket) and sock.fileno() >= 0:
                        sock.setblocking(False)
                    return type(await getattr(loop, method)(sock, *args)).__name__
                finally:
                    if isinstance(sock, socket.socket):
                        sock.close()

            yield f"{method} of {kind}", case

        async def blocking(loop: Any, method: str = method, args: Any = args) -> Any:
            with socket.socket() as sock:
                loop.set_debug(True)
                try:
                    return type(await getattr(loop, method)(sock, *args)).__name__
                finally:
                    loop.set_debug(False)

        yield f"{method} of a blocking socket in debug mode", blocking
