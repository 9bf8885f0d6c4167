"""python -m tests.threads [--processes 200] [--seed 1] [--stack host|vpp]: eight first loops in eight threads, many
times; a line for each failure, a verdict."""

from __future__ import annotations

import argparse
import contextlib

from tests.threads.runs import runs
from vppaio.testing.vppinstance import VppInstance


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.threads", description=__doc__)
    parser.add_argument("--processes", type=int, default=200, help="on each stack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stack", choices=("host", "vpp"), action="append")
    options = parser.parse_args()
    failed = 0
    for stack in options.stack or ("host", "vpp"):
        with VppInstance() if stack == "vpp" else contextlib.nullcontext() as vpp:
            for number, failure in enumerate(runs(vpp, options.processes, options.seed)):
                if failure:
                    failed += 1
                    print(f"{stack} {number}: {failure}", flush=True)
        print(f"{stack}: {options.processes} processes, {failed} failures so far", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
