"""What newer Pythons brought to asyncio works on our loop as on asyncio's own, and what they deprecate is not used."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest

import vppaio

HOST = vppaio.Config(stack="host")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=40)


@pytest.mark.parametrize(
    "statement",
    [
        "import vppaio",
        "import vppaio.cli, vppaio.demo",
        "import vppaio; vppaio.EventLoopPolicy()",
        "import asyncio, vppaio; vppaio.install(); asyncio.new_event_loop().close()",
    ],
)
def test_warns_of_nothing(statement):
    done = python("-W", "error", "-c", statement)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run has loop_factory from 3.12 on")
def test_loop_factory_of_run():
    async def main():
        return type(asyncio.get_running_loop())

    assert asyncio.run(main(), loop_factory=vppaio.new_event_loop) is vppaio.EventLoop


@pytest.mark.skipif(sys.version_info < (3, 14), reason="until 3.13 get_event_loop makes a loop")
def test_installed_policy_makes_no_loop_unasked():
    done = python("-c", "import asyncio, vppaio; vppaio.install(); asyncio.get_event_loop()")
    assert done.stderr.splitlines()[-1] == "RuntimeError: There is no current event loop in thread 'MainThread'."


@pytest.mark.skipif(sys.version_info < (3, 14), reason="run takes any awaitable from 3.14 on")
def test_run_takes_what_asyncio_run_takes():
    class Five:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 5

    assert vppaio.run(Five(), config=HOST) == 5
    with pytest.raises(TypeError, match="awaitable is required"):
        vppaio.run(5, config=HOST)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="create_task hands its arguments on from 3.14 on")
@pytest.mark.parametrize("eager", [False, True])
def test_tasks_start_eagerly_where_asked(eager):
    where = contextvars.ContextVar("where", default="outside")
    context = contextvars.copy_context()
    context.run(where.set, "inside")

    async def main():
        seen = []

        async def child():
            seen.append(where.get())

        loop = asyncio.get_running_loop()
        task = loop.create_task(child(), name="child", context=context, eager_start=eager)
        assert seen == (["inside"] if eager else [])
        assert task.done() is eager
        assert task.get_name() == "child"
        await task
        async with asyncio.TaskGroup() as group:
            group.create_task(child(), eager_start=eager)
            assert len(seen) == (2 if eager else 1)

    vppaio.run(main(), config=HOST)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="handles of call_soon_threadsafe are thread-safe from 3.14 on")
@pytest.mark.parametrize("debug", [False, True])
def test_cancelling_from_another_thread_waits_for_the_callback(debug):
    async def main():
        started, ended = threading.Event(), []

        def callback():
            started.set()
            time.sleep(0.2)
            ended.append(True)

        def cancel():
            handle = loop.call_soon_threadsafe(callback)
            assert started.wait(10)
            handle.cancel()
            return list(ended)

        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(cancel) == [True]

    vppaio.run(main(), debug=debug, config=HOST)


def test_calls_of_other_threads_wake_the_loop():
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(100):
            heard = loop.create_future()
            context = contextvars.copy_context()
            handle = await asyncio.to_thread(loop.call_soon_threadsafe, heard.set_result, None, context=context)
            await asyncio.wait_for(heard, 5)
            assert isinstance(handle, asyncio.Handle)
            assert not handle.cancelled()

    vppaio.run(main(), config=HOST)


GRAPH = """
import asyncio, sys, vppaio

async def leaf(reader):
    await reader.read()

async def branch(reader):
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(reader), name="the leaf")

async def main():
    kept = []
    server = await asyncio.start_server(lambda *pair: kept.append(pair), "127.0.0.1", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    task = asyncio.create_task(branch(reader), name="the branch")
    await asyncio.sleep(0.05)
    WHAT

vppaio.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came with 3.14")
def test_call_graph_of_a_task():
    what = "asyncio.print_call_graph(task); sys.stdout.flush(); import os; os._exit(0)"
    done = python("-c", GRAPH.replace("WHAT", what))
    assert "the branch" in done.stdout
    assert "async branch()" in done.stdout


@pytest.mark.skipif(sys.version_info < (3, 14), reason="`python -m asyncio ps` came with 3.14")
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_tasks_of_another_process(command):
    what = "print('ready', flush=True); await asyncio.sleep(30)"
    with subprocess.Popen(
        [sys.executable, "-c", GRAPH.replace("WHAT", what)], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout.readline() == "ready\n"
            done = python("-m", "asyncio", command, str(program.pid))
        finally:
            program.kill()
    if "PermissionError" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets no process look into another: " + done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    for name in ("the branch", "the leaf", "sleep"):
        assert name in done.stdout
