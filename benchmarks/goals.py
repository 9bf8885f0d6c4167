"""The goals of the project, and whether a run holds them.

Every goal is a ratio of two medians of the same run (one is an absolute figure), because machines differ and ratios
less so. A goal that cannot be computed, because a row is missing or failed, is missed and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.candidates import HTTP, SCHEDULING
from benchmarks.plan import BUSY_POLL, TLS, Case, full
from benchmarks.results import Row, Spread

CPU: Final = "server_cpu_us"
RATE: Final = "rate"
P50: Final = "p50_us"
VPP: Final = "vppaio-vpp"
HOST: Final = "vppaio-host"


@dataclass(frozen=True)
class Goal:
    """`figure` of a candidate in a case, at most (CPU, latency, memory) or at least (rate) `limit` times another's.

    Attributes:
        other: candidate it is compared with; "" compares with `limit` itself.
        other_case: where the other one is measured, if not in the same case.
    """

    case: Case
    candidate: str
    figure: str
    limit: float
    other: str = "uvloop"
    other_case: Case | None = None
    at_least: bool = False

    @property
    def cases(self) -> tuple[Case, ...]:
        return (self.case, self.other_case or self.case)

    @property
    def text(self) -> str:
        what = {CPU: "CPU per operation", RATE: "KiB" if self.case.workload == "idle-memory" else "rate", P50: "p50"}
        bound = "at least" if self.at_least else "at most"
        if not self.other:
            return f"{what[self.figure]} {bound} {self.limit:g}"
        where = ""
        if self.other_case:
            where = f" in {self.other_case.label}" if self.other == self.candidate else ""
        factor = f"{self.limit:g}x" if self.limit >= 0.85 else f"1/{1 / self.limit:.3g} of"
        return f"{what[self.figure]} {bound} {factor} {self.other}{where}"


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    held: bool
    value: float | None  # the ratio, or the figure itself
    why: str = ""


def _stream(size: int, connections: int = 32, workload: str = "echo-protocol", variant: str = "") -> Case:
    return Case(workload, size, connections, variant)


def _at_least(case: Case, factor: float, candidate: str = VPP) -> Goal:
    return Goal(case, candidate, RATE, factor, at_least=True)


def _goals() -> list[Goal]:
    base = _stream(64)
    goals = [
        Goal(base, VPP, CPU, 1 / 7),
        Goal(base, VPP, CPU, 1.15, "c-vpp"),
        Goal(base, VPP, CPU, 1 / 3.5, "asyncio-ldp"),
        _at_least(base, 2),
        Goal(_stream(64, workload="echo-buffered"), VPP, CPU, 1 / 6),
        Goal(_stream(10240, workload="echo-buffered"), VPP, CPU, 1 / 3),
        Goal(_stream(64, workload="echo-streams"), VPP, CPU, 1 / 3),
        Goal(_stream(10240), VPP, CPU, 1 / 3),
        Goal(_stream(102400), VPP, CPU, 1 / 3),
        _at_least(_stream(102400), 2),
        Goal(_stream(64, 1), VPP, P50, 0.9),
        Goal(_stream(64, 1, variant=BUSY_POLL), VPP, P50, 1 / 2, other_case=_stream(64, 1)),
    ]
    for connections in (500, 1000):
        many = _stream(64, connections)
        goals += [Goal(many, VPP, CPU, 1 / 10), Goal(many, VPP, CPU, 1, VPP, base), _at_least(many, 3)]
    connect = _stream(64, workload="connect")
    udp = _stream(64, workload="echo-udp")
    aiohttp, uvicorn = (_stream(64, workload=name) for name in HTTP)
    goals += [
        Goal(aiohttp, VPP, CPU, 1 / 1.7),
        _at_least(aiohttp, 1.7),
        Goal(uvicorn, VPP, CPU, 1 / 2),
        _at_least(connect, 1),
        Goal(connect, VPP, CPU, 1 / 2),
        Goal(udp, VPP, CPU, 1 / 4, "asyncio"),
        Goal(udp, VPP, CPU, 1 / 4),
    ]
    everywhere = [case for case in full() if case.workload.startswith(("echo", "http")) and case.variant != BUSY_POLL]
    goals += [Goal(case, HOST, CPU, 1, other) for case in everywhere for other in ("uvloop", "aiofastnet")]
    goals += [Goal(Case(name), HOST, CPU, 1.5) for name in SCHEDULING]
    for variant in ("", TLS):
        idle = Case("idle-memory", 0, 200, variant)
        goals += [Goal(idle, candidate, RATE, 1) for candidate in (HOST, VPP)]
    tls = Case("idle-memory", 0, 200, TLS)
    return goals + [Goal(tls, candidate, RATE, 93, "") for candidate in (HOST, VPP)]


GOALS: Final[Sequence[Goal]] = tuple(_goals())


def cases() -> list[Case]:
    """What has to be measured, in the order of the table."""
    return list(dict.fromkeys(case for goal in GOALS for case in goal.cases))


def candidates() -> set[str]:
    return {name for goal in GOALS for name in (goal.candidate, goal.other) if name}


def wanted(case: Case) -> set[str]:
    """Candidates that a goal looks at in this case."""
    found = {goal.candidate for goal in GOALS if goal.case == case}
    return found | {goal.other for goal in GOALS if goal.cases[1] == case}


def judge(rows: Iterable[Row]) -> list[Verdict]:
    table = {(row.workload, row.size, row.connections, _variant(row.path), row.candidate): row for row in rows}
    return [_judge(goal, table) for goal in GOALS]


def _variant(path: str) -> str:
    return path.partition(", ")[2]


def _judge(goal: Goal, table: Mapping[tuple[str, int, int, str, str], Row]) -> Verdict:
    def figure(case: Case, candidate: str) -> tuple[float, str]:
        row = table.get((case.workload, case.size, case.connections, case.variant, candidate))
        if row is None:
            return 0, f"{candidate}: not measured"
        value = getattr(row, goal.figure)
        number = value.median if isinstance(value, Spread) else value
        if number is None or isinstance(row.errors, str):
            return 0, f"{candidate}: {row.errors}"
        return number, ""

    mine, why = figure(goal.case, goal.candidate)
    other, why_other = figure(goal.cases[1], goal.other) if goal.other else (1.0, "")
    if why or why_other or other <= 0:
        return Verdict(goal, False, None, why or why_other or f"{goal.other}: no figure")
    value = mine / other
    return Verdict(goal, value >= goal.limit if goal.at_least else value <= goal.limit, value)
