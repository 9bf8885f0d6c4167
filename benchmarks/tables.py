"""Rows and verdicts as text: for the terminal, and as Markdown for README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.candidates import NAMES
from benchmarks.goals import Verdict
from benchmarks.plan import Case
from benchmarks.results import Row

HEADER = ("workload", "path", "candidate", "rate /s", "CPU us/op", "range", "VPP us/op", "p50 us", "p99 us", "p99.9 us")


def label(row: Row) -> str:
    return Case(row.workload, row.size, row.connections).label


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cells(row: Row) -> tuple[str, ...]:
    """One row; one without numbers says why instead."""
    place = (label(row), row.path, row.candidate)
    if row.rate is None:
        return (*place, str(row.errors), *[""] * 6)
    cpu, vpp = row.server_cpu_us, row.vpp_cpu_us
    note = f" ({row.errors})" if row.errors else ""
    return (
        *place,
        number(row.rate.median) + note,
        number(cpu and cpu.median),
        f"{number(cpu.min)}..{number(cpu.max)}" if cpu else "",
        number(vpp and vpp.median),
        *map(number, (row.p50_us, row.p99_us, row.p999_us)),
    )


def plain(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = [tuple(header), *map(tuple, rows)]
    # An explanation may run over the columns behind it.
    widths = [max(len(line[i]) for line in table if not (i == 3 and len(line[i]) > 30)) for i in range(len(header))]
    lines = (
        [cell.ljust(widths[i]) if i < 3 else cell.rjust(widths[i]) for i, cell in enumerate(line)] for line in table
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows: Sequence[Row]) -> str:
    """A line per case, a column per candidate: server CPU per operation and rate."""
    names = [name for name in NAMES if any(row.candidate == name for row in rows)]
    cases: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.rate is not None and row.server_cpu_us is not None:
            case = Case(row.workload, row.size, row.connections, row.path.partition(", ")[2]).label
            figures = f"{number(row.server_cpu_us.median)} us, {number(row.rate.median / 1000)} k/s"
            cases.setdefault(case, {})[row.candidate] = figures
    lines = [["", *names], ["---", *["--:"] * len(names)]]
    lines += [[case, *(cells.get(name, "") for name in names)] for case, cells in cases.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


GOALS_HEADER = ("row", "candidate", "goal", "measured", "")


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    value = "" if verdict.value is None else f"{verdict.value:.3f}"
    if verdict.value and goal.limit < 0.85 and not goal.at_least:
        value += f" (1/{1 / verdict.value:.3g})"
    return (goal.case.label, goal.candidate, goal.text, value or verdict.why, "held" if verdict.held else "MISSED")
