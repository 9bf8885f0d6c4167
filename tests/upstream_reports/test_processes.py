"""Complaints about signals and forks: Ctrl-C that nobody hears, hooks that run where they should not."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.support.sites import PATIENCE, ROOT, Site

# Answered elsewhere: forks with the stack attached, tests/behaviour/test_lifecycle.py.

SERVING = """
import asyncio, signal, sys, vppaio
def fail(number, frame):
    raise RuntimeError("raised by the handler")
async def main():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, sys.argv[1], 0)
    if sys.argv[2] == "raising":
        signal.signal(signal.SIGUSR1, fail)
    elif sys.argv[2] == "default":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    await asyncio.sleep(60)
loop = vppaio.new_event_loop()
try:
    loop.run_until_complete(main())
except BaseException as exc:
    print(type(exc).__name__, exc, flush=True)
"""


@pytest.mark.parametrize(
    ("handler", "number", "end"),
    [
        pytest.param("default", signal.SIGINT, "KeyboardInterrupt ", id="Ctrl-C"),  # uvloop#295 and #296
        pytest.param("raising", signal.SIGUSR1, "RuntimeError raised by the handler", id="own handler"),  # uvloop#94
    ],
)
def test_idle_loop_does_not_ignore_signals_nor_what_their_handlers_raise(
    stack: Site, handler: str, number: int, end: str
) -> None:
    """uvloop#295, #296 and #94: with signal.signal the loop wakes up, and exceptions leave run_until_complete."""
    process = stack.python("-c", SERVING, stack.address, handler, cwd=ROOT)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)  # asleep
        process.send_signal(number)
        started = time.monotonic()
        assert process.stdout.readline() == f"{end}\n"
        assert time.monotonic() - started < PATIENCE / 2
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()


def test_bad_signals_do_not_raise_other_errors_than_asyncios(stack: Site) -> None:
    """uvloop#12."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="cannot be caught"):
            loop.add_signal_handler(signal.SIGKILL, print)
        with pytest.raises(ValueError, match="invalid signal number 1000"):
            loop.add_signal_handler(1000, print)
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.add_signal_handler(signal.SIGUSR1, main)

    stack.run(main)


FORKING = """
import asyncio, os, sys, vppaio
os.register_at_fork(after_in_child=lambda: os.write(2, b"hook in the child\\n"))
async def main():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, sys.argv[1], 0)
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    server.close()
vppaio.run(main())
"""


def test_fork_hooks_do_not_run_in_subprocesses(stack: Site) -> None:
    """uvloop#749."""
    process = stack.python("-c", FORKING, stack.address, cwd=ROOT, stderr=-1)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "hook in the child" not in said
