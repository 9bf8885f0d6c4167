"""After the end of a connection: what is still known, what is warned of, and what must have been given back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest

import vppaio
from tests.support.certificates import Certificates
from tests.support.connections import Accepted, Pair, both_roles
from tests.support.protocols import Recorder
from tests.support.sites import HostSite, Site, eventually, in_thread, port_of, receive_all, reset


@both_roles
def test_names_first_asked_for_after_a_reset(stack: Site, role: str) -> None:
    """The kernel has forgotten the peer then."""

    async def main() -> None:
        async with Pair(stack, role) as (ours, theirs):
            peername, sockname = theirs.getsockname(), theirs.getpeername()
            reset(theirs)
            await eventually(ours.transport.is_closing)
            assert ours.transport.get_extra_info("peername") == peername
            assert ours.transport.get_extra_info("sockname") == sockname

    stack.run(main)


@pytest.mark.parametrize("role", ["client", "server"])
def test_socket_first_asked_for_after_the_end_is_a_closed_one(stack: Site, role: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if role == "server":
            ours: Any = Recorder()
            server = await loop.create_server(lambda: ours, stack.address, 0)
            theirs = await in_thread(stack.connect, port_of(server))
            await eventually(lambda: ours.transport)
            server.close()
        else:
            with stack.listen() as listener:
                _, ours = await loop.create_connection(Recorder, *listener.getsockname())
                theirs, _ = listener.accept()
        ours.transport.close()
        await ours.lost
        assert_closed(ours.transport.get_extra_info("socket"))
        theirs.close()

    stack.run(main)


@both_roles
def test_socket_asked_for_before_the_end_is_closed_with_it(stack: Site, role: str) -> None:
    async def main() -> None:
        async with Pair(stack, role) as (ours, _):
            ours.transport.abort()
            await eventually(lambda: ours.socket.fileno() == -1)
            assert_closed(ours.socket)

    stack.run(main)


def assert_closed(sock: Any) -> None:
    assert sock
    assert sock.family is socket.AF_INET
    assert sock.type == socket.SOCK_STREAM
    assert sock.fileno() == -1
    for ask in (
        sock.getsockname,
        sock.getpeername,
        lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        lambda: sock.shutdown(socket.SHUT_RDWR),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ask()


def test_names_of_a_tls_connection_are_known_when_it_is_lost(stack: Site, certificates: Certificates) -> None:
    """Whoever logs "client X disconnected" asks in connection_lost; asyncio has forgotten by then."""

    class Logging(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            self.names = [self.transport.get_extra_info(name) for name in ("peername", "sockname")]
            super().connection_lost(exc)

    def client(port: int) -> tuple[Any, Any]:
        with stack.connect(port) as peer:
            names = peer.getsockname(), peer.getpeername()
            with certificates.client().wrap_socket(peer, server_hostname="localhost") as tls:
                tls.unwrap().close()
            return names

    async def main() -> None:
        ours: Any = Logging()
        server = await asyncio.get_running_loop().create_server(
            lambda: ours, stack.address, 0, ssl=certificates.server()
        )
        async with server:
            names = await in_thread(client, port_of(server))
            await ours.lost
        assert ours.names == list(names)

    stack.run(main)


def test_transport_left_open_at_the_end_of_its_loop_warns_and_leaves_its_server(stack: Site) -> None:
    """asyncio's warns of an "unclosed transport"; from 3.13 on its server no longer counts it."""
    loop = vppaio.new_event_loop(stack.config)
    ours: list[Any] = []

    def protocol() -> Recorder:
        ours.append(Recorder())
        return ours[-1]

    server: Any = loop.run_until_complete(loop.create_server(protocol, stack.address, 0))

    async def connected() -> socket.socket:
        peer = await in_thread(stack.connect, port_of(server))
        await eventually(lambda: ours and ours[0].transport)
        return peer

    peer = loop.run_until_complete(connected())
    names = peer.getsockname(), peer.getpeername()
    server.close()
    loop.close()
    transport = ours.pop().transport
    assert (transport.get_extra_info("peername"), transport.get_extra_info("sockname")) == names
    assert transport.get_extra_info("socket").fileno() == -1
    with pytest.warns(ResourceWarning, match="unclosed transport <StreamTransport"):  # noqa: PT031
        del transport
        gc.collect()
    with contextlib.closing(peer):
        assert not getattr(server, "_active_count", 0)
        assert not getattr(server, "_clients", ())


def test_transport_that_outlived_its_loop_does_not_write_to_a_session_of_the_next(stack: Site) -> None:
    """As a pool of connections does that is global: sessions of the next loop get the numbers of those that ended."""
    left: list[Any] = []

    async def connect(listener: socket.socket) -> Any:
        return (await asyncio.get_running_loop().create_connection(Recorder, *listener.getsockname()[:2]))[0]

    async def main() -> None:
        with stack.listen() as listener:
            transport = await connect(listener)
            with listener.accept()[0] as peer:
                left[0].write(b"for somebody else")
                left[0].close()
                transport.write(b"mine")
                transport.close()
                assert await in_thread(receive_all, peer) == b"mine"

    with stack.listen() as listener:
        loop = vppaio.new_event_loop(stack.config)
        left.append(loop.run_until_complete(connect(listener)))
        loop.close()
        assert left[0].is_closing()
        stack.run(main)
    # Its socket too, if the collector comes to that first; as in asyncio the loop's end closes none.
    with pytest.warns(ResourceWarning, match="unclosed") as caught:  # noqa: PT031
        left.clear()
        gc.collect()
    assert any("unclosed transport <StreamTransport" in str(one.message) for one in caught)


