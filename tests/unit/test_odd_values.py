"""The loop takes and refuses what asyncio's does on the same Python: same effect, or same type of exception."""

from __future__ import annotations

import asyncio
import collections
import gc
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import vppaio
from tests.support.odd_values import Case, cases, name_of

TABLE = list(cases())

# Chosen differences, and where they are told.
KNOWN: dict[str, str] = {}


def outcome(make_loop: Callable[[], Any], case: Case) -> Any:
    reported: list[str] = []

    def report(loop: Any, context: dict[str, Any]) -> None:
        reported.append(type(context.get("exception")).__name__)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report)
        try:
            async with asyncio.timeout(5):
                return await case(loop)
        except Exception as exc:
            return f"raises {name_of(exc)}"

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main()), reported


def ours() -> Any:
    return vppaio.new_event_loop(vppaio.Config(stack="host"))


def compare(table: list[tuple[str, Case]]) -> dict[str, tuple[Any, Any]]:
    """Cases that end differently: asyncio's outcome and ours."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a refused connection leaves sockets to the collector, on either loop
        for name, case in table:
            theirs, mine = outcome(asyncio.SelectorEventLoop, case), outcome(ours, case)
            if theirs != mine and name not in KNOWN:
                found[name] = theirs, mine
        gc.collect()
    return found


@pytest.mark.timeout(300)
def test_odd_values_are_not_refused_nor_taken_otherwise_than_by_asyncio(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")
    found = compare(TABLE)
    groups = collections.Counter(name.split(":")[0].split(" ")[0] for name, _ in TABLE)
    with capsys.disabled():
        print(f"\n{len(TABLE)} odd values, {len(found)} differ: {dict(groups)}")
    assert not found, "\n".join(f"{name}: asyncio {a}, ours {b}" for name, (a, b) in found.items())
    assert len(TABLE) >= 200
    assert len({name for name, _ in TABLE}) == len(TABLE)
    assert KNOWN.keys() <= {name for name, _ in TABLE}
