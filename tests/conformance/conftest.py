"""Says at the end of a run how many of CPython's own tests it had.

Where Python comes without them they are skipped, and the run passes all the same. `.ci/run` repeats the line.
"""

from __future__ import annotations

import collections
import platform

import pytest

from tests.conformance import runner

_executed: collections.Counter[str] = collections.Counter()


@pytest.fixture(scope="session")
def executed() -> collections.Counter[str]:
    """How many tests ran on a loop of ours, for each stack."""
    return _executed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not runner.modules():
        counts = "NOT RUN, this Python has no test.test_asyncio"
    else:
        counts = ", ".join(f"{n} executed on {stack}" for stack, n in _executed.items()) or "none selected"
    terminalreporter.write_line(f"CPython {platform.python_version()}'s own asyncio tests: {counts}")
