"""Packages that replace a test's clock, its loop's parts or its HTTP client, unchanged, with the examples of their own
documentation, each run by pytest and pytest-asyncio on a loop of ours.

async-solipsism brings a loop of its own; its examples run where ours is the process's default.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.sites import PATIENCE, HostSite

CONFTEST = """
import vppaio

def pytest_asyncio_loop_factories(config, item):
    return {"vppaio": vppaio.new_event_loop}
"""

FREEZEGUN = """
import asyncio, datetime, time
import pytest, vppaio
from freezegun import freeze_time

pytestmark = pytest.mark.asyncio

@freeze_time("Jan 14th, 2012")
async def test_coroutine():
    assert isinstance(asyncio.get_running_loop(), vppaio.EventLoop)
    assert datetime.datetime.now() == datetime.datetime(2012, 1, 14)

@freeze_time("2012-01-14", real_asyncio=True)
async def test_asyncio():
    await asyncio.sleep(1)
    assert datetime.datetime.now() == datetime.datetime(2012, 1, 14)

async def test_manual_tick_moves_the_loops_time():
    loop = asyncio.get_running_loop()
    with freeze_time("Jan 14th, 2012") as frozen:
        before, monotonic = loop.time(), time.monotonic()
        fired = []
        loop.call_later(60, fired.append, True)
        await asyncio.sleep(0)
        frozen.tick(delta=datetime.timedelta(seconds=61))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert fired
        assert loop.time() - before == time.monotonic() - monotonic == 61
    assert loop.time() < before + 60 or time.monotonic() >= loop.time() - 1
"""

LOOPTIME = """
import asyncio
import pytest, vppaio

@pytest.mark.asyncio
@pytest.mark.looptime
async def test_me():
    assert isinstance(asyncio.get_running_loop(), vppaio.EventLoop)
    await asyncio.sleep(100)
    assert asyncio.get_running_loop().time() == 100

@pytest.mark.asyncio
@pytest.mark.looptime(start=123)
async def test_start(looptime):
    await asyncio.sleep(1)
    assert looptime == 124

@pytest.mark.asyncio
@pytest.mark.looptime(end=60)
async def test_the_end_of_time():
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.sleep(1000)

@pytest.mark.asyncio
@pytest.mark.looptime
async def test_network_beside_it():
    async def greet(reader, writer):
        await asyncio.sleep(5)
        writer.write(b"hello")
        writer.close()
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
    assert await asyncio.to_thread(abs, -1) == 1

@pytest.mark.asyncio
async def test_true_time():
    before = asyncio.get_running_loop().time()
    await asyncio.sleep(0.05)
    assert 0.04 < asyncio.get_running_loop().time() - before < 10
"""

TIME_MACHINE = """
import asyncio, datetime as dt, time
import pytest, time_machine, vppaio

pytestmark = pytest.mark.asyncio

@time_machine.travel("1955-11-05 01:22", tick=False)
async def test_coroutine():
    assert isinstance(asyncio.get_running_loop(), vppaio.EventLoop)
    before = time.time()
    await asyncio.sleep(0.05)
    assert time.time() == before
    assert dt.date.today().isoformat() == "1955-11-05"

async def test_delorean(time_machine):
    time_machine.move_to(dt.datetime(1985, 10, 26), tick=False)
    await asyncio.sleep(0.01)
    assert dt.date.today() == dt.date(1985, 10, 26)
    time_machine.shift(dt.timedelta(days=1))
    await asyncio.wait_for(asyncio.sleep(0.01), 5)
    assert dt.date.today() == dt.date(1985, 10, 27)
"""

AIORESPONSES = """
import asyncio, re
import aiohttp, aiohttp.web, pytest, vppaio
from aioresponses import aioresponses

pytestmark = pytest.mark.asyncio

async def test_ctx():
    assert isinstance(asyncio.get_running_loop(), vppaio.EventLoop)
    async with aiohttp.ClientSession() as session:
        with aioresponses() as m:
            m.get("http://test.example.com", payload=dict(foo="bar"))
            resp = await session.get("http://test.example.com")
            assert await resp.json() == dict(foo="bar")
            m.assert_called_once_with("http://test.example.com")

