"""Handlers of signal.signal run although the loop is about to sleep, and the descriptor a program has set stays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import vppaio

HOST = vppaio.Config(stack="host")


def test_loop_is_woken_by_a_signal_that_python_has_not_handled_yet():
    """signal.set_wakeup_fd is what wakes a sleep that begins after the signal; while the loop runs it is set."""
    loop = vppaio.new_event_loop(HOST)

    async def wakes() -> int:
        fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        return fd

    assert loop.run_until_complete(wakes()) >= 0
    assert signal.set_wakeup_fd(-1) == -1
    loop.close()


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
