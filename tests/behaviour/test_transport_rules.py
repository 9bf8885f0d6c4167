"""asyncio's rules for stream transports, one test each, on stock asyncio, uvloop, and ours on the host and on VPP.

Stock asyncio shows that the tests ask for what asyncio does. Where others are known to differ `DEVIATIONS` says so, and
the test has to fail there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import socket
import sys
import weakref
from asyncio import selector_events
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop

from tests.support.certificates import Certificates
from tests.support.protocols import BufferedRecorder, Recorder
from tests.support.sites import HostSite, Site, eventually, in_thread, port_of, receive_all, receive_exactly

KIB: Final = 1024
# Until 3.12.9 and 3.13.2 (gh-127655).
WRITELINES_BUG: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
# In the first 3.11 (Debian 12 has 3.11.2) a pause in connection_made is forgotten.
PAUSE_BUG: Final = "is_reading" not in inspect.getsource(selector_events._SelectorTransport._add_reader)
_KEEPS: Final = "the caller's buffer is kept, and its changes are sent"
DEVIATIONS: Final[dict[str, dict[str, str]]] = {
    "asyncio": ({"test_writelines_obeys_flow_control": "gh-127655"} if WRITELINES_BUG else {})
    | ({"test_pausing_is_idempotent_and_allowed_in_connection_made": "the pause is forgotten"} if PAUSE_BUG else {})
    | ({"test_what_is_buffered_is_a_copy": _KEEPS} if sys.version_info >= (3, 12) else {}),
    "uvloop": {  # 0.23
        "test_write_buffer_limits": "low water is 16, in KiB by mistake",
        "test_only_bytes_like_objects_are_written_and_empty_ones_are_nothing": "None is written as nothing",
        "test_writes_after_the_end_are_dropped_with_a_warning_from_the_fifth_on": "RuntimeError: the handler is closed",
        "test_what_is_buffered_is_a_copy": _KEEPS,
        "test_buffered_protocol_is_asked_for_its_buffer_with_minus_1": "asked with 65536",
        "test_empty_buffer_is_fatal": "another message",
        "test_pausing_is_idempotent_and_allowed_in_connection_made": "the pause is forgotten",
        "test_programs_hang_things_on_transports_and_refer_to_them_weakly": "no attributes",
        "test_transport_is_asyncios": "isinstance fails",
    },
    "host": {},
    "vpp": {},
}


class OtherLoop(HostSite):
    """The kernel's stack under somebody else's loop."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._factory = factory

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]], timeout: float = 40.0, orphans: int = 0) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(timeout):
                return await main()

        with asyncio.Runner(loop_factory=self._factory) as runner:
            return runner.run(limited())


@pytest.fixture(params=["asyncio", "uvloop", "host", pytest.param("vpp", marks=pytest.mark.vpp)])
def place(request: pytest.FixtureRequest) -> Site:
    """A loop, and a kernel on the other side."""
    if reason := DEVIATIONS[request.param].get(request.function.__name__):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    match request.param:
        case "asyncio":
            return OtherLoop(asyncio.SelectorEventLoop)
        case "uvloop":
            return OtherLoop(uvloop.new_event_loop)
        case "host":
            return HostSite()
        case _:
            site: Site = request.getfixturevalue("vpp_site")
            return site


