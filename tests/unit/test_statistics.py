"""loop.statistics(): what is counted, asked from other threads, printed by `run --stats`, and told to Prometheus."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

import vppaio
from tests.fakes.libvppcom import clean_environment
from tests.support.protocols import Echo
from vppaio import metrics
from vppaio.cli import reporter
from vppaio.config import Config
from vppaio.loop import statistics
from vppaio.loop.registry import snapshots

HOST = Config(stack="host")


async def served(protocol: type[asyncio.Protocol] = Echo) -> tuple[asyncio.Server, int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def host_numbers() -> dict[str, float]:
    found: dict[str, float] = asyncio.get_running_loop().statistics()["stacks"]["host"]  # type: ignore[attr-defined]
    return found


def test_every_number_is_documented() -> None:
    async def main() -> None:
        server, _ = await served()
        found = asyncio.get_running_loop().statistics()  # type: ignore[attr-defined]
        assert found.keys() - {"stacks"} == statistics.LOOP_FIELDS.keys()
        assert found["stacks"]["host"].keys() == statistics.FIELDS.keys()
        server.close()

    vppaio.run(main(), config=HOST)


def test_connections_and_bytes_are_counted() -> None:
    async def main() -> None:
        server, port = await served()
        assert (host_numbers()["sessions"], host_numbers()["listeners"]) == (1, 1)
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(1000))
            await reader.readexactly(1000)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.01)
        found = host_numbers()
        assert (found["accepted"], found["opened"], found["closed"], found["sessions"]) == (3, 7, 6, 1)
        assert found["read_bytes"] == found["written_bytes"] == 6000  # both ends are ours
        assert found["polls"] >= found["wakes"] > 0
        server.close()
        await asyncio.sleep(0.01)
        assert (host_numbers()["sessions"], host_numbers()["listeners"]) == (0, 0)

    vppaio.run(main(), config=HOST)


def test_time_of_waiting_writes_is_counted_while_they_wait_and_not_after() -> None:
    async def main() -> None:
        server, port = await served()
        size = 20_000_000
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(bytes(size))  # nobody reads the echo
        await asyncio.sleep(0.3)
        before = host_numbers()
        assert before["writes_waiting"] >= 1  # the echo; on a busy machine our own end, too
        assert before["write_blocked"] > 0
        await asyncio.sleep(0.2)
        assert 0.2 <= host_numbers()["write_wait_seconds"] - before["write_wait_seconds"] < 10
        await reader.readexactly(size)
        after = host_numbers()
        assert after["writes_waiting"] == 0
        await asyncio.sleep(0.1)
        assert host_numbers()["write_wait_seconds"] == after["write_wait_seconds"]
        writer.write(bytes(size))
        await asyncio.sleep(0.1)
        assert host_numbers()["writes_waiting"] > 0
        writer.transport.abort()
        await asyncio.sleep(0.1)
        assert host_numbers()["writes_waiting"] == 0
        server.close()

    vppaio.run(main(), config=HOST)


def test_other_threads_may_ask_while_the_loop_works() -> None:
    stop = threading.Event()
    asked = [0, 0]
    errors: list[BaseException] = []

    def ask(which: int) -> None:
        try:
            while not stop.is_set():
                for _, found in snapshots():
                    numbers = found["stacks"]["host"]
                    assert numbers["opened"] - numbers["closed"] >= 0
                asked[which] += 1
        except BaseException as error:
            errors.append(error)

    async def main() -> None:
        server, port = await served()
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        server.close()

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):  # loops come and go, too
        vppaio.run(main(), config=HOST)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert min(asked) > 0


def test_line_has_gauges_and_rates() -> None:
    before = dict.fromkeys(statistics.FIELDS, 0.0)
    now = before | {
        "sessions": 201,
        "listeners": 1,
        "accepted": 20,
        "read_bytes": 2.5e6,
        "writes_waiting": 3,
        "write_wait_seconds": 1,
        "lost": 1,
    }
    line = reporter.line(now, before, seconds=2)
    assert line == (
        "201 sessions, 1 listeners, 10 accepted/s, 0 closed/s, 0 events/s, 0 polls/s, 0 wakes/s, read 1.25MB/s, "
        "written 0B/s, 3 writes_waiting (0.50 s/s, 0/s), 1 lost"
    )
    assert [reporter.short(n) for n in (0, 999, 1000, 12345, 1.5e9, 3e12)] == [
        "0",
        "999",
        "1k",
        "12.3k",
        "1.5G",
        "3T",
    ]


def test_collector_gives_what_prometheus_reads() -> None:
    async def main() -> str:
        server, port = await served()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        await reader.readexactly(5)
        registry = prometheus_client.CollectorRegistry()
        registry.register(metrics.StatisticsCollector())
        text = await asyncio.to_thread(prometheus_client.generate_latest, registry)
        writer.close()
        server.close()
        return text.decode()

    text = vppaio.run(main(), config=HOST)
    for line in (
        r"# TYPE vppaio_sessions gauge",
        r'vppaio_sessions\{loop="\d+",stack="host"\} 3\.0',
        r"# TYPE vppaio_read_bytes_total counter",
        r'vppaio_read_bytes_total\{loop="\d+",stack="host"\} 10\.0',
        r'vppaio_turns_total\{loop="\d+"\} \d+',
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), text
    assert set(re.findall(r"^vppaio_(\w+?)(?:_total)?\{", text, re.MULTILINE)) == (
        statistics.FIELDS.keys() | statistics.LOOP_FIELDS.keys()
    )


# ---- python -m vppaio run --------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio
async def echo(reader, writer):
    writer.write(await reader.read(100))
    writer.close()
async def main():
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        for _ in range(8):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            await reader.read()
            writer.close()
            await asyncio.sleep(0.1)
asyncio.run(main())
"""


