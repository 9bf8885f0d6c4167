"""The list of traps is complete, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RULES = 12  # of vcl-facts.md, section 0


def test_every_rule_has_a_test_on_vpp_and_every_guard_exists() -> None:
    command = [sys.executable, "-m", "pytest", "--co", "-q", "-m", "trap", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = re.findall(r"^([\d.]+): .*\n    (\S+): (\w+)\n    (\S+::\S.*)$", done.stdout, re.MULTILINE)
    assert {int(rule.partition(".")[0]) for rule, *_ in listed} == set(range(1, RULES + 1))
    for _, file, function, _ in listed:
        assert re.search(rf"\b{function}\b", (ROOT / file).read_text()), f"{file} has no {function}"
