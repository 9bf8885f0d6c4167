"""What `loop.statistics()` counts.

Everything is read from plain numbers of the loop, so asking is possible from any thread, costs microseconds, and
changes nothing. Counters begin with the loop and never fall; gauges say how many there are now.
"""

from __future__ import annotations

from typing import Final, NamedTuple


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