@contextlib.asynccontextmanager
async def connected(place: Site, factory: Callable[[], Any] = Recorder) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A protocol on an accepted connection, and the client."""
    made: list[Any] = []

    def make() -> Any:
        made.append(factory())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, place.address, 0)
    peer = await in_thread(place.connect, port_of(server))
    try:
        await eventually(lambda: made and made[0].transport)
        yield made[0], peer
    finally:
        if not made[0].lost.done():
            made[0].transport.abort()
            await made[0].lost
        peer.close()
        server.close()


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_write_buffer_limits(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, _):
            transport = ours.transport
            assert transport.get_write_buffer_limits() == (16 * KIB, 64 * KIB)
            for given, limits in (
                ({"high": 1000}, (250, 1000)),
                ({"low": 100}, (100, 400)),
                ({"high": 10, "low": 5}, (5, 10)),
                ({"high": 0}, (0, 0)),
                ({}, (16 * KIB, 64 * KIB)),
            ):
                transport.set_write_buffer_limits(**given)
                assert transport.get_write_buffer_limits() == limits
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high=1, low=2)

    place.run(main)


def test_writing_pauses_once_above_high_water_and_resumes_at_low_water(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            size = 0
            while "pause" not in ours.news:
                assert ours.transport.get_write_buffer_size() <= 64 * KIB
                ours.transport.write(bytes(10_000))
                size += 10_000
            assert ours.transport.get_write_buffer_size() > 64 * KIB
            for _ in range(3):
                ours.transport.write(bytes(10_000))
                size += 10_000
            assert ours.news == ["made", "pause"]
            await in_thread(receive_exactly, peer, size)
            await eventually(lambda: len(ours.news) > 2)
            assert ours.news == ["made", "pause", "resume"]
            assert ours.transport.get_write_buffer_size() <= 16 * KIB

    place.run(main)


def test_only_bytes_like_objects_are_written_and_empty_ones_are_nothing(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            for wrong in ("text", 1, None, [b"x"]):
                with pytest.raises(TypeError):
                    ours.transport.write(wrong)
            for empty in (b"", bytearray(), memoryview(b"")):
                ours.transport.write(empty)
            ours.transport.writelines([])
            for right in (b"bytes ", bytearray(b"bytearray "), memoryview(b"memoryview")):
                ours.transport.write(right)
            assert await in_thread(receive_exactly, peer, 26) == b"bytes bytearray memoryview"

    place.run(main)


def test_write_after_write_eof_is_a_runtime_error(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            assert ours.transport.can_write_eof()
            ours.transport.write(b"all")
            ours.transport.write_eof()
            ours.transport.write_eof()
            with pytest.raises(RuntimeError):
                ours.transport.write(b"more")
            assert await in_thread(receive_all, peer) == b"all"
            peer.sendall(b"heard")  # the other half stays
            await eventually(lambda: ours.heard == b"heard")

    place.run(main)


def test_writes_after_the_end_are_dropped_with_a_warning_from_the_fifth_on(
    place: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            ours.transport.abort()
            for _ in range(4):
                ours.transport.write(b"late")
            assert not caplog.records
            await ours.lost
            ours.transport.write(b"later")
            ours.transport.write(b"later")
            assert caplog.records
            with contextlib.suppress(ConnectionResetError):
                assert await in_thread(receive_all, peer) == b""

    with caplog.at_level(logging.WARNING, "asyncio"):
        place.run(main)


def test_write_sends_at_once(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            ours.transport.write(b"now")
            peer.settimeout(1)
            assert peer.recv(3) == b"now"  # the loop does not turn

    place.run(main)


def test_what_is_buffered_is_a_copy(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            size = 0
            while not ours.transport.get_write_buffer_size():
                ours.transport.write(b"x" * 100_000)
                size += 100_000
            data = bytearray(b"y" * 1000)
            ours.transport.write(data)
            ours.transport.write(memoryview(data))
            data[:] = b"n" * 1000
            received = await in_thread(receive_exactly, peer, size + 2000)
            assert received[-2000:] == b"y" * 2000

    place.run(main)


def test_writelines_obeys_flow_control(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            piece = bytes(range(256)) * 4
            count = 0
            while "pause" not in ours.news and count < 200:
                ours.transport.writelines([piece] * 63 + [b""])
                count += 1
            assert ours.transport.get_write_buffer_size() > 64 * KIB
            assert await in_thread(receive_exactly, peer, count * 63 * KIB) == piece * 63 * count
            await eventually(lambda: "resume" in ours.news)

    place.run(main)


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_close_sends_what_is_buffered_and_connection_lost_comes_later_and_once(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            size = 0
            while not ours.transport.get_write_buffer_size():
                ours.transport.write(bytes(100_000))
                size += 100_000
            ours.transport.close()
            ours.transport.close()
            assert ours.transport.is_closing()
            assert "lost" not in ours.news
            assert len(await in_thread(receive_all, peer)) == size
            assert await ours.lost is None
            ours.transport.close()
            await asyncio.sleep(0.01)
            assert ours.news.count("lost") == 1

    place.run(main)


def test_abort_drops_what_is_buffered(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, _):
            while not ours.transport.get_write_buffer_size():
                ours.transport.write(bytes(100_000))
            ours.transport.abort()
            ours.transport.abort()
            assert ours.transport.is_closing()
            assert "lost" not in ours.news
            await asyncio.sleep(0.01)  # the peer reads nothing
            assert await ours.lost is None
            assert ours.transport.get_write_buffer_size() == 0

    place.run(main)


@pytest.mark.parametrize("keep_open", [False, True])
def test_eof_received_decides_whether_we_can_go_on_writing(place: Site, keep_open: bool) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            ours.keep_open = keep_open
            peer.sendall(b"all")
            peer.shutdown(socket.SHUT_WR)
            await eventually(lambda: "eof" in ours.news)
            assert ours.heard == b"all"
            if keep_open:
                await asyncio.sleep(0.05)
                assert not ours.transport.is_closing()
                ours.transport.write(b"answer")
                ours.transport.close()
                assert await in_thread(receive_all, peer) == b"answer"
            assert await ours.lost is None
            assert ours.news == ["made", "eof", "lost"]

    place.run(main)


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_set_protocol_switches_between_the_two_kinds(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            transport = ours.transport
            assert transport.get_protocol() is ours
            for number, next_one in enumerate((BufferedRecorder(), Recorder(), BufferedRecorder(3), Recorder())):
                next_one.lost = ours.lost
                transport.set_protocol(next_one)
                assert transport.get_protocol() is next_one
                peer.sendall(b"to number %d" % number)
                await eventually(lambda one=next_one, text=b"to number %d" % number: one.heard == text)
            assert not ours.heard

    place.run(main)


def test_buffered_protocol_is_asked_for_its_buffer_with_minus_1(place: Site) -> None:
    async def main() -> None:
        async with connected(place, BufferedRecorder) as (ours, peer):
            data = bytes(range(256)) * 10
            peer.sendall(data)
            await eventually(lambda: ours.heard == data)
            assert ours.hints == {-1}

    place.run(main)


def test_empty_buffer_is_fatal(place: Site) -> None:
    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with connected(place, lambda: BufferedRecorder(0)) as (ours, peer):
            peer.sendall(b"x")
            assert isinstance(await ours.lost, RuntimeError)
        assert len(problems) == 1
        assert "get_buffer() returned an empty buffer" in str(problems[0]["exception"])

    place.run(main)


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_exception_of_the_protocol_is_fatal_for_its_connection_only(place: Site, method: str) -> None:
    async def main() -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with connected(place) as (ours, peer):
            failing = Recorder()
            setattr(failing, method, fail)
            failing.lost = ours.lost
            ours.transport.set_protocol(failing)
            peer.sendall(b"x")
            if method == "eof_received":
                peer.shutdown(socket.SHUT_WR)
            assert isinstance(await ours.lost, ZeroDivisionError)
        assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError]

    place.run(main)


def test_pausing_is_idempotent_and_allowed_in_connection_made(place: Site) -> None:
    class Pausing(Recorder):
        def connection_made(self, transport: Any) -> None:
            transport.resume_reading()
            transport.pause_reading()
            transport.pause_reading()
            super().connection_made(transport)

    async def main() -> None:
        async with connected(place, Pausing) as (ours, peer):
            assert not ours.transport.is_reading()
            peer.sendall(b"waits")
            await asyncio.sleep(0.05)
            assert not ours.heard
            ours.transport.resume_reading()
            ours.transport.resume_reading()
            assert ours.transport.is_reading()
            await eventually(lambda: ours.heard == b"waits")
            ours.transport.close()
            assert not ours.transport.is_reading()
            ours.transport.pause_reading()
            ours.transport.resume_reading()
            await ours.lost

    place.run(main)


# ---- the object ------------------------------------------------------------------------------------------------------


def test_extra_info(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, peer):
            transport = ours.transport
            names = peer.getsockname(), peer.getpeername()
            assert (transport.get_extra_info("peername"), transport.get_extra_info("sockname")) == names
            sock = transport.get_extra_info("socket")
            assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert (sock.getpeername(), sock.getsockname()) == names
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 1) == 1
            peer.close()
            await ours.lost
            assert (transport.get_extra_info("peername"), transport.get_extra_info("sockname")) == names
            assert sock.fileno() == -1

    place.run(main)


def test_programs_hang_things_on_transports_and_refer_to_them_weakly(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, _):
            ours.transport.mine = 1
            assert ours.transport.mine == 1
            reference = weakref.ref(ours.transport)
            assert reference() is ours.transport
            ours.transport.close()
            await ours.lost
        ours.transport = None
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None

    place.run(main)


def test_transport_is_asyncios(place: Site) -> None:
    async def main() -> None:
        async with connected(place) as (ours, _):
            assert isinstance(ours.transport, asyncio.Transport)

    place.run(main)


# ---- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_limits_extra_info_and_eof(place: Site, tmp_path: Any) -> None:
    certificates = Certificates(tmp_path, place)
    ours: Any = None

    def client(port: int) -> None:
        with (
            place.connect(port) as peer,
            certificates.client().wrap_socket(peer, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"all")
            tls.unwrap()

    async def main() -> None:
        nonlocal ours
        ours = Recorder()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ours, place.address, 0, ssl=certificates.server())
        talking = asyncio.create_task(in_thread(client, port_of(server)))
        await eventually(lambda: ours.transport)
        transport = ours.transport
        assert transport.get_write_buffer_limits() == (128 * KIB, 512 * KIB)
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert transport.get_extra_info("sslcontext")
        assert transport.get_extra_info("ssl_object").version() == transport.get_extra_info("cipher")[1] == "TLSv1.3"
        assert transport.get_extra_info("compression") is None
        assert await ours.lost is None
        assert ours.heard == b"all"
        assert ours.news == ["made", "eof", "lost"]
        await talking
        server.close()

    place.run(main)
