"""Complaints about loops that are not quite asyncio's: methods missing, objects of other types, another clock."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import vppaio
from tests.support.connections import Accepted
from tests.support.protocols import Recorder
from tests.support.sites import ROOT, Site, eventually, in_thread, receive_all

# Answered elsewhere: sock_sendto, sock_recvfrom and sock_recvfrom_into, tests/behaviour/test_adoption.py; every
# signature and what methods exist, tests/unit/test_signatures.py; aiohttp's socket_factory,
# tests/ecosystem/test_aiohttp.py.


@pytest.mark.parametrize("offset", [0, 1000])
def test_sendfile_is_not_missing(stack: Site, tmp_path: Path, offset: int) -> None:
    """uvloop#228 and #549."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            with path.open("rb") as file:
                loop = asyncio.get_running_loop()
                assert await loop.sendfile(ours.transport, file, offset) == 256_000 - offset
            ours.transport.close()
            assert await in_thread(receive_all, theirs) == path.read_bytes()[offset:]
            theirs.close()

    stack.run(main)


def test_happy_eyeballs_are_not_missing(stack: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop#406: the second address is tried while the first is silent."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with stack.silence() as silent, stack.listen() as listener:
            good = listener.getsockname()

            async def getaddrinfo(*_: object, **__: object) -> list[Any]:
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", a) for a in (silent, good)]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            started = time.monotonic()
            transport, ours = await loop.create_connection(Recorder, "name.test", 1, happy_eyeballs_delay=0.05)
            assert time.monotonic() - started < 3
            assert transport.get_extra_info("peername") == good
            transport.close()
            await ours.lost

    stack.run(main, orphans=1)


def test_call_later_0_is_not_another_kind_of_handle(stack: Site) -> None:
    """uvloop#482 and #704: it has when(), as every TimerHandle."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        timer = loop.call_later(0, print)
        assert isinstance(timer, asyncio.TimerHandle)
        assert before <= timer.when() <= loop.time()
        timer.cancel()

    stack.run(main)


def test_loop_is_not_a_stranger_to_those_who_patch_or_subclass_asyncios() -> None:
    """uvloop#405, nest_asyncio#49."""
    assert issubclass(vppaio.EventLoop, asyncio.BaseEventLoop)

    class Counting(vppaio.EventLoop):
        calls = 0

        def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
            self.calls += 1
            return super().call_soon(*args, **kwargs)

    loop = Counting(vppaio.Config(stack="host"))
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert loop.calls
    finally:
        loop.close()


@pytest.mark.parametrize("what", ["callback", "protocol"])
def test_slow_callbacks_do_not_go_unnamed(stack: Site, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """uvloop#103, #33 and #485, osparc-simcore#8047: debug mode says what was slow, and where it comes from."""

    def dawdle() -> None:
        time.sleep(0.05)

    class Slow(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            dawdle()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.02
        if what == "callback":
            loop.call_soon(dawdle)
            await asyncio.sleep(0.01)
        else:
            async with Accepted(stack, Slow) as accepted:
                ours, theirs = await accepted.connect()
                theirs.sendall(b"x")
                await eventually(lambda: ours.heard)
                await asyncio.sleep(0.01)
                theirs.close()
        loop.set_debug(False)

    with caplog.at_level(logging.WARNING, "asyncio"):
        stack.run(main)
    said = [record.getMessage() for record in caplog.records if "took 0.0" in record.getMessage()]
    assert any(("dawdle" if what == "callback" else "<StreamTransport") in line for line in said)
    if what == "callback":
        assert any(f"{Path(__file__).name}:" in line for line in said)


def test_importing_and_running_does_not_warn_of_what_python_deprecates(stack: Site) -> None:
    """uvloop#637, distributed#9218, Winloop#42: policies are for those who ask for them."""
    program = "import vppaio, asyncio; vppaio.run(asyncio.sleep(0)); assert callable(vppaio.new_event_loop)"
    process = stack.python("-W", "error", "-c", program, cwd=ROOT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_loop_factory_does_not_want_arguments() -> None:
    """uvicorn#2435 and #2658, and asyncio.Runner: `vppaio:new_event_loop` is all the adapter there is."""
    parameters = inspect.signature(vppaio.new_event_loop).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    with asyncio.Runner(loop_factory=lambda: vppaio.new_event_loop(vppaio.Config(stack="host"))) as runner:
        assert isinstance(runner.get_loop(), vppaio.EventLoop)
        runner.run(asyncio.sleep(0))


def test_unix_sockets_are_not_missing(stack: Site, tmp_path: Path) -> None:
    """rloop#26: with VPP they stay the kernel's."""

    async def main() -> None:
        path = str(tmp_path / "socket")

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(100))
            writer.close()

        async with await asyncio.start_unix_server(echo, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()

    stack.run(main)


# ---- time ------------------------------------------------------------------------------------------------------------


def test_time_does_not_stand_still_within_a_turn(stack: Site) -> None:
    """uvloop#359: loop.time() is time.monotonic(), to the nanosecond."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            assert time.monotonic() <= loop.time() <= time.monotonic()
        first = loop.time()
        assert any(loop.time() > first for _ in range(100))

    stack.run(main)


def test_timers_do_not_fire_early(stack: Site) -> None:
    """uvloop#233, #755 and #739, libuv#4773, cpython gh-127859: never before `when`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        early: list[float] = []
        fired: list[float] = []

        def fire(when: float) -> None:
            now = time.monotonic()
            fired.append(when)
            if now < when:
                early.append(when - now)

        begin = loop.time()
        for step in range(300):
            when = begin + step * 0.000_7
            loop.call_at(when, fire, when)
        await eventually(lambda: len(fired) == 300)
        assert fired == sorted(fired)
        # asyncio's own rule: a clock tick of its clock is not early.
        assert max(early, default=0) <= time.get_clock_info("monotonic").resolution

    stack.run(main)


def test_huge_timers_do_not_overflow(stack: Site) -> None:
    """zuvloop#76."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(seconds, pytest.fail) for seconds in (1e6, 1e9, 1e12, 1e15)]
        await asyncio.sleep(0.05)
        for timer in timers:
            timer.cancel()

    stack.run(main)


# ---- writes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [False, True])
def test_a_write_does_not_wait_for_the_end_of_the_turn(stack: Site, pieces: bool) -> None:
    """uvloop#631 and #619; writelines hands its pieces over in one call, uvloop#404."""

    async def main() -> None:
        async with Accepted(stack) as accepted:
            ours, theirs = await accepted.connect()
            if pieces:
                ours.transport.writelines([b"at ", b"once"])
            else:
                ours.transport.write(b"at once")
            assert theirs.recv(100) == b"at once"  # the loop does not turn meanwhile
            theirs.close()

    stack.run(main)


# ---- processes -------------------------------------------------------------------------------------------------------


def test_subprocesses_do_not_lack_options_of_popen(stack: Site, tmp_path: Path) -> None:
    """uvloop#628, zuvloop#38, #39 and #46."""

    async def main() -> None:
        with socket.socket() as kept:
            program = (
                f"import os; os.fstat({kept.fileno()}); print(os.getcwd(), os.environ['X'], os.umask(0), "
                "os.getsid(0) == os.getpid())"
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                program,
                stdout=-1,
                pass_fds=[kept.fileno()],
                cwd=tmp_path,
                env={"X": "given"},
                umask=0o27,
                start_new_session=True,
                restore_signals=True,
            )
            out, _ = await process.communicate()
        assert out.decode().split() == [str(tmp_path), "given", str(0o27), "True"]
        grouped = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import os; print(os.getpgid(0) == os.getpid())", stdout=-1, process_group=0
        )
        assert (await grouped.communicate())[0] == b"True\n"

    stack.run(main)
