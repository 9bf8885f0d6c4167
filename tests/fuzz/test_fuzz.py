"""The corpus and a few seconds of every fuzzer; `python -m tests.fuzz` goes on for as long as you like."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import vppaio
from tests.fuzz.__main__ import TARGETS, fuzz
from tests.support.sites import ROOT, Site

SECONDS = 1.0


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(stack: Site, target: str, caplog: pytest.LogCaptureFixture) -> None:
    if target == "text" and stack.name == "vpp":
        pytest.skip("text is the same everywhere")
    caplog.set_level(logging.CRITICAL, logger="aiohttp")
    assert vppaio.run(fuzz(target, stack, SECONDS, seed=1), config=stack.config) > 10


@pytest.mark.parametrize(
    ("where", "sequences"), [("fake", 100), ("host", 100), pytest.param("vpp", 40, marks=pytest.mark.vpp)]
)
@pytest.mark.timeout(300)
def test_sequences_of_random_calls(where: str, sequences: int) -> None:
    """In processes that are forked from one of its own, since a finding may be the death of one."""
    command = [sys.executable, "-m", "tests.fuzz", "api", "--stack", where, "--seeds", str(sequences), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sequences} sequences" in done.stdout


def test_a_finding_names_its_seed() -> None:
    """A sequence whose process dies, and one that does not hold what it must."""
    code = (
        "import os, sys\n"
        "from tests.fuzz import api\n"
        "def play(sequence):\n"
        "    number = int(sequence.seed.split(':')[1])\n"
        "    if number == 2:\n"
        "        os.abort()\n"
        "    if number == 4:\n"
        "        raise api.Finding('as it must not be')\n"
        "api.Sequence.play = play\n"
        "sys.exit(api.fuzz('host', 7, 0, 6, 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "sequence 2: the process ended with -6" in done.stdout
    assert "sequence 4: as it must not be" in done.stdout
    assert "python -m tests.fuzz api --stack host --seed 7 --first 4 --seeds 1" in done.stdout
    assert "findings: 2" in done.stdout
