"""python -m tests.differential [--stack vpp] [--sequences N] [--seed N]: random operations, ours against asyncio's.

Ends with status 1 at the first disagreement, shortened, with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import time

from tests.differential.arena import Arena
from tests.differential.known import RULES
from tests.differential.tls import ENGINES
from vppaio.testing.vppinstance import VppInstance


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--stack", choices=("host", "vpp"), default="host")
    parser.add_argument("--tls", choices=ENGINES, default="", help="over TLS, ours by this engine, asyncio's by ssl")
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first sequence")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--keep-going", action="store_true", help="count disagreements instead of ending at the first")
    parser.add_argument("--verbose", "-v", action="store_true", help="show also what a repetition did not confirm")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.sequences) if options.seed is None else [options.seed]
    with contextlib.ExitStack() as stack:
        # Sequences end within the 2 s that VPP gives half-closed connections, unless the machine is busy.
        vpp = stack.enter_context(VppInstance(tcp="closewait-time 30")) if options.stack == "vpp" else None
        arena = stack.enter_context(Arena(options.stack, frozenset(RULES.get(options.stack, {})), vpp, options.tls))
        arena.verbose = options.verbose
        started = time.monotonic()
        found = []
        played = 0
        for played, seed in enumerate(seeds, 1):  # noqa: B007
            disagreement = arena.compare_seed(seed)
            if disagreement is not None:
                found.append(seed)
                print(f"\n==== seed {seed} on {options.stack}\n{arena.shortened(disagreement)}", flush=True)
                if not options.keep_going:
                    break
        seconds = time.monotonic() - started
    over = f" over TLS by {options.tls}" if options.tls else ""
    print(
        f"{options.stack}{over}: {played} sequences from seed {seeds[0]}, disagreements: {found or 'none'}, "
        f"repeated for time: {arena.repeated}, {seconds:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
