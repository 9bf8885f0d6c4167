"""Run CPython's asyncio tests on a loop of ours, and what does not pass there on stock asyncio too.

Every module has processes of its own (child.py). A test that hangs or kills its process costs that test: the next
process goes on behind it. A test counts as executed if it made at least one loop under test.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tests.conformance.exclusions import Rule, excluded
from tests.conformance.stacks import VPP_STACKS
from vppaio.testing.vppinstance import VppInstance

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_S: Final = 60.0  # for one test; the slowest takes 10 on an idle machine

# All that run on a real loop somewhere. test_selector_events, test_proactor_events, test_futures and the like mock
# theirs.
MODULES: Final = (
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
)
VPP_MODULES: Final = (  # those with network endpoints
    "test_base_events",
    "test_buffered_proto",
    "test_events",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_streams",
)


@dataclass
class Result:
    """How one test ended: passed, skipped, failed, hung or died."""

    outcome: str
    detail: str = ""
    loops: int = 0
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        return self.outcome in ("failed", "hung", "died")


@dataclass
class Verdict:
    """One module on one stack, compared with stock asyncio."""

    module: str
    results: dict[str, Result]
    stock: dict[str, Result]
    excluded: dict[str, Rule] = field(default_factory=dict)

    @property
    def executed(self) -> int:
        """Tests that passed or failed on a loop under test."""
        return sum(1 for result in self.results.values() if result.outcome != "skipped" and result.loops)

    @property
    def failures(self) -> dict[str, Result]:
        """What stock asyncio can and the loop under test cannot, skipped tests included."""
        return {
            test: result
            for test, result in self.results.items()
            if (result.bad and not self._stock(test).bad)
            or (result.outcome == "skipped" and self._stock(test).outcome == "passed")
        }

    @property
    def stock_failures(self) -> dict[str, Result]:
        """What fails on both."""
        return {test: result for test, result in self.results.items() if result.bad and self._stock(test).bad}

    def _stock(self, test: str) -> Result:
        return self.stock.get(test, Result("passed"))


def modules(stack: str = "host") -> list[str]:
    """The modules that the running interpreter has for `stack`."""
    package = importlib.util.find_spec("test.test_asyncio")
    if package is None or not package.submodule_search_locations:
        return []
    folder = Path(package.submodule_search_locations[0])
    return [name for name in (VPP_MODULES if stack in VPP_STACKS else MODULES) if (folder / f"{name}.py").exists()]


def test_ids(module: str) -> list[str]:
    """All tests of `module`, in its order."""
    return [news["id"] for news in _Child(module, "asyncio", (), list_only=True).news()]


def judge(module: str, stack: str, wanted: Sequence[str] | None = None) -> Verdict:
    """Run `module` on `stack`, and again on stock asyncio whatever did not pass."""
    ids = test_ids(module) if wanted is None else list(wanted)
    rules = {test: rule for test in ids if (rule := excluded(test, stack))}
    with VppInstance() if stack in VPP_STACKS else contextlib.nullcontext() as vpp:
        results = run(module, stack, [test for test in ids if test not in rules], vpp)
    stock = run(module, "asyncio", [test for test, result in results.items() if result.outcome != "passed"])
    return Verdict(module, results, stock, rules)


def run(module: str, stack: str, ids: Iterable[str], vpp: VppInstance | None = None) -> dict[str, Result]:
    """Run these tests, in as many processes as it takes, inside VPP's namespace."""
    left = dict.fromkeys(ids)
    results: dict[str, Result] = {}
    while left:
        if vpp is not None and not vpp.healthy():
            vpp.restart()
        child = _Child(module, stack, left, vpp=vpp)
        current: str | None = None
        for news in child.news():
            if "start" in news:
                current = news["start"]
                left.pop(current, None)
            else:
                current = None
                test = news.pop("end")
                results[test] = Result(**news)
        if current is not None:
            results[current] = Result("hung" if child.hung else "died", child.output, loops=1)
        elif child.returncode != 0:
            results[f"{module}: the process"] = Result("died", child.output)
            break
        else:  # what is left belongs to a class that was skipped or failed as a whole
            results |= dict.fromkeys(left, Result("skipped", "with its class"))
            break
    return results


class _Child:
    """One process of child.py."""

    def __init__(
        self, module: str, stack: str, ids: Iterable[str], list_only: bool = False, vpp: VppInstance | None = None
    ) -> None:
        self._popen: Any = subprocess.Popen if vpp is None else vpp.popen
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)} | (vpp.environment() if vpp else {})
        self._arguments = [module, stack]
        self._ids = " ".join(ids)
        self._options = ["--list"] if list_only else []
        self.hung = False
        self.returncode = 0
        self.output = ""
        """The end of what it wrote; for a hung test with the stacks of all threads. Known when `news` is exhausted."""

    def news(self) -> Iterator[dict[str, Any]]:
        """What it reports, until it ends or is ended because a test takes too long."""
        reader, writer = os.pipe()
        with (
            tempfile.TemporaryDirectory() as folder,  # tests leave files in the current folder
            tempfile.TemporaryFile() as log,
            contextlib.ExitStack() as cleanup,
        ):
            process = self._popen(
                [sys.executable, "-m", "tests.conformance.child", *self._arguments, str(writer), *self._options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                cwd=folder,
                env=self._environment,
                start_new_session=True,  # with whatever it starts
            )
            cleanup.callback(self._end, process, log)
            os.close(writer)
            assert process.stdin is not None
            process.stdin.write(self._ids.encode())
            process.stdin.close()
            for line in self._lines(reader, process):
                yield json.loads(line)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LIMIT_S)

    def _lines(self, reader: int, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        pending = b""
        with os.fdopen(reader, "rb", buffering=0) as report, selectors.DefaultSelector() as selector:
            selector.register(report, selectors.EVENT_READ)
            while selector.select(LIMIT_S):
                # A process that a test started may hold the pipe open, but then it does not write to it.
                data = report.read(65536)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                yield from lines
        self.hung = True
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)

    def _end(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self.returncode = process.wait()
        log.seek(0)
        self.output = log.read().decode(errors="replace")[-4000:]
