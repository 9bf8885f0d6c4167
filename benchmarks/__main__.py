"""python -m benchmarks: vppaio beside every other choice, in one run. See README.md."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks import candidates, goals, plan, profile, results, tables
from benchmarks.native import Unavailable
from benchmarks.plan import Case
from benchmarks.progress import Progress
from benchmarks.run import Bench, take_turns

QUICK_LIMIT_S: Final = 210  # what is left of four minutes goes to starting and ending


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say what would be measured, and what is missing")
    parser.add_argument("--quick", action="store_true", help="one row of every workload, within 4 minutes")
    parser.add_argument("--goals", action="store_true", help="measure what the goals need and print which are held")
    parser.add_argument("--profile", action="store_true", help="say whose code the servers' CPU time goes to (perf)")
    chosen = parser.add_argument_group("filters; each may be repeated or take a comma-separated list")
    chosen.add_argument("--workload", action="append", default=[], metavar="NAME")
    chosen.add_argument("--candidate", action="append", default=[], metavar="NAME")
    chosen.add_argument("--size", action="append", default=[], metavar="BYTES", help="such as 64 or 10K")
    chosen.add_argument("--connections", action="append", default=[], metavar="N")
    parser.add_argument("--rounds", type=int, help="turns of every candidate (3; with --quick 2)")
    parser.add_argument("--seconds", type=float, help="measured interval of a round (1; with --quick 0.5)")
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="S",
        help="repeat a round for up to S seconds while other processes disturb it (0)",
    )
    parser.add_argument("--json", metavar="FILE", help="write meta data and rows")
    parser.add_argument("--report", metavar="FOLDER", help="write index.html and its charts")
    parser.add_argument("--markdown", action="store_true", help="print CPU and rate as README has them")
    parser.add_argument("--from", dest="source", metavar="FILE", help="measure nothing, use an earlier run's --json")
    return parser


def split(values: Sequence[str], allowed: Sequence[str], what: str) -> list[str]:
    found = [item for value in values for item in value.split(",") if item]
    for item in found:
        if item not in allowed:
            sys.exit(f"no {what} {item!r}; there are {', '.join(allowed)}")
    return found


def numbers(values: Sequence[str], what: str) -> list[int]:
    try:
        items = [item for value in values for item in value.split(",") if item]
        return [int(item[:-1]) << 10 if item[-1] in "kK" else int(item) for item in items]
    except ValueError:
        sys.exit(f"{what} has to be a number: {' '.join(values)}")


def choose(o: argparse.Namespace) -> tuple[list[Case], list[candidates.Candidate]]:
    cases = goals.cases() if o.goals else plan.quick() if o.quick else plan.full()
    cases = plan.filtered(
        cases,
        split(o.workload, candidates.WORKLOADS, "workload"),
        numbers(o.size, "--size"),
        numbers(o.connections, "--connections"),
    )
    return cases, plan.chosen(split(o.candidate, candidates.NAMES, "candidate"))


def show_list(cases: Sequence[Case], chosen: Sequence[candidates.Candidate]) -> None:
    print("Candidates:")
    for candidate in chosen:
        try:
            candidate.require()
            state = " ".join(filter(None, ("available", candidate.version())))
        except Unavailable as reason:
            state = f"missing: {reason}"
        print(f"  {candidate.name:14}{state}")
    print("Cases:")
    for case in cases:
        print(f"  {case.label}: {', '.join(c.name for c in chosen if case.suits(c))}")


def measure(
    o: argparse.Namespace, cases: list[Case], chosen: list[candidates.Candidate]
) -> tuple[dict[str, Any], list[results.Row]]:
    rounds = o.rounds or (2 if o.quick else 3)
    seconds = o.seconds or (0.5 if o.quick else 1.0)
    with_vpp = any(candidate.vpp for candidate in chosen)
    began = time.monotonic()
    wanted = goals.wanted if o.goals and not o.candidate else None
    total = rounds * sum(case.suits(c) and (wanted is None or c.name in wanted(case)) for case in cases for c in chosen)
    rows = []
    with Progress(total) as progress:
        progress.step("starting VPP" if with_vpp else "starting")
        with Bench(seconds=seconds, warmup=seconds * 0.4, with_vpp=with_vpp, patience=o.patience) as bench:
            meta = results.meta(
                chosen,
                rounds=rounds,
                seconds=seconds,
                patience=o.patience,
                pinned={"server": bench.server_cpu, "load and VPP": bench.load_cpu},
                vpp=bench.release or bench.no_vpp,
                vcl_conf=bench.server_conf_text,
            )
            limit = QUICK_LIMIT_S if o.quick else None
            try:
                for row in take_turns(bench, cases, chosen, rounds, progress.step, limit, wanted):
                    rows.append(row)
                    progress.show(row)
            except KeyboardInterrupt:
                meta["interrupted"] = True  # what is complete is worth having
    return meta | {"took_s": round(time.monotonic() - began, 1)}, rows


def show_profile(o: argparse.Namespace, cases: list[Case], chosen: list[candidates.Candidate]) -> None:
    seconds = o.seconds or 2.0
    with Bench(
        seconds=seconds, warmup=seconds * 0.4, with_vpp=any(c.vpp for c in chosen), patience=o.patience
    ) as bench:
        wanted = goals.wanted if o.goals and not o.candidate else None
        print(tables.plain(profile.HEADER, profile.rows(bench, cases, chosen, wanted)))


def show_goals(rows: Sequence[results.Row]) -> None:
    verdicts = goals.judge(rows)
    print(tables.plain(tables.GOALS_HEADER, map(tables.verdict_cells, verdicts)))
    print(f"\n{sum(v.held for v in verdicts)} of {len(verdicts)} goals are held")


def main() -> int:
    o = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers and VPP are to end with us
    cases, chosen = choose(o)
    if o.list:
        show_list(cases, chosen)
        return 0
    if o.profile:
        try:
            show_profile(o, cases, chosen)
        except Unavailable as reason:
            sys.exit(str(reason))
        return 0
    if o.source:
        meta, rows = results.read(o.source)
    else:
        try:
            meta, rows = measure(o, cases, chosen)
        except Unavailable as reason:
            sys.exit(str(reason))
    print(tables.plain(tables.HEADER, map(tables.cells, rows)))
    if o.json:
        results.write(o.json, meta, rows)
    if o.goals:
        print()
        show_goals(rows)
    if o.markdown:
        print(f"\n{tables.markdown(rows)}")
    if o.report:
        from benchmarks import report

        print(f"\nreport: {report.write(o.report, meta, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
