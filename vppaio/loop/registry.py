"""Which loops of this process are open, for who asks all of them: `vppaio run --stats` and vppaio.metrics."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final, Protocol


class _Loop(Protocol):
    def is_closed(self) -> bool: ...
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


def open_loops() -> list[Any]:
    """All of them. Takes no lock: a forked child asks, and another thread of the parent may have it for ever."""
    return [loop for loop in list(_loops) if not loop.is_closed()]


def snapshots() -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1 on, and statistics of each open loop of this process."""
    with _lock:
        loops = [(number, loop) for loop, number in _loops.items()]
    for number, loop in loops:
        found = loop.statistics()
        if found["stacks"]:
            yield number, found
