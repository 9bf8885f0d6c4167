"""The lines that `vppaio run --stats` prints."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping

from vppaio.loop.registry import snapshots


def short(value: float) -> str:
    """Three digits and a suffix: 1.23k, 45.6M."""
    for suffix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g}{suffix}"
        value /= 1000
    return f"{value:.3g}T"


def line(now: Mapping[str, float], before: Mapping[str, float], seconds: float) -> str:
    """One stack: gauges as they are, counters as rates per second, and what should not happen only if it did."""

    def rate(name: str) -> float:
        return (now[name] - before.get(name, 0)) / seconds

    parts = [f"{short(now[name])} {name}" for name in ("sessions", "listeners")]
    parts += [f"{short(rate(name))} {name}/s" for name in ("accepted", "closed", "events", "polls", "wakes")]
    parts += [f"read {short(rate('read_bytes'))}B/s", f"written {short(rate('written_bytes'))}B/s"]
    if now["writes_waiting"] or rate("write_blocked"):
        waited = rate("write_wait_seconds")
        parts.append(
            f"{short(now['writes_waiting'])} writes_waiting ({waited:.2f} s/s, {short(rate('write_blocked'))}/s)"
        )
    parts += [f"{short(rate(n))} {n}/s" for n in ("write_starved", "budget_hits", "stale_events") if rate(n)]
    parts += [f"{short(now[n])} {n}" for n in ("lost", "restored") if now[n]]
    return ", ".join(parts)


class Reporter(threading.Thread):
    """Prints a line to stderr for every stack of every open loop.

    Args:
        interval: seconds between two of them.
    """

    def __init__(self, interval: float) -> None:
        super().__init__(name="vppaio-stats", daemon=True)
        self._interval = interval
        self._before: dict[tuple[int, str], Mapping[str, float]] = {}
        self._at = time.monotonic()

    def run(self) -> None:
        while True:
            time.sleep(self._interval)
            self.report()

    def report(self) -> None:
        """Print what has happened since the last time."""
        now = time.monotonic()
        seconds, self._at = now - self._at, now
        for number, found in snapshots():
            for stack, numbers in found["stacks"].items():
                before = self._before.get((number, stack), {})
                self._before[number, stack] = numbers
                print(f"vppaio loop {number} {stack}: {line(numbers, before, seconds)}", file=sys.stderr, flush=True)
