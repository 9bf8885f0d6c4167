"""Whole programs: the demo under curl and wrk, and scripts that know nothing of vppaio under `vppaio run`."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.sites import PATIENCE, ROOT, Site, receive_all

REQUESTS = 100_000

STREAMS = """
import asyncio, sys
async def greet(reader, writer):
    line = await reader.readline()
    writer.write(type(asyncio.get_running_loop()).__module__.encode() + b" " + line)
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(greet, sys.argv[1], 0)
    print("http://%s:%d/" % server.sockets[0].getsockname(), flush=True)
    async with server:
        await server.serve_forever()
"""
WRK = """
local answers = 0
function response(status)
    answers = answers + 1
    -- In the background: while os.execute waits, a Ctrl-C is ignored.
    if answers == ENOUGH then os.execute("(sleep 0.1; kill -INT $PPID) &") end
end
function done(summary, latency, requests)
    local e = summary.errors
    print("RESULT", summary.requests, e.connect, e.read, e.write, e.status, e.timeout)
end
"""
WAYS = {
    "asyncio.run": ("run", "asyncio.run(main())"),
    "Runner": ("run", "with asyncio.Runner() as runner:\n    runner.run(main())"),
    "new_event_loop": ("run", "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())"),
    "loop_factory": (
        "",
        "import vppaio\nwith asyncio.Runner(loop_factory=vppaio.new_event_loop) as runner:\n    runner.run(main())",
    ),
    "policy": ("", "import vppaio\nasyncio.set_event_loop_policy(vppaio.EventLoopPolicy())\nasyncio.run(main())"),
    "install": ("", "import vppaio\nvppaio.install()\nasyncio.run(main())"),
    "vppaio.run": ("", "import vppaio\nvppaio.run(main())"),
}


@contextlib.contextmanager
def program(stack: Site, arguments: Sequence[str], status: Sequence[int] = (0,)) -> Iterator[tuple[str, int]]:
    """A program that prints its URL; stopped by SIGTERM in the end, its exit status one of `status`."""
    with stack.python(*arguments) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://([\d.]+):(\d+)/", line)
            assert found, f"it says {line!r}"
            yield found[1], int(found[2])
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) in status
        finally:
            process.kill()


@contextlib.contextmanager
def demo(stack: Site) -> Iterator[str]:
    command = ["-m", "vppaio", "demo", "--stack", stack.name, "--host", stack.address, "--port", "0"]
    with program(stack, command) as (host, port):
        yield f"http://{host}:{port}/"


def test_demo_answers_curl(stack: Site) -> None:
    with demo(stack) as url:
        answer = stack.command(["curl", "-sS", "-w", " %{http_code}", url])
        text, status = answer.stdout.rsplit(" ", 1)
        assert status == "200", answer.stderr
        assert json.loads(text) == {"hello": "world", "loop": "vppaio.loop.eventloop.EventLoop"}
        size = 5_000_000
        answer = stack.command(["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", f"{url}bytes/{size}"])
        assert answer.stdout == str(size)


@pytest.mark.timeout(180)
def test_demo_answers_100_000_requests_of_wrk_without_an_error(stack: Site, tmp_path: Path) -> None:
    # wrk runs for a time, not for a number of requests; a Ctrl-C ends it early, with its summary.
    script = tmp_path / "count.lua"
    script.write_text(WRK.replace("ENOUGH", str(REQUESTS)))
    with demo(stack) as url:
        answer = stack.command(["wrk", "-t1", "-c32", "-d120", "--timeout", "10", "-s", str(script), url], timeout=150)
    print(answer.stdout)
    found = re.search(r"RESULT\s+(\d+)\s+(.*)", answer.stdout)
    assert found, answer.stdout + answer.stderr
    assert int(found[1]) >= REQUESTS
    assert found[2].split() == ["0"] * 5


def test_the_demos_file_runs_on_stock_asyncio(stack: Site) -> None:
    if stack.name == "vpp":
        pytest.skip("stock asyncio is the kernel's")
    with program(stack, [str(ROOT / "vppaio" / "demo.py"), "--port", "0"]) as (host, port):
        answer = stack.command(["curl", "-sS", f"http://{host}:{port}/"])
        assert json.loads(answer.stdout)["loop"].startswith("asyncio.")


@pytest.mark.parametrize("way", WAYS)
def test_script_is_served_by_our_loop(stack: Site, tmp_path: Path, way: str) -> None:
    run, ending = WAYS[way]
    script = tmp_path / "script.py"
    script.write_text(f"{STREAMS}\n{ending}\n")
    command = ["-m", "vppaio", "run", "--stack", stack.name, str(script)] if run else [str(script)]
    # A script without handlers dies of SIGTERM, and says so.
    with program(stack, [*command, stack.address], status=(-signal.SIGTERM,)) as (_, port):
        with stack.connect(port) as peer:
            peer.sendall(b"hello\n")
            assert receive_all(peer) == b"vppaio.loop.eventloop hello\n"
