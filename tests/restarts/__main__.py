"""python -m tests.restarts [--kills 25] [--clients 200]: VPP is killed under load. A line for each time, a verdict."""

from __future__ import annotations

import argparse

from tests.restarts.harness import LONGEST_OUTAGE, Restart, leaks, restarts
from vppaio.testing.vppinstance import VppInstance


def tell(number: int, restart: Restart) -> None:
    report = restart.report
    print(
        f"{number:3}  served {restart.outage:5.2f} s, all {restart.all_back:5.2f} s after VPP was configured; "
        f"slowest HTTP answer {restart.slowest_answer:4.2f} s; sessions {report['sessions']}, fds {report['fds']}, "
        f"own {report['own_kb']} kB, shared {report['shared_kb']} kB, mappings {report['mappings']}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.restarts", description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    with VppInstance() as vpp:
        found = restarts(vpp, options.kills, options.clients, tell)
    early, late = found[min(4, len(found) - 1)].report, found[-1].report
    growth = {key: late[key] - early[key] for key in ("sessions", "fds", "own_kb", "shared_kb", "mappings")}
    outage, slowest = max(r.outage for r in found), max(r.slowest_answer for r in found)
    print(f"from restart {min(5, len(found))} to {len(found)}: {growth}")
    print(f"longest outage {outage:.2f} s, slowest HTTP answer {slowest:.2f} s")
    return 0 if outage < LONGEST_OUTAGE and leaks(found) == [] else 1


if __name__ == "__main__":
    raise SystemExit(main())
