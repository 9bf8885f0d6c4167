"""The corpus and a few seconds of every fuzzer; `python -m tests.fuzz` goes on for as long as you like."""

from __future__ import annotations

import logging

import pytest

import vppaio
from tests.fuzz.__main__ import TARGETS, fuzz
from tests.support.sites import Site

SECONDS = 1.0


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(stack: Site, target: str, caplog: pytest.LogCaptureFixture) -> None:
    if target == "text" and stack.name == "vpp":
        pytest.skip("text is the same everywhere")
    caplog.set_level(logging.CRITICAL, logger="aiohttp")
    assert vppaio.run(fuzz(target, stack, SECONDS, seed=1), config=stack.config) > 10
