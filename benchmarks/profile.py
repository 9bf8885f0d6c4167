"""--profile: where a server's CPU time goes, in microseconds per operation, by whose code it is.

`perf` samples the server's clock while a round runs. What Linux's kernel does for a server on VPP is sleeping and
waking; for one on the kernel it is TCP, too.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.candidates import SCHEDULING, Candidate
from benchmarks.native import Unavailable
from benchmarks.plan import Case

if TYPE_CHECKING:
    from benchmarks.results import Measurement
    from benchmarks.run import Bench

HEADER: Final = ("case", "candidate", "us", "kernel", "VCL", "Python", "loop", "TLS", "libc", "other")
SAMPLES_PER_S: Final = "4000"
# The first one whose words occur in a file's name has it.
OWNERS: Final = (
    ("kernel", ("[kernel", "[vdso]")),
    ("VCL", ("libvppcom", "libsvm", "libvppinfra", "libvlibmemoryclient", "libvcl_ldpreload")),
    ("TLS", ("libssl", "libcrypto", "_ssl.")),
    ("Python", ("libpython", "bin/python", "python3", "_asyncio.", "_socket.", "select.", "_struct.")),
    ("libc", ("libc.so", "ld-linux", "libm.so")),
    ("loop", ("_vcl.", ".so", "echo")),
)


def owner(file: str) -> str:
    name = file.rsplit("/", 1)[-1] if not file.startswith("[") else file
    extension = ".cpython-" in name or ".abi3." in name
    for title, words in OWNERS:
        if extension and title == "Python" and not name.startswith(("_asyncio", "_socket", "select", "_struct")):
            continue
        if any(word in name for word in words):
            return title
    return "other"


def shares(report: str) -> dict[str, float]:
    """Parts of the whole by owner, of `perf report --sort dso`."""
    found: dict[str, float] = {}
    for line in report.splitlines():
        percent, _, file = line.strip().partition(" ")
        if percent.endswith("%") and file.strip():
            title = owner(file.strip())
            found[title] = found.get(title, 0.0) + float(percent[:-1]) / 100
    return found


def _record(bench: Bench, case: Case, candidate: Candidate) -> tuple[Measurement, dict[str, float]]:
    server, _ = bench.server(candidate, case)
    results: list[Measurement] = []
    data = str(bench.folder / "perf.data")
    round = threading.Thread(target=lambda: results.append(bench.measure(case, candidate)))
    round.start()
    recorded = subprocess.run(
        [
            *["perf", "record", "-q", "-e", "cpu-clock", "-F", SAMPLES_PER_S, "-o", data],
            *["-p", str(server.process.pid), "sleep", str(bench.warmup + bench.seconds)],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    round.join()
    if recorded.returncode or not results:
        raise Unavailable(f"perf: {recorded.stderr.strip().splitlines()[-1:] or 'no round'}")
    command = ["perf", "report", "-i", data, "--stdio", "-q", "--no-children", "-g", "none", "--sort", "dso"]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    return results[0], shares(report.stdout)


def rows(
    bench: Bench,
    cases: Sequence[Case],
    chosen: Sequence[Candidate],
    wanted: Callable[[Case], Collection[str]] | None = None,
) -> Iterator[tuple[str, ...]]:
    """One line per case and candidate, of those `wanted` in it; what cannot be profiled says why.

    Raises:
        Unavailable: there is no perf.
    """
    if shutil.which("perf") is None:
        raise Unavailable("no perf: Debian has it in linux-perf")
    for case in cases:
        for candidate in chosen:
            if not case.suits(candidate) or case.workload in (*SCHEDULING, "idle-memory"):
                continue
            if wanted and candidate.name not in wanted(case):
                continue
            try:
                measured, parts = _record(bench, case, candidate)
            except Unavailable as reason:
                yield (case.label, candidate.name, str(reason), *[""] * (len(HEADER) - 3))
                continue
            us = measured["server_cpu_s"] / measured["operations"] * 1e6
            yield (case.label, candidate.name, f"{us:.2f}", *(f"{us * parts.get(t, 0):.2f}" for t in HEADER[3:]))
        bench.stop_servers()
