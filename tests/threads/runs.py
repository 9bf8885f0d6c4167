"""Processes of eight first loops, one after the other, on either stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from tests.support.sites import ROOT
from vppaio.testing.vppinstance import VppInstance

LIMIT_S = 60.0


def run(vpp: VppInstance | None, seed: int) -> str:
    """What went wrong in one process; "" if nothing did."""
    settings = {"VPPAIO_STACK": "vpp", "VPPAIO_APP_SOCKET": vpp.app_socket} if vpp else {"VPPAIO_STACK": "host"}
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.threads.program"]
    done = subprocess.run(
        [*command, vpp.address if vpp else "127.0.0.1", str(seed)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    # What libvppinfra says when the machine took it off the processor while it measured the clock (wait_for_answer).
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("clib_time_verify_frequency")]
    if done.returncode == 0 and not said:
        return ""
    return f"seed {seed}: status {done.returncode}\n{done.stdout}{done.stderr[-3000:]}"


def runs(vpp: VppInstance | None, count: int, first_seed: int) -> Iterator[str]:
    """The same for `count` processes: every second one with nothing but eight first loops, as the issue has it."""
    for number in range(count):
        yield run(vpp, 0 if number % 2 == 0 else first_seed + number)
        assert vpp is None or vpp.healthy(), vpp.log_tail()
