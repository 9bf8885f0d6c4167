"""VCL's traps, as `@pytest.mark.trap(NAME, guard="FILE: FUNCTION")` on tests names them.

NAME is "N: ..." with the number of a rule in docs/vpp.md 0, or "beyond: ..." for a trap that is not on that list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import pytest

BEYOND: Final = "beyond"
RULES: Final = 12  # of the list


class Trap(NamedTuple):
    rule: int | None
    name: str
    file: str
    function: str
    test: str


def guards(items: Iterable[pytest.Item]) -> list[Trap]:
    """All that the tests on VPP among `items` are marked with, by number of the rule, those beyond the list last.

    Raises:
        ValueError: a name has neither form, such as one with the number of a section ("5.1: ...").
    """
    found = set()
    for item in items:
        if item.get_closest_marker("vpp") is not None:
            for mark in item.iter_markers("trap"):
                file, _, function = mark.kwargs["guard"].partition(": ")
                found.add(Trap(_rule(mark.args[0]), mark.args[0], file, function, item.nodeid))
    return sorted(found, key=lambda trap: (trap.rule or RULES + 1, trap[1:]))


def _rule(name: str) -> int | None:
    number, colon, _ = name.partition(": ")
    if colon and number == BEYOND:
        return None
    if colon and number.isdecimal() and 1 <= int(number) <= RULES:
        return int(number)
    raise ValueError(f"trap {name!r} has neither a rule's number, 1 to {RULES}, nor {BEYOND!r} before its colon")
