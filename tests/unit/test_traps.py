"""The list of traps is complete, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.traps import BEYOND, RULES, guards

ROOT = Path(__file__).parents[2]


def test_every_rule_has_a_test_on_vpp_and_every_guard_exists() -> None:
    command = [sys.executable, "-m", "pytest", "--co", "-q", "-m", "trap", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = re.findall(r"^(\w+): .*\n    (\S+): (\w+)\n    (\S+::\S.*)$", done.stdout, re.MULTILINE)
    assert {rule for rule, *_ in listed} == {BEYOND, *map(str, range(1, RULES + 1))}
    for _, file, function, _ in listed:
        assert re.search(rf"\b{function}\b", (ROOT / file).read_text()), f"{file} has no {function}"


@pytest.mark.parametrize("name", ["5.1: a section", "0: no rule", f"{RULES + 1}: no rule", "a trap", "5 a trap"])
def test_a_name_without_a_rule_is_an_error(name: str) -> None:
    item = SimpleNamespace(
        nodeid="test",
        get_closest_marker=lambda name: name,
        iter_markers=lambda name_of_mark: [pytest.mark.trap(name, guard="file: function").mark],
    )
    with pytest.raises(ValueError, match="neither"):
        guards([item])  # type: ignore[list-item]
