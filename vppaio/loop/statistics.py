"""What `loop.statistics()` counts, and the line of it that `vppaio run --stats` prints.

Everything is read from plain numbers of the loop, so asking is possible from any thread, costs microseconds, and
changes nothing. Counters begin with the loop and never fall; gauges say how many there are now.

Knows the loops that are open; `python -m vppaio run` and vppaio.metrics ask.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol


class Field(NamedTuple):
    """One number: `kind` is "gauge" or "counter", `unit` is "" for a plain count."""

    kind: str
    unit: str
    meaning: str


# Of a loop.
LOOP_FIELDS: Final = {
    "turns": Field("counter", "", "turns of the loop"),
    "sleeps": Field("counter", "", "turns that waited in the kernel"),
}
# Of each of its stacks.
FIELDS: Final = {
    "sessions": Field("gauge", "", "open sessions: connections, connects under way, listeners, datagram endpoints"),
    "listeners": Field("gauge", "", "sessions that listen"),
    "writes_waiting": Field("gauge", "", "transports with bytes that wait for room in their FIFO"),
    "opened": Field("counter", "", "sessions made, accepted ones included"),
    "closed": Field("counter", "", "sessions closed"),
    "accepted": Field("counter", "", "connections accepted"),
    "read_bytes": Field("counter", "bytes", "received by the loop's endpoints"),
    "written_bytes": Field("counter", "bytes", "taken by the stack for sending"),
    "read_blocked": Field("counter", "", "reads that found nothing (EAGAIN)"),
    "write_blocked": Field("counter", "", "writes that the FIFO refused (EAGAIN)"),
    "write_starved": Field("counter", "", "those of them for which VPP had no FIFO memory; see segment_size"),
    "write_wait_seconds": Field(
        "counter", "seconds", "that transports have waited for room in their FIFO, all together"
    ),
    "polls": Field("counter", "", "times the stack was asked for events"),
    "wakes": Field("counter", "", "times the stack woke the loop"),
    "events": Field("counter", "", "events handed to a session's owner"),
    "stale_events": Field("counter", "", "events of sessions closed meanwhile, dropped"),
    "budget_hits": Field("counter", "", "turns that left events for the next one, to be fair to timers and callbacks"),
    "lost": Field("counter", "", "times VPP went away"),
    "restored": Field("counter", "", "times the loop was attached to a new VPP"),
}


class _Loop(Protocol):
    def statistics(self) -> dict[str, Any]: ...


_loops: weakref.WeakKeyDictionary[_Loop, int] = weakref.WeakKeyDictionary()  # with their numbers
_lock: Final = threading.Lock()
_made = 0


def register(loop: _Loop) -> None:
    """Each loop does it when it is made."""
    global _made
    with _lock:
        _made += 1
        _loops[loop] = _made


def snapshots() -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1 on, and statistics of each open loop of this process."""
    with _lock:
        loops = [(number, loop) for loop, number in _loops.items()]
    for number, loop in loops:
        found = loop.statistics()
        if found["stacks"]:
            yield number, found


# ---- the line --------------------------------------------------------------------------------------------------------


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