def run(script: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vppaio", "run", "--stack", "host", *options, str(script)]
    return subprocess.Popen(command, env=clean_environment(), text=True, stderr=subprocess.PIPE)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(PROGRAM)
    return path


def test_stats_are_printed_every_so_often(script: Path) -> None:
    with run(script, "--stats", "0.2") as process:
        _, text = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = text.splitlines()
    assert len(lines) >= 3, text
    for line in lines:
        assert re.match(r"vppaio loop 1 host: \d sessions, [01] listeners, [\d.]+ accepted/s, ", line)
    assert any(float(line.split(", ")[2].split()[0]) > 0 for line in lines)


def test_metrics_port_answers_prometheus(script: Path) -> None:
    script.write_text("import asyncio\nasyncio.run(asyncio.sleep(60))\n")
    with run(script, "--metrics-port", "0") as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            url = re.search(r"http://127.0.0.1:\d+/metrics", said)
            assert url, said
            with urllib.request.urlopen(url[0], timeout=5) as answer:
                assert b"# TYPE vppaio_turns_total counter" in answer.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stats", "0"], "argument --stats: invalid"),
        (["--stats", "often"], "argument --stats: invalid"),
        (["--metrics-port", "70000"], "--metrics-port 70000: "),
    ],
)
def test_wrong_options_are_one_line(script: Path, options: list[str], said: str) -> None:
    with run(script, *options) as process:
        _, text = process.communicate(timeout=20)
    assert process.returncode != 0
    assert len(text.splitlines()) == 1, text
    assert said in text


def test_missing_client_library_is_named(script: Path) -> None:
    hide = "import sys; sys.modules['prometheus_client'] = None; from vppaio.cli import main; main()"
    command = [sys.executable, "-c", hide, "run", "--metrics-port", "0", str(script)]
    done = subprocess.run(command, env=clean_environment(), text=True, capture_output=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr == "vppaio: run: prometheus-client is missing, pip install 'vppaio[prometheus]'\n"


def test_asking_costs_microseconds() -> None:
    async def main() -> float:
        server, _ = await served()
        loop: Any = asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(1000):
            loop.statistics()
        server.close()
        return (time.perf_counter() - started) / 1000

    assert vppaio.run(main(), config=HOST) < 1e-3