@pytest.mark.parametrize("way", ["abort", "close"])
def test_sendfile_ends_with_its_transport_and_spares_the_next(stack: Site, way: str) -> None:
    """The next connection gets the descriptor's number; asyncio's sendfile waits on, and gets in its way."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener, tempfile.TemporaryFile() as file:
            file.truncate(50_000_000)
            for _ in range(3):
                transport, ours = await loop.create_connection(Recorder, *listener.getsockname())
                theirs, _ = listener.accept()
                sending = asyncio.create_task(loop.sendfile(transport, file))
                await asyncio.sleep(0.1)
                assert not sending.done()
                getattr(transport, way)()
                with contextlib.closing(theirs):
                    if way == "close":
                        # On VPP the file is read and written: what was written before is sent before the end.
                        await in_thread(receive_all, theirs)
                    with pytest.raises(ConnectionError):
                        await sending
                    assert await ours.lost is None
            transport, ours = await loop.create_connection(Recorder, *listener.getsockname())
            theirs, _ = listener.accept()
            file.truncate(100_000)
            file.seek(0)
            _, received = await asyncio.gather(
                closing(loop.sendfile(transport, file), transport), in_thread(receive_all, theirs)
            )
            assert len(received) == 100_000
            theirs.close()

    async def closing(sending: Any, transport: Any) -> None:
        await sending
        transport.close()

    stack.run(main)


STANDS: Final = (0, 1, 3000, 5000, 9000)  # where a file of 5000 bytes stands


@pytest.mark.parametrize("way", ["sendfile", "sock_sendfile"])
def test_no_sendfile_begins_where_the_file_happens_to_stand(stack: Site, way: str, tmp_path: Path) -> None:
    """The kernel's begins at the offset, and so does the fallback for a session; each case is asyncio's result."""
    content = bytes(range(250)) * 20
    (tmp_path / "file").write_bytes(content)
    cases = list(itertools.product(STANDS, (0, 1, 4999, 5000, 6000), (None, 1, 4000, 9000)))

    async def one(site: Site, stands: int, offset: int, count: int | None) -> tuple[int, bytes, int]:
        loop = asyncio.get_running_loop()
        with site.listen() as listener, (tmp_path / "file").open("rb") as file:
            file.seek(stands)
            address = listener.getsockname()[:2]
            if way == "sendfile":
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                sent = await loop.sendfile(transport, file, offset, count)
                transport.close()
                await asyncio.sleep(0)
            else:
                sock: Any = vppaio.socket() if isinstance(loop, vppaio.EventLoop) else socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                sent = await loop.sock_sendfile(sock, file, offset, count)
                sock.close()
            with listener.accept()[0] as peer:
                return sent, await in_thread(receive_all, peer), file.tell()

    async def every(site: Site) -> list[tuple[int, bytes, int]]:
        return [await one(site, *case) for case in cases]

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        expected = runner.run(every(HostSite()))
    for case, theirs, ours in zip(cases, expected, stack.run(lambda: every(stack)), strict=True):
        assert ours == theirs, case
        assert theirs[1] == (content[case[1] :][: case[2]] if case[2] else content[case[1] :]), case
    print(f"{len(cases)} cases")


def test_cancelled_sendfile_is_cancelled(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener, tempfile.TemporaryFile() as file:
            file.truncate(50_000_000)
            transport, ours = await loop.create_connection(Recorder, *listener.getsockname())
            theirs, _ = listener.accept()
            with contextlib.closing(theirs):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await loop.sendfile(transport, file)
                transport.abort()
                await ours.lost

    stack.run(main)


def test_closing_a_kernel_socket_closes_the_session_that_stands_in_for_it(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener:
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, listener.getsockname())
            theirs, _ = listener.accept()
            with contextlib.closing(theirs):
                assert (sock.getsockname(), sock.getpeername()) == (theirs.getpeername(), theirs.getsockname())
                assert sock.send(b"last words") == 10
                sock.close()  # and the object lives on
                assert await in_thread(receive_all, theirs) == b"last words"
            assert sock.fileno() == -1
            with pytest.raises(OSError, match="Bad file descriptor"):
                sock.getsockname()

    stack.run(main)


def test_connection_lost_that_fails_does_not_leave_sendfile_waiting(stack: Site) -> None:
    class Fails(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        problems: list[Any] = []
        loop.set_exception_handler(lambda _, context: problems.append(context.get("exception")))
        async with Accepted(stack, Fails) as accepted:
            ours, theirs = await accepted.connect()
            ours.transport.write(bytes(30 << 20))  # waits, and sendfile for it
            with tempfile.TemporaryFile() as file, theirs:
                file.write(b"file")
                file.seek(0)
                sending = asyncio.create_task(loop.sendfile(ours.transport, file))
                await asyncio.sleep(0.05)
                ours.transport.abort()
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(sending, 5)
        assert [type(problem) for problem in problems] == [ZeroDivisionError]

    stack.run(main)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_ending_it_in_resume_writing_is_told_once_and_later(stack: Site, how: str) -> None:
    """cpython gh-156512. The transport is closing, and has just written the last that waited."""

    class Ends(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            asyncio.get_running_loop().call_soon(self.news.append, "next")
            getattr(self.transport, how)()

    async def main() -> None:
        async with Accepted(stack, Ends) as accepted:
            ours, theirs = await accepted.connect()
            ours.transport.write(bytes(8 << 20))
            ours.transport.set_write_buffer_limits(low=0)
            if how == "abort":
                ours.transport.close()
            with theirs:
                assert len(await in_thread(receive_all, theirs)) == 8 << 20
            assert await ours.lost is None
            assert ours.news == ["made", "pause", "resume", "next", "lost"]

    stack.run(main)
