"""Run CPython's own asyncio tests in this process, with another loop behind asyncio's names.

`python -m tests.conformance.child MODULE STACK REPORT_FD [--list] < ids` runs the tests of `test.test_asyncio.MODULE`
whose ids come on standard input, and writes one JSON object per line to REPORT_FD: when a test starts, and how it
ended. The parent, runner.py, takes care of time limits and of processes that die.

STACK is "asyncio" for the stock loop; see stacks.py for the others.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tests.conformance import loopback, stacks

PACKAGE = "test.test_asyncio"


def short_id(test: unittest.TestCase) -> str:
    """`test_events.EPollEventLoopTests.test_call_later`."""
    return test.id().removeprefix(f"{PACKAGE}.")


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


class Reporter(unittest.TestResult):
    """Tells the parent about each test. `loops` counts the loops under test that a test made, with VPP the sessions
    there: a test that makes none says nothing about them."""

    def __init__(self, report: TextIO, count: Callable[[], int]) -> None:
        super().__init__()
        self._count = count
        self._report = report
        self._forget()

    def _forget(self) -> None:
        self._outcome = ("passed", "")
        self._loops_before = self._count()
        self._started = time.monotonic()

    def _tell(self, **news: Any) -> None:
        self._report.write(json.dumps(news) + "\n")
        self._report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._forget()
        self._tell(start=short_id(test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        # What a test leaves is its own: a connection that VPP announced late, say, and that its server did not close.
        # The next test may count ResourceWarnings.
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
        outcome, detail = self._outcome
        self._tell(
            end=short_id(test),
            outcome=outcome,
            detail=detail,
            loops=self._count() - self._loops_before,
            seconds=round(time.monotonic() - self._started, 3),
        )
        self._forget()  # a skipped class has stopTest without startTest

    def _worse(self, outcome: str, detail: str) -> None:
        if self._outcome[0] in ("passed", "skipped"):
            self._outcome = (outcome, detail)

    def _failed(self, test: Any, err: Any) -> None:
        detail = "".join(traceback.format_exception(*err))
        if isinstance(test, unittest.TestCase):
            self._worse("failed", detail)
        else:  # setUpClass, tearDownModule and the like
            self._tell(end=str(test), outcome="failed", detail=detail, loops=0, seconds=0.0)

    def addError(self, test: Any, err: Any) -> None:
        self._failed(test, err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._failed(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._failed(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        if isinstance(test, unittest.TestCase):
            self._worse("skipped", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._worse("failed", "unexpected success")


def main() -> None:
    module_name, stack, report_fd, *options = sys.argv[1:]
    del sys.argv[1:]
    wanted = set(sys.stdin.read().split())
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # how the parent asks a hanging test where it is
    # A shell's background jobs ignore it, and test_runners waits for its KeyboardInterrupt with all memory there is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with os.fdopen(int(report_fd), "w") as report:
        stacks.install(stack)
        suite = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(f"{PACKAGE}.{module_name}"))
        if options == ["--list"]:
            for case in cases(suite):
                report.write(json.dumps({"id": short_id(case)}) + "\n")
            return
        chosen = unittest.TestSuite(case for case in cases(suite) if short_id(case) in wanted)
        chosen.run(Reporter(report, loopback.sessions_made if stack in stacks.VPP_STACKS else stacks.loops_made))


if __name__ == "__main__":
    main()
