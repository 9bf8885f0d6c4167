"""Handlers of signal.signal run although the loop is about to sleep; signal.set_wakeup_fd is the program's."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import vppaio

HOST = vppaio.Config(stack="host")


@pytest.fixture
def no_wakeup_fd() -> Any:
    """The process has none, before and afterwards."""
    assert signal.set_wakeup_fd(-1) == -1
    yield
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_that_another_thread_takes_does_not_wait_for_other_news(no_wakeup_fd: None) -> None:
    """As one that comes just before the sleep: nothing interrupts that, and asyncio sleeps on."""
    heard: list[float] = []

    def wait_for_it() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)

    sent: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        signal.signal(signal.SIGUSR1, lambda *_: (heard.append(time.monotonic()), done.set_result(None)))
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        await asyncio.wait_for(done, 20)
        thread.join()

    before = signal.getsignal(signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        vppaio.run(main(), config=HOST)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR1, before)
    assert heard[0] - sent[0] < 2  # it had slept 0.3 s, and looks once more after twice that time


def test_long_sleep_makes_few_turns() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = loop.statistics()["turns"]
        await asyncio.sleep(1)
        assert loop.statistics()["turns"] - before <= 10

    vppaio.run(main(), config=HOST)


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def test_loop_does_not_set_the_wakeup_descriptor(no_wakeup_fd: None) -> None:
    """Trio's guest mode, and all who look whether somebody has it, find it free."""

    async def main() -> None:
        assert signal.set_wakeup_fd(-1) == -1

    vppaio.run(main(), config=HOST)


def test_wakeup_descriptor_that_the_program_sets_in_the_loop_is_not_undone(no_wakeup_fd: None) -> None:
    ours, theirs = pair()

    async def main() -> None:
        signal.set_wakeup_fd(ours.fileno())

    with ours, theirs:
        vppaio.run(main(), config=HOST)
        assert signal.set_wakeup_fd(-1) == ours.fileno()


def test_wakeup_descriptor_that_is_closed_meanwhile_does_not_raise(no_wakeup_fd: None) -> None:
    """Another library's, or another loop's."""
    ours, theirs = pair()
    signal.set_wakeup_fd(ours.fileno())

    async def main() -> None:
        ours.close()
        theirs.close()

    vppaio.run(main(), config=HOST)
    signal.set_wakeup_fd(-1)


def test_two_loops_of_which_one_ends_do_not_disturb_each_others_signals(no_wakeup_fd: None) -> None:
    heard: list[str] = []
    first, second = (vppaio.new_event_loop(HOST) for _ in range(2))
    done = asyncio.Event()
    first.add_signal_handler(signal.SIGUSR1, lambda: (heard.append("first"), done.set()))
    second.run_until_complete(asyncio.sleep(0))
    second.close()

    async def main() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await done.wait()

    first.run_until_complete(asyncio.wait_for(main(), 10))
    first.close()
    assert heard == ["first"]


FORKING = """
import asyncio, os, signal, sys, vppaio
loop_of = {"asyncio": asyncio.SelectorEventLoop, "vppaio": lambda: vppaio.new_event_loop(vppaio.Config(stack="host"))}
heard = []

async def in_child():
    loop = asyncio.get_running_loop()
    if sys.argv[1] == "loop":
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "child")
    else:
        signal.signal(signal.SIGUSR1, lambda *_: heard.append("child"))
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.2)
    assert heard == ["child"], heard

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.append, "parent")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio._set_running_loop(None)
            with asyncio.Runner(loop_factory=loop_of["vppaio"]) as runner:
                runner.run(in_child())
            code = 0
        finally:
            os._exit(code)
    await asyncio.sleep(0.5)
    assert os.waitpid(pid, 0)[1] == 0
    assert heard == [], heard
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.1)
    assert heard == ["parent"], heard

with asyncio.Runner(loop_factory=loop_of["vppaio"]) as runner:
    runner.run(main())
print("done")
"""


@pytest.mark.parametrize("by", ["loop", "signal"])
def test_signal_of_a_child_forked_in_a_running_loop_does_not_reach_the_parent(by: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, by], capture_output=True, text=True, timeout=30)
    assert done.stdout == "done\n", done.stderr


def test_wakeup_descriptor_of_the_program_stays():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        signal.set_wakeup_fd(ours.fileno())
        try:
            vppaio.run(asyncio.sleep(0), config=HOST)
        finally:
            assert signal.set_wakeup_fd(-1) == ours.fileno()


def test_handlers_of_add_signal_handler_hear_what_comes_between_two_runs():
    loop = vppaio.new_event_loop(HOST)
    heard = asyncio.Event()
    try:
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        loop.run_until_complete(asyncio.sleep(0))
        signal.raise_signal(signal.SIGUSR1)
        loop.run_until_complete(asyncio.wait_for(heard.wait(), 5))
    finally:
        loop.close()
    assert signal.set_wakeup_fd(-1) == -1


SLEEPER = """
import asyncio, signal, sys, vppaio
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
async def main():
    print("ready", flush=True)
    await asyncio.sleep(30)
vppaio.run(main(), config=vppaio.Config(stack="host"))
"""


def test_signal_that_races_with_the_first_sleep_is_handled():
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, env=os.environ) as program:
            assert program.stdout is not None
            program.stdout.readline()
            program.send_signal(signal.SIGTERM)
            assert program.wait(20) == 7
