"""Measurements into rows, rows into JSON.

A row is one case of one candidate, with exactly these keys:

    workload, size, connections, candidate
    path         between client and server, and what else is special: "loopback", "cut-through", "veth", "loopback, TLS"
    rate         operations per second; idle-memory: KiB per connection, both ends together
    server_cpu_us, vpp_cpu_us    microseconds of processor time per operation; each of the three has median, min, max
    p50_us, p99_us, p999_us      latency in microseconds, medians over the rounds
    errors       failed operations, or, where there is nothing to tell but that, why there are no numbers

What a workload does not have is null.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.candidates import Candidate
from benchmarks.plan import Case

Measurement = Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(*(round(f(values), 3) for f in (statistics.median, min, max))) if values else None


@dataclass(frozen=True)
class Row:
    workload: str
    size: int
    connections: int
    candidate: str
    path: str
    rate: Spread | None
    server_cpu_us: Spread | None
    vpp_cpu_us: Spread | None
    p50_us: float | None
    p99_us: float | None
    p999_us: float | None
    errors: int | str


def path_of(case: Case, candidate: Candidate) -> str:
    """How client and server reach each other."""
    if not case.connections:
        path = "none"
    elif not candidate.vpp:
        path = "loopback"
    else:
        # VPP's cut-through is for streams; datagrams come from a kernel client through a veth.
        path = "veth" if case.workload == "echo-udp" else "cut-through"
    return f"{path}, {case.variant}" if case.variant else path


def row_of(case: Case, candidate: Candidate, measured: Sequence[Measurement], failure: str) -> Row:
    """One row; `failure` says why there are fewer measurements than rounds, "" if there are not."""

    def spread(key: str) -> Spread | None:
        values = [m[key] * 1e6 / m["operations"] for m in measured if key in m and m["operations"]]
        return Spread.of(values)

    def median(key: str) -> float | None:
        values = [m[key] for m in measured if key in m]
        return round(statistics.median(values), 2) if values else None

    return Row(
        case.workload,
        case.size,
        case.connections,
        candidate.name,
        path_of(case, candidate),
        Spread.of([m["rate"] for m in measured]),
        spread("server_cpu_s"),
        spread("vpp_cpu_s") if candidate.vpp else None,
        median("p50_us"),
        median("p99_us"),
        median("p999_us"),
        failure or int(sum(m["errors"] for m in measured)),
    )


def rows_as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def rows_from_json(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    def spread(value: Mapping[str, float] | None) -> Spread | None:
        return None if value is None else Spread(**value)

    return [
        Row(**{**row, **{key: spread(row[key]) for key in ("rate", "server_cpu_us", "vpp_cpu_us")}})  # type: ignore[arg-type]
        for row in rows
    ]


def read(path: str | Path) -> tuple[dict[str, Any], list[Row]]:
    document = json.loads(Path(path).read_text())
    return document["meta"], rows_from_json(document["rows"])


def write(path: str | Path, meta: Mapping[str, Any], rows: Iterable[Row]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"meta": meta, "rows": rows_as_json(rows)}, indent=1) + "\n")


# ---- what the numbers depend on --------------------------------------------------------------------------------------

_HERE: Final = Path(__file__).parent


def _first(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=_HERE, check=False)
    except OSError:
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def meta(candidates: Iterable[Candidate], **more: Any) -> dict[str, Any]:
    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": _first(["git", "describe", "--always", "--dirty"]),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average_before": os.getloadavg()[0],
        "versions": {c.name: c.version() for c in candidates if c.version()},
        **more,
    }
