"""Complaints about descriptors: closed twice, left behind, or mistaken for the next file of that number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any

import pytest

from tests.support.connections import Accepted
from tests.support.protocols import Recorder
from tests.support.sites import Site, descriptors, eventually, in_thread, reset, turns

# A cancelled sock_connect leaves nothing on its descriptor (uvloop#653, aiohappyeyeballs#93 and #105, aiohttp#12336):
# tests/behaviour/test_cancel_storm.py.


@pytest.mark.parametrize("moment", range(5))
def test_socket_of_a_cancelled_create_connection_is_not_closed_twice(stack: Site, moment: int) -> None:
    """uvloop#740. Its owner closes it at once, as aiohttp does, and the loop has it, too: the next file of its number
    may be another thread's by the time the loop closes its own."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.listen() as listener:
            for _ in range(3):
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, listener.getsockname())
                theirs, _ = listener.accept()
                connecting = asyncio.create_task(loop.create_connection(Recorder, sock=sock))
                await turns(moment)
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    transport, _ = await connecting
                    transport.abort()
                number = sock.fileno()
                sock.close()
                left, right = socket.socketpair()
                others = [left, right, *(socket.socket() for _ in range(10))]
                assert number == -1 or number in [other.fileno() for other in others]
                transports = [await loop.create_connection(Recorder, sock=end) for end in (left, right)]
                await asyncio.sleep(0.02)
                transports[0][0].write(b"unharmed")
                await eventually(lambda protocol=transports[1][1]: protocol.heard == b"unharmed")
                for transport, protocol in transports:
                    transport.close()
                    await protocol.lost
                for other in others[2:]:
                    os.close(other.detach())  # EBADF if that was done already
                theirs.close()

    stack.run(main)


def test_listener_closed_by_its_owner_first_is_not_closed_twice(stack: Site) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.bind(("0.0.0.0", 0))
        server = await loop.create_server(Recorder, sock=sock)
        sock.close()
        others = [socket.socket() for _ in range(10)]
        server.close()
        await asyncio.sleep(0.02)
        for other in others:
            os.close(other.detach())

    stack.run(main)


def test_pipes_are_not_closed_twice(stack: Site) -> None:
    """uvloop#763, skypilot#10681 and #10689: the second close hits another thread's file."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = descriptors()
        for connect, mine in ((loop.connect_read_pipe, 0), (loop.connect_write_pipe, 1)):
            ends = os.pipe()
            pipe = os.fdopen(ends[mine], "rb" if mine == 0 else "wb", 0)
            transport, ours = await connect(Recorder, pipe)
            transport.close()
            await ours.lost
            assert pipe.closed
            others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
            pipe.close()
            del transport, pipe
            for fd in (*others, ends[1 - mine]):
                os.close(fd)
        assert descriptors() == before

    stack.run(main)


def test_failed_spawn_leaves_no_descriptors(stack: Site) -> None:
    """uvloop#80 and #185."""

    async def main() -> None:
        async def fail() -> None:
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("/nonexistent", stdin=-1, stdout=-1, stderr=-1)
            await asyncio.sleep(0)

        await fail()  # what is made once for all
        before = descriptors()
        for _ in range(20):
            await fail()
        assert descriptors() == before

    stack.run(main)


def test_add_reader_does_not_change_the_blocking_mode(stack: Site) -> None:
    """uvloop#712 and #761; and it takes objects with fileno(): uvloop#97 and #101."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        with left, right:
            heard = loop.create_future()
            loop.add_reader(left, heard.set_result, None)
            assert os.get_blocking(left.fileno())
            right.send(b"x")
            await heard
            assert loop.remove_reader(left.fileno())
            assert os.get_blocking(left.fileno())

    stack.run(main)


def test_add_reader_on_the_descriptor_of_a_transport_is_refused_and_kills_nothing(stack: Site) -> None:
    """cpython#372 and #420. VPP's sessions have descriptors for polling only, and those are free."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            sock = ours.transport.get_extra_info("socket")
            if stack.name == "host":
                for add in (loop.add_reader, loop.add_writer):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        add(sock.fileno(), print)
            else:
                loop.add_reader(sock.fileno(), print)
                assert loop.remove_reader(sock.fileno())
            theirs.sendall(b"unharmed")
            await eventually(lambda: ours.heard == b"unharmed")
            theirs.close()

    stack.run(main)


def test_descriptor_that_is_closed_while_watched_does_not_harm_the_next_of_its_number(stack: Site) -> None:
    """zuvloop#74: an idle psycopg connection died so."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        number = left.fileno()
        loop.add_reader(number, print)
        left.close()
        right.close()
        await asyncio.sleep(0.01)
        with contextlib.ExitStack() as cleanup:
            pairs = [socket.socketpair() for _ in range(3)]
            for sock in (sock for pair in pairs for sock in pair):
                cleanup.enter_context(sock)
            left, right = next(pair for pair in pairs if number in (pair[0].fileno(), pair[1].fileno()))
            if right.fileno() == number:
                left, right = right, left
            loop.remove_reader(number)
            heard = loop.create_future()
            loop.add_reader(number, heard.set_result, None)
            right.send(b"x")
            await asyncio.wait_for(heard, 5)
            loop.remove_reader(number)

    stack.run(main)


@pytest.mark.parametrize("end", ["reset", "abort", "close"])
def test_late_writes_do_not_raise(stack: Site, end: str, caplog: pytest.LogCaptureFixture) -> None:
    """uvloop#68, #335 and #506, aiohttp#1790: they are dropped, and from the fifth on there is a warning."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            if end == "reset":
                reset(theirs)
            else:
                getattr(ours.transport, end)()
            await ours.lost
            for _ in range(10):
                ours.transport.write(b"too late")
                ours.transport.writelines([b"too ", b"late"])
            assert ours.transport.get_write_buffer_size() == 0
            theirs.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        stack.run(main)
    assert {record.message for record in caplog.records} == {"socket.send() raised exception."}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("end", ["reset", "fin"])
def test_connection_that_has_ended_does_not_make_the_loop_spin(stack: Site, end: str, paused: bool) -> None:
    """uvloop#552: connection_lost was missing, and the loop ran at 100 %."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Accepted(stack, lambda: Recorder(keep_open=True)) as accepted:
            ours, theirs = await accepted.connect()
            if paused:
                ours.transport.pause_reading()
            if end == "reset":
                reset(theirs)
            else:
                await in_thread(theirs.shutdown, socket.SHUT_WR)
            await asyncio.sleep(0.1)
            before = loop.statistics()["turns"]
            await asyncio.sleep(0.5)
            assert loop.statistics()["turns"] - before < 20
            ours.transport.resume_reading()
            if end == "reset":
                assert isinstance(await ours.lost, ConnectionResetError)
            else:
                await eventually(lambda: "eof" in ours.news)
                theirs.close()
                ours.transport.close()
                await ours.lost

    stack.run(main)


def test_many_connects_under_way_do_not_make_the_loop_spin(stack: Site) -> None:
    """uvloop#378."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with stack.silence() as address:
            connecting = [asyncio.create_task(loop.create_connection(Recorder, *address)) for _ in range(50)]
            await asyncio.sleep(0.2)
            before = loop.statistics()["turns"]
            await asyncio.sleep(0.5)
            assert loop.statistics()["turns"] - before < 20
            for task in connecting:
                task.cancel()
            assert all(
                isinstance(end, asyncio.CancelledError)
                for end in await asyncio.gather(*connecting, return_exceptions=True)
            )

    stack.run(main, orphans=50)
