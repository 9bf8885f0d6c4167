"""Private names of asyncio's that packages look at are there, mean the same, and cannot be set by mistake.

Those of transports are properties. Those of loops, servers and handles are asyncio's own, or C fields.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

import vppaio

LOOPS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "vppaio": lambda: vppaio.new_event_loop(vppaio.Config(stack="host")),
}
OF_TRANSPORTS = (
    "_loop", "_protocol", "_server", "_extra", "_sock", "_sock_fd", "_buffer", "_closing", "_paused", "_conn_lost",
    "_high_water", "_low_water", "_protocol_paused", "_start_tls_compatible",
)  # fmt: skip
OF_LOOPS = (
    "_ready", "_scheduled", "_stopping", "_closed", "_debug", "_selector", "_signal_handlers", "_default_executor",
    "_executor_shutdown_called", "_thread_id", "_clock_resolution", "_csock", "_ssock", "_exception_handler",
    "_task_factory", "_asyncgens", "_transports",
)  # fmt: skip
OF_SERVERS = ("_sockets", "_serving", "_backlog", "_ssl_context", "_protocol_factory", "_waiters")
OF_HANDLES = ("_callback", "_args", "_cancelled", "_context", "_loop", "_run", "_source_traceback")


class Held(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport


async def described(loop: Any) -> dict[str, Any]:
    """What the names say at moments that programs ask at."""
    found: dict[str, Any] = {}
    made: list[Held] = []
    connected = asyncio.Event()

    def factory() -> Held:
        made.append(Held())
        loop.call_later(0.01, connected.set)
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    found["server"] = {name: type(getattr(server, name)).__name__ for name in OF_SERVERS}
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        await connected.wait()
        transport = made[0].transport
        assert transport._loop is loop
        assert transport._protocol is made[0]
        assert transport._server is server
        assert transport._extra["peername"] == peer.getsockname()
        assert transport._extra["sockname"] == peer.getpeername()
        assert transport._extra["socket"].getpeername() == transport._sock.getpeername() == peer.getsockname()
        assert transport._sock.fileno() == transport._sock_fd >= 0
        found["idle"] = {name: getattr(transport, name) for name in ("_closing", "_paused", "_conn_lost", "_eof")}
        found["empty"] = type(transport._buffer).__name__, len(transport._buffer)
        transport.set_write_buffer_limits(100, 10)
        found["limits"] = transport._low_water, transport._high_water
        transport.pause_reading()
        transport.write(bytes(20_000_000))
        transport.write(b"x")
        found["full"] = type(transport._buffer).__name__, bool(transport._buffer), transport._protocol_paused
        found["paused"] = transport._paused
        size = transport.get_write_buffer_size()
        buffer = transport._buffer
        assert (len(buffer) if isinstance(buffer, bytearray) else sum(map(len, buffer))) == size
        transport.abort()
        found["aborted"] = transport._closing, transport._conn_lost, len(transport._buffer)
        await asyncio.sleep(0.01)
        found["lost"] = transport._sock, transport._server
    server.close()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", 9))
    found["datagram"] = transport._address, type(transport._buffer).__name__, len(transport._buffer)
    transport.abort()
    handle, timer = loop.call_soon(print), loop.call_later(100, print)
    for one in (handle, timer):
        found[type(one).__name__] = {name: getattr(one, name) for name in OF_HANDLES[:3]}
        assert one._loop is loop
        assert callable(one._run)
        one.cancel()
    found["timer"] = timer._scheduled, isinstance(timer._when, float)
    return found


@pytest.mark.parametrize("name", LOOPS)
def test_names_of_a_loop_are_there(name: str) -> None:
    loop = LOOPS[name]()
    try:
        assert [one for one in OF_LOOPS if not hasattr(loop, one)] == []
    finally:
        loop.close()


def test_names_do_not_mean_something_else_than_in_asyncio() -> None:
    outcomes = {}
    for name, make in LOOPS.items():
        with asyncio.Runner(loop_factory=make) as runner:
            outcomes[name] = runner.run(asyncio.wait_for(described(runner.get_loop()), 10))
    assert outcomes["vppaio"] == outcomes["asyncio"]


def test_names_of_a_transport_are_not_writable() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        for name in OF_TRANSPORTS:
            if name != "_start_tls_compatible":
                with pytest.raises(AttributeError):
                    setattr(transport, name, None)
        transport.close()

    vppaio.run(main(), config=vppaio.Config(stack="host"))