async def test_multiple_responses():
    async with aiohttp.ClientSession() as session:
        with aioresponses() as m:
            m.get("http://example.com", status=500, repeat=2)
            m.get("http://example.com", status=200)
            assert [(await session.get("http://example.com")).status for _ in range(3)] == [500, 500, 200]

async def test_regexp_example():
    async with aiohttp.ClientSession() as session:
        with aioresponses() as m:
            m.get(re.compile(r"^http://example\\.com/api\\?foo=.*$"), status=200)
            assert (await session.get("http://example.com/api?foo=bar")).status == 200

async def test_exception():
    async with aiohttp.ClientSession() as session:
        with aioresponses() as m:
            m.get("http://example.com/api", exception=aiohttp.ClientError("test"))
            with pytest.raises(aiohttp.ClientError, match="test"):
                await session.get("http://example.com/api")

async def test_passthrough():
    async def answer(request):
        return aiohttp.web.Response(text="real")
    app = aiohttp.web.Application()
    app.router.add_get("/", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        with aioresponses(passthrough=[url]):
            async with session.get(url) as resp:
                assert await resp.text() == "real"
    await runner.cleanup()
"""

SOLIPSISM_CONFTEST = """
import async_solipsism, vppaio

vppaio.install()

def pytest_asyncio_loop_factories(config, item):
    return {"solipsism": async_solipsism.EventLoop}
"""

SOLIPSISM = """
import asyncio
import async_solipsism, pytest

pytestmark = pytest.mark.asyncio

async def test_time():
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(60)
    assert loop.time() == pytest.approx(before + 60)

async def test_stream_pairs():
    ((reader1, writer1), (reader2, writer2)) = await async_solipsism.stream_pairs()
    writer1.write(b"hello")
    assert await reader2.read(5) == b"hello"
    for writer in (writer1, writer2):
        writer.close()
        await writer.wait_closed()

async def test_servers():
    async def callback(reader, writer):
        writer.write(await reader.readexactly(5))
        writer.close()
    server = await asyncio.start_server(callback, "test.invalid", 1234)
    reader, writer = await asyncio.open_connection("test.invalid", 1234)
    writer.write(b"hello")
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
"""

TOOLS = {  # and how many examples pass
    "freezegun": (CONFTEST, FREEZEGUN, 3),
    "looptime": (CONFTEST, LOOPTIME, 5),
    "time-machine": (CONFTEST, TIME_MACHINE, 2),
    # Three fail on any loop with aiohttp 3.14, whose ClientResponse wants an argument that 0.7.9 does not give.
    "aioresponses": (CONFTEST, AIORESPONSES, 2),
    "async-solipsism": (SOLIPSISM_CONFTEST, SOLIPSISM, 3),
}


def outcomes(folder: Path, conftest: str, tests: str) -> dict[str, str]:
    """Name and outcome of each test."""
    folder.mkdir()
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_theirs.py").write_text(tests)
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-p", "no:cacheprovider", "-v", "--timeout=20")
    with HostSite().python("-m", "pytest", *options, cwd=folder, stderr=subprocess.STDOUT) as theirs:
        try:
            said, _ = theirs.communicate(timeout=PATIENCE * 5)
        finally:
            theirs.kill()
    found = re.findall(r"^test_theirs.py::(\w+).* (PASSED|FAILED|ERROR)", said, re.MULTILINE)
    assert found, said
    return dict(found)


@pytest.mark.parametrize("tool", TOOLS)
def test_documented_examples_run_on_our_loop(tool: str, tmp_path: Path) -> None:
    conftest, tests, least = TOOLS[tool]
    ours = outcomes(tmp_path / "ours", conftest, tests)
    assert list(ours.values()).count("PASSED") >= least, ours
    if "FAILED" in ours.values():
        plain = conftest.replace("vppaio.new_event_loop", "asyncio.SelectorEventLoop").replace(
            "import vppaio", "import asyncio"
        )
        assert (
            outcomes(tmp_path / "asyncios", plain, tests.replace("vppaio.EventLoop", "asyncio.SelectorEventLoop"))
            == ours
        )
