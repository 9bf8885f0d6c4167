"""python -m tests.faults --stack fake|host|vpp|limits [--seeds N] [--first S] [--jobs J]: many runs with trouble.

Prints every seed that failed, and ends with status 1 if there was one.
"""

from __future__ import annotations

import argparse
import collections
import logging
import subprocess
import sys
import tempfile
import time
import traceback

from tests.faults.runs import places, progress
from tests.faults.simulation import Failed, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--stack", choices=("fake", "host", "vpp", "limits"), default="fake")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.jobs > 1:
        return in_processes(options)
    logging.disable(logging.WARNING)  # of a stack that is lost and back
    outcome: collections.Counter[str] = collections.Counter()
    failed = []
    started = time.monotonic()
    with places(options.stack) as place_of, progress(options.progress) as begin:
        for seed in range(options.first, options.first + options.seeds):
            begin(seed)
            try:
                outcome += run(place_of(seed), seed)
            except Failed as failure:
                failed.append(seed)
                print(f"{options.stack}: {failure}", flush=True)
            except Exception:
                failed.append(seed)
                print(f"{options.stack}: seed {seed}:\n{traceback.format_exc()}", flush=True)
    seconds = time.monotonic() - started
    print(
        f"{options.stack}: {options.seeds} seeds from {options.first}, failed: {failed or 'none'}, {seconds:.0f} s, "
        f"{1e3 * seconds / max(options.seeds, 1):.1f} ms each\n"
        f"  {', '.join(f'{what}: {n}' for what, n in sorted(outcome.items()))}",
        flush=True,
    )
    return 1 if failed else 0


def in_processes(options: argparse.Namespace) -> int:
    """Share the seeds out; a process that crashes is a failure of the seed it was at."""
    share = -(-options.seeds // options.jobs)
    status = 0
    with tempfile.TemporaryDirectory(prefix="vppaio-faults-") as folder:
        jobs = []
        for first in range(options.first, options.first + options.seeds, share):
            seeds = min(share, options.first + options.seeds - first)
            at = f"{folder}/{first}"
            command = [sys.executable, "-m", "tests.faults", "--stack", options.stack]
            command += ["--seeds", str(seeds), "--first", str(first), "--progress", at]
            jobs.append((subprocess.Popen(command), at))
        for job, at in jobs:
            if job.wait() not in (0, 1):
                with open(at) as file:
                    print(f"{options.stack}: the process ended with status {job.returncode} at seed {file.read()}")
            status |= job.returncode != 0
    return status


if __name__ == "__main__":
    raise SystemExit(main())
