"""call-soon and timer: what the loop itself costs, without a network.

    python -m benchmarks.scheduling --loop uvloop --workload call-soon --seconds 1 --cpu 0

Result: JSON on stdout, as the load generator's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.servers import loop_factory

CHAINS = 100  # callbacks that are ready in one turn
TIMERS = 200
LONGEST_MS = 20


class CallSoon:
    """Callbacks that schedule themselves again, `CHAINS` of them at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.count = 0
        for _ in range(CHAINS):
            loop.call_soon(self.step)

    def step(self) -> None:
        self.count += 1
        self.loop.call_soon(self.step)


class Timer:
    """Timers that fire after 1 to 20 ms and start again, 36000 a second; for each one that fires another is started and
    cancelled, as time-outs are that do not happen. Whole milliseconds, because uvloop knows no others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.count = 0
        for i in range(TIMERS):
            self.arm((i % LONGEST_MS + 1) * 1e-3)

    def arm(self, delay: float) -> None:
        self.loop.call_later(delay, self.fire, delay)

    def fire(self, delay: float) -> None:
        self.count += 1
        self.loop.call_later(60, self.fire, delay).cancel()
        self.arm(delay)


async def measure(workload: Callable[[Any], Any], warmup: float, seconds: float) -> dict[str, float]:
    running = workload(asyncio.get_running_loop())
    await asyncio.sleep(warmup)
    count, cpu, clock = running.count, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    operations = running.count - count
    elapsed = time.perf_counter() - clock
    return {
        "operations": operations,
        "seconds": elapsed,
        "rate": operations / elapsed,
        "server_cpu_s": time.process_time() - cpu,
        "vpp_cpu_s": 0.0,
        "errors": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--workload", required=True, choices=("call-soon", "timer"))
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--cpu", type=int)
    o = parser.parse_args()
    if o.cpu is not None:
        os.sched_setaffinity(0, {o.cpu})
    workload = CallSoon if o.workload == "call-soon" else Timer
    with asyncio.Runner(loop_factory=loop_factory(o.loop)) as runner:
        print(json.dumps(runner.run(measure(workload, o.warmup, o.seconds))), flush=True)
        # The callbacks would go on; nobody waits for them.
        os._exit(0)


if __name__ == "__main__":
    main()
