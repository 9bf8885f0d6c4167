"""VCL's traps, as `@pytest.mark.trap(NAME, guard="FILE: FUNCTION")` on tests names them.

NAME begins with the number of the rule in vcl-facts.md, section 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest


class Trap(NamedTuple):
    name: str
    file: str
    function: str
    test: str


def guards(items: Iterable[pytest.Item]) -> list[Trap]:
    """All that the tests on VPP among `items` are marked with, by number of the rule."""
    found = set()
    for item in items:
        if item.get_closest_marker("vpp") is not None:
            for mark in item.iter_markers("trap"):
                file, _, function = mark.kwargs["guard"].partition(": ")
                found.add(Trap(mark.args[0], file, function, item.nodeid))
    return sorted(found, key=lambda trap: ([int(part) for part in trap.name.partition(":")[0].split(".")], trap))
