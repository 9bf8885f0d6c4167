"""python -m tests.limits [--kind K] [--moment M] [--descriptors 0:20] [--memory 0:1024:64]: limit after limit.

Prints a line for each case, and ends with status 1 if one of them failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tests.limits.cases import KINDS, MOMENTS, Case, run
from tests.limits.execs import count_after
from vppaio.testing.vppinstance import VppInstance


def span(text: str) -> range:
    first, last, *step = (int(part) for part in text.split(":"))
    return range(first, last + 1, *step)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for kind in KINDS if options.kind == "all" else (options.kind,):
        for moment in MOMENTS if options.moment == "all" else (options.moment,):
            for free in options.memory if kind == "memory" else options.descriptors:
                yield Case(kind, moment, free)


def execs(vpp: VppInstance, times: int) -> int:
    counts = count_after(vpp, times)
    print(f"{times} execs; descriptors while serving, and before it began: {' '.join(f'{a}/{b}' for a, b in counts)}")
    return 0 if len(set(counts)) == 1 else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.limits", description=__doc__)
    parser.add_argument("--kind", choices=("all", *KINDS), default="all")
    parser.add_argument("--moment", choices=("all", *MOMENTS), default="all")
    parser.add_argument("--descriptors", type=span, default=range(21), metavar="FIRST:LAST")
    parser.add_argument("--memory", type=span, default=range(0, 1025, 64), metavar="FIRST:LAST:STEP", help="MiB")
    parser.add_argument("--execs", type=int, default=0, metavar="N", help="nothing of this, but exec so many times")
    parser.add_argument("--verbose", action="store_true", help="print all that the service says")
    options = parser.parse_args()
    failed = []
    with VppInstance() as vpp:
        if options.execs:
            return execs(vpp, options.execs)
        for case in (chosen := [*cases(options)]):
            if not vpp.healthy():
                vpp.restart()
            outcome = run(vpp, case)
            if outcome.faults:
                failed.append(case)
            print(f"{case}: {outcome.summary}", flush=True)
            if options.verbose or outcome.faults:
                print("".join(f"    {line}\n" for line in outcome.said[-20:]), end="", flush=True)
    print(f"{len(chosen)} cases, failed: {', '.join(map(str, failed)) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
