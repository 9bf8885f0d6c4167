"""pytest-asyncio, unchanged: a user's tests, each on a loop of ours that comes and goes with it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support.sites import PATIENCE, Site

CONFTEST = """
import vppaio

def pytest_asyncio_loop_factories(config, item):
    return {"vppaio": vppaio.new_event_loop}
"""

# A process cannot connect to itself through VPP, so the peer they connect to connects to the port that they tell it.
TESTS = """
import asyncio, os
import pytest, pytest_asyncio, vppaio

pytestmark = pytest.mark.asyncio
ADDRESS, PEER = os.environ["ADDRESS"], os.environ["PEER"].split(":")
loops = []

async def greet(reader, writer):
    writer.write(b"hello")
    writer.close()

@pytest_asyncio.fixture
async def server():
    async with await asyncio.start_server(greet, ADDRESS, 0) as serving:
        yield serving

@pytest.mark.parametrize("number", range(3))
async def test_serves_and_connects(server, number):
    loop = asyncio.get_running_loop()
    assert type(loop) is vppaio.EventLoop
    assert os.environ["VPPAIO_STACK"] in loop.stacks
    assert loop not in loops and all(earlier.is_closed() for earlier in loops)
    loops.append(loop)
    reader, writer = await asyncio.open_connection(*PEER)
    writer.write(b"%d" % server.sockets[0].getsockname()[1])
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()
"""


def test_each_test_has_a_loop_of_ours(stack: Site, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_theirs.py").write_text(TESTS)

    def call_back(connection: socket.socket) -> None:
        with stack.connect(int(connection.recv(100))) as peer:
            connection.sendall(peer.recv(100))

    with stack.serve(call_back) as server:
        places = {"ADDRESS": stack.address, "PEER": "{}:{}".format(*server.address)}
        options = ["-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider"]
        options += ["-p", "no:looptime_plugin"]  # it puts a class of its own in front of every loop
        with stack.python(
            "-m", "pytest", *options, cwd=tmp_path, stderr=subprocess.STDOUT, environment=places
        ) as theirs:
            try:
                said, _ = theirs.communicate(timeout=PATIENCE * 3)
            finally:
                theirs.kill()
    assert theirs.returncode == 0, said
    assert "3 passed in" in said  # and no warnings
