"""Where a test's loop serves and where its peers are: one `Site` per stack.

The loop under test is vppaio's. Its peers are the kernel's: plain blocking sockets, used from threads, and programs
such as curl. On the host stack both live on the loopback interface, with VPP they face each other over a veth pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import vppaio
from vppaio.config import Config
from vppaio.routes import Stack
from vppaio.testing.vppinstance import VppInstance, family_of

PATIENCE: Final = 10.0  # seconds until something that must happen counts as missing; the machine may be busy
ROOT: Final = Path(__file__).parents[2]
T = TypeVar("T")


class Site:
    """One stack: settings of the loop, addresses of both ends, and the kernel's end itself."""

    name: Stack
    config: Config
    address: str  # where the loop serves
    address6: str
    peer_address: str  # where the kernel serves
    peer_address6: str
    foreign_address: str  # not this stack's own
    interpreter_environment: dict[str, str]  # for a vppaio program in a process of its own

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, main: Callable[[], Coroutine[Any, Any, T]], timeout: float = 40.0, orphans: int = 0) -> T:
        """Run `main` on a loop of its own, and see that it leaves no session behind.

        Args:
            timeout: seconds for `main`.
            orphans: connects given up that may still wait for the stack's answer.
        """

        async def checked() -> T:
            async with asyncio.timeout(timeout):
                result = await main()
            await no_sessions(at_most=orphans)
            return result

        return vppaio.run(checked(), config=self.config)

    # -- the kernel's end --------------------------------------------------------------------------------------------

    def connect(self, port: int, timeout: float | None = PATIENCE, address: str | None = None) -> socket.socket:
        """A blocking connection from the kernel to the loop, at `address` if that is not the site's own."""
        raise NotImplementedError

    def listen(self, port: int = 0, backlog: int = 128, address: str | None = None) -> socket.socket:
        """A blocking kernel listener that the loop can reach, at `peer_address` or `address`."""
        raise NotImplementedError

    def kernel_socket(self) -> socket.socket:
        """A TCP socket on the kernel's side, not connected."""
        raise NotImplementedError

    def datagrams(self, port: int = 0, address: str | None = None) -> socket.socket:
        """A bound kernel UDP socket that the loop can reach, at `peer_address` or `address`."""
        raise NotImplementedError

    def settle(self) -> None:
        """Return when the loop's stack has seen all that the kernel has sent."""

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A program on the kernel's side."""
        raise NotImplementedError

    def command(self, command: Sequence[str], timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a program on the kernel's side to its end; its output is text."""
        with self.popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"{' '.join(command)} did not end in {timeout} s:\n{out}\n{err}") from None
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    @contextlib.contextmanager
    def silence(self) -> Iterator[tuple[str, int]]:
        """An address at the peer's that answers no SYN while the block lasts, and refuses them afterwards."""
        # The kernel drops SYNs while the accept queue is full; a backlog of 0 has room for one connection.
        with contextlib.ExitStack() as sockets:
            full = sockets.enter_context(self.listen(backlog=0))
            for _ in range(3):
                filler = sockets.enter_context(self.kernel_socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(full.getsockname())
            yield full.getsockname()[:2]

    def serve(self, handler: Callable[[socket.socket], None]) -> contextlib.AbstractContextManager[KernelServer]:
        """A kernel server whose connections are each handled in a thread."""
        return KernelServer(self.listen(), handler)

    # -- vppaio in another process -----------------------------------------------------------------------------------

    def python(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """A Python program beside the loop, not in the namespace: its vppaio uses this stack."""
        ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | self.interpreter_environment
        environment = os.environ | ours | dict(environment or {})
        return subprocess.Popen(
            [sys.executable, *arguments],
            **{"env": environment, "text": True, "stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options,
        )


class HostSite(Site):
    name = "host"
    config = Config(stack="host")
    address = peer_address = "127.0.0.1"
    address6 = peer_address6 = "::1"
    foreign_address = "192.0.2.1"
    interpreter_environment: Final = {"VPPAIO_STACK": "host"}

    def connect(self, port: int, timeout: float | None = PATIENCE, address: str | None = None) -> socket.socket:
        return socket.create_connection((address or self.address, port), timeout)

    def listen(self, port: int = 0, backlog: int = 128, address: str | None = None) -> socket.socket:
        address = address or self.peer_address
        return socket.create_server((address, port), family=family_of(address), backlog=backlog)

    def kernel_socket(self) -> socket.socket:
        return socket.socket()

    def datagrams(self, port: int = 0, address: str | None = None) -> socket.socket:
        address = address or self.peer_address
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(command, **options)


class VppSite(Site):
    name = "vpp"
    foreign_address = "192.0.2.1"

    def __init__(self, vpp: VppInstance) -> None:
        self.vpp = vpp
        self.config = Config(stack="vpp", app_socket=vpp.app_socket)
        self.address, self.address6 = vpp.address, vpp.address6
        self.peer_address, self.peer_address6 = vpp.kernel_address, vpp.kernel_address6
        self.interpreter_environment = {"VPPAIO_STACK": "vpp", "VPPAIO_APP_SOCKET": vpp.app_socket}

    def connect(self, port: int, timeout: float | None = PATIENCE, address: str | None = None) -> socket.socket:
        return self.vpp.kernel_connect(address or self.address, port, timeout)

    def listen(self, port: int = 0, backlog: int = 128, address: str | None = None) -> socket.socket:
        return self.vpp.kernel_listen(address, port, backlog)

    def kernel_socket(self) -> socket.socket:
        with self.vpp.kernel_sockets():
            return socket.socket()

    def datagrams(self, port: int = 0, address: str | None = None) -> socket.socket:
        return self.vpp.kernel_datagram(address, port)

    def settle(self) -> None:
        # Its one thread has turned twice when it has answered twice, and reads the wire in each turn.
        for _ in range(2):
            self.vpp.ctl("show session")

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return self.vpp.popen(command, **options)


class KernelServer:
    """Threads around a blocking listener; a handler's exception is raised when the block is left."""

    def __init__(self, listener: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        self.address: Final = listener.getsockname()[:2]
        self.port: Final = self.address[1]
        self._listener = listener
        self._handler = handler
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._acceptor = threading.Thread(target=self._accept, name="kernel server", daemon=True)

    def __enter__(self) -> KernelServer:
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        if kind is None and self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(PATIENCE * 2)
            try:
                self._handler(connection)
            except BaseException as error:
                self._errors.append(error)


# ---- small helpers ---------------------------------------------------------------------------------------------------


async def eventually(condition: Callable[[], T], what: str = "", limit: float = PATIENCE) -> T:
    """Wait until `condition` holds; the loop runs meanwhile."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what or condition} not within {limit} s"
        await asyncio.sleep(0.005)
    return value


def sessions() -> int:
    """Open sessions of the running loop, on all stacks."""
    loop: Any = asyncio.get_running_loop()
    return sum(stack["sessions"] for stack in loop.statistics()["stacks"].values())


async def no_sessions(at_most: int = 0) -> None:
    """Wait until all sessions are closed."""
    loop: Any = asyncio.get_running_loop()
    try:
        await eventually(lambda: sessions() <= at_most)
    except AssertionError:
        raise AssertionError(f"sessions were left open: {loop.statistics()['stacks']}") from None


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    return await asyncio.to_thread(function, *args)


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the peer's FIN."""
    return b"".join(iter(functools.partial(connection.recv, 1 << 16), b""))


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 16))
        assert part, f"the peer closed {size} bytes early"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def reset(connection: socket.socket) -> None:
    """Close so that the peer is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
