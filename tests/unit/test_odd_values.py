"""The loop takes and refuses what asyncio's does on the same Python: same effect, or same type of exception."""

from __future__ import annotations

import asyncio
import collections
import gc
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import vppaio
from tests.support.odd_values import Case, cases, name_of

TABLE = list(cases())

# Chosen differences: asyncio's bugs with buffers whose items are no bytes, or have no number. Here they are sent as the
# bytes they are. From Python 3.12 on writelines, and what waits to be sent, have the same bugs.
COUNTS_ITEMS = "asyncio counts items, the socket bytes: it sends on for ever, or fails with IndexError"
CANNOT_COUNT = "asyncio sends it all, and then fails to count it"
ITEMS = {
    "memoryview of ints": COUNTS_ITEMS,
    "memoryview of two dimensions": COUNTS_ITEMS,
    "array of ints": COUNTS_ITEMS,
    "ctypes ints": COUNTS_ITEMS,
    "memoryview of no dimension": CANNOT_COUNT,
    "ctypes structure": CANNOT_COUNT,
    "ctypes number": CANNOT_COUNT,
}
USES = ("sock_sendall", "write", "write behind a backlog", "writelines of one", "writelines between others")
KNOWN = {f"{use}: {kind}": why for kind, why in ITEMS.items() for use in (*USES, "writelines of a generator")} | {
    "writelines itself: released memoryview": "on 3.11 asyncio takes it for an empty list",
}
if sys.version_info < (3, 12):
    KNOWN = {
        name: why
        for name, why in KNOWN.items()
        if not name.startswith(("write behind", "writelines of", "writelines b"))
    }


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
        print(f"\n{len(TABLE)} odd values, {len(found)} differ, {len(KNOWN)} of them may: {dict(groups)}")
    assert not found, "\n".join(f"{name}: asyncio {a}, ours {b}" for name, (a, b) in found.items())
    assert len(TABLE) >= 200
    assert len({name for name, _ in TABLE}) == len(TABLE)
