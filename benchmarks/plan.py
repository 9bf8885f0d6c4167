"""What is measured: cases, and which of them a run takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.candidates import CANDIDATES, HTTP, SCHEDULING, WORKLOADS, Candidate

SIZES: Final = (64, 1024, 10240, 102400)
CONNECTIONS: Final = (1, 32, 500, 1000)
BUSY_POLL_US: Final = 50


@dataclass(frozen=True)
class Case:
    """One row of every candidate.

    Attributes:
        size: bytes of a message or body; 0 where there is none.
        connections: open at a time; 0 where there is none.
        variant: what else is special; goes into the row's path.
    """

    workload: str
    size: int = 0
    connections: int = 0
    variant: str = ""

    @property
    def label(self) -> str:
        parts = [self.workload]
        if self.size:
            parts.append(f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B")
        if self.connections:
            parts.append(f"{self.connections} connection{'s' * (self.connections > 1)}")
        return ", ".join([*parts, *([self.variant] if self.variant else [])])

    def suits(self, candidate: Candidate) -> bool:
        busy = self.variant == BUSY_POLL and candidate.name not in ("vppaio-host", "vppaio-vpp")
        return self.workload in candidate.workloads and not busy


TLS: Final = "TLS"
NEW_CONNECTION: Final = "new connection per request"
BUSY_POLL: Final = f"busy_poll_us={BUSY_POLL_US}"


def full() -> list[Case]:
    """Everything, in the order of the report."""
    cases = [Case("echo-protocol", size, n) for n in CONNECTIONS for size in SIZES if n == 32 or size == 64]
    cases += [Case("echo-protocol", 64, 1, BUSY_POLL), Case("echo-protocol", 10240, 1000)]
    cases += [Case("echo-buffered", size, 32) for size in SIZES]
    cases += [Case("echo-streams", size, n) for size, n in ((64, 1), (64, 32), (10240, 32), (102400, 32), (64, 1000))]
    cases += [Case("echo-sock", 64, 32), Case("echo-sock", 10240, 32)]
    cases += [Case("echo-tls", size, 32) for size in (64, 10240, 102400)]
    cases += [Case("echo-udp", 64, n) for n in (1, 32)]
    cases += [Case("echo-udp", 1024, 32)]
    for workload in HTTP:
        cases += [Case(workload, 64, 32), Case(workload, 2048, 32), Case(workload, 64, 500)]
        cases += [Case(workload, 64, 32, NEW_CONNECTION)]
    cases += [Case("connect", 64, 32)]
    cases += [Case("idle-memory", 0, 200), Case("idle-memory", 0, 200, TLS)]
    return cases + [Case(workload) for workload in SCHEDULING]


def quick() -> list[Case]:
    """One row of every workload."""
    chosen = {workload: Case(workload, 64, 32) for workload in WORKLOADS}
    chosen["idle-memory"] = Case("idle-memory", 0, 100)
    return [*(chosen[name] for name in WORKLOADS if name not in SCHEDULING), *(Case(name) for name in SCHEDULING)]


def filtered(
    cases: Iterable[Case], workloads: Collection[str], sizes: Collection[int], connections: Collection[int]
) -> list[Case]:
    """The cases that the filters leave. Sizes and numbers of connections that no case has are made from those there
    are: who asks for 7 connections gets them."""
    kept = [case for case in cases if not workloads or case.workload in workloads]
    if sizes:
        kept = [replace(case, size=size) if case.size else case for case in kept for size in sorted(sizes)]
    if connections:
        kept = [
            replace(case, connections=n) if case.connections else case for case in kept for n in sorted(connections)
        ]
    return list(dict.fromkeys(kept))


def chosen(names: Collection[str]) -> list[Candidate]:
    return [candidate for candidate in CANDIDATES if not names or candidate.name in names]
