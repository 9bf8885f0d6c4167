"""python -m tests.fuzz TARGET --seconds N --seed S [--stack host|vpp]: throw at one target for a while.

The target `api` (tests/fuzz/api.py) also has the stack `fake`, and `--seeds N` for a number of sequences.

Every case has its own random numbers from the seed and its number, so `--first` goes straight to one that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import vppaio
from tests.fuzz import api
from tests.fuzz.services import Datagrams, Http, Tls
from tests.fuzz.texts import Texts
from tests.support.sites import HostSite, VppSite
from vppaio.testing.vppinstance import VppInstance

TARGETS: Final[dict[str, Callable[[Any], Any]]] = {
    "text": lambda site: Texts(),
    "tls": Tls,
    "http": Http,
    "datagrams": Datagrams,
}


async def fuzz(target: str, site: Any, seconds: float, seed: int, first: int = 0, say: bool = False) -> int:
    """The whole corpus, then cases until the time is up; returns how many."""
    until = time.monotonic() + seconds
    number, said = first, time.monotonic()
    async with TARGETS[target](site) as under_test:
        await under_test.corpus()
        while time.monotonic() < until:
            try:
                await under_test.case(random.Random(f"{seed}:{number}"))
            except BaseException:
                print(f"{target}: case {number} of seed {seed}", file=sys.stderr)
                raise
            number += 1
            if say and time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{target}: {number} cases", flush=True)
    return number - first


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=(*TARGETS, "api"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seeds", type=int, help="how many cases, instead of a time; api only")
    parser.add_argument("--stack", choices=("fake", "host", "vpp"), default="host")
    o = parser.parse_args()
    if o.target == "api":
        sys.exit(1 if api.fuzz(o.stack, o.seed, o.first, o.seeds, o.seconds) else 0)
    if o.stack == "fake" or o.seeds is not None:
        parser.error("--stack fake and --seeds are for the target api")
    faulthandler.enable()
    print(f"{o.target} on {o.stack}, seed {o.seed}", flush=True)
    with contextlib.ExitStack() as last:
        site: Any = HostSite() if o.stack == "host" else VppSite(last.enter_context(VppInstance()))
        began = time.monotonic()
        number = vppaio.run(fuzz(o.target, site, o.seconds, o.seed, o.first, say=True), config=site.config)
        if o.stack == "vpp":
            assert site.vpp.healthy(), site.vpp.log_tail()
    print(f"{o.target} on {o.stack}: {number} cases in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main()
