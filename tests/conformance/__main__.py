"""python -m tests.conformance [--stack host|vpp] [--list] [PATTERN ...]: CPython's asyncio tests on our loop.

A PATTERN is a module (test_events) or a shell pattern over module.Class.test. Ends with status 1 if a test fails that
stock asyncio passes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import os
import platform
import sys

from tests.conformance import runner, stacks
from tests.conformance.exclusions import excluded


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--stack", choices=(*stacks.STACKS, "vpp", "asyncio"), default="host")
    parser.add_argument("--list", action="store_true", help="only say what would run, and what not and why")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="modules at a time")
    parser.add_argument("--verbose", "-v", action="store_true", help="name every test")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    options = parser.parse_args()
    chosen = [
        (stack, module, tests)
        for stack in (stacks.VPP_STACKS if options.stack == "vpp" else (options.stack,))
        for module in runner.modules(stack)
        if (tests := _matching(module, options.patterns))
    ]
    if not chosen:
        parser.exit(2, "no such test, or this Python has no test.test_asyncio\n")
    if options.list:
        for stack, _, tests in chosen:
            for test in tests:
                rule = excluded(test, stack)
                print(f"{stack}: {test}" if rule is None else f"{stack}: {test}  -- excluded: {rule.reason}")
        return 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(lambda item: (item[0], runner.judge(item[1], item[0], item[2])), chosen))
    by_stack: dict[str, list[runner.Verdict]] = {}
    for stack, verdict in verdicts:
        by_stack.setdefault(stack, []).append(verdict)
    return max(_report(found, stack, options.verbose) for stack, found in by_stack.items())


def _matching(module: str, patterns: list[str]) -> list[str]:
    if not patterns or module in patterns:
        return runner.test_ids(module)
    return [t for t in runner.test_ids(module) if any(fnmatch.fnmatchcase(t, pattern) for pattern in patterns)]


def _report(verdicts: list[runner.Verdict], stack: str, verbose: bool) -> int:
    for verdict in verdicts:
        for test, result in verdict.results.items():
            if verbose:
                print(f"{result.outcome:8} {result.seconds:7.3f} s {result.loops:3} loops  {test}")
        for test, result in verdict.failures.items():
            print(f"\n==== {test}: {result.outcome} on {stack}, passed on stock asyncio\n{result.detail}")
        for test in verdict.stock_failures:
            print(f"\n==== {test}: fails on stock asyncio as well")
    print(f"\n{'module':26}{'executed':>9}{'no loop':>9}{'skipped':>9}{'excluded':>9}{'failures':>9}{'seconds':>9}")
    rows = [
        (
            v.module,
            v.executed,
            sum(r.outcome != "skipped" and not r.loops for r in v.results.values()),
            sum(r.outcome == "skipped" for r in v.results.values()),
            len(v.excluded),
            len(v.failures),
            round(sum(r.seconds for r in v.results.values())),
        )
        for v in verdicts
    ]
    for row in rows:
        print(f"{row[0]:26}" + "".join(f"{n:9}" for n in row[1:]))
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    print(f"{'all':26}" + "".join(f"{n:9}" for n in totals))
    print(f"\nPython {platform.python_version()}, {stack}: {totals[0]} tests executed, {totals[4]} failures")
    return 1 if totals[4] else 0


if __name__ == "__main__":
    sys.exit(main())
