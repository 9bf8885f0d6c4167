"""VPP dies under load a few times; the long mode is `python -m tests.restarts`."""

from __future__ import annotations

import pytest

from tests.restarts.harness import LONGEST_OUTAGE, leaks, restarts
from vppaio.testing.vppinstance import VppInstance


@pytest.mark.vpp
@pytest.mark.timeout(120)
def test_service_comes_back_each_time_and_its_kernel_side_never_stops(own_vpp: VppInstance) -> None:
    found = restarts(own_vpp, kills=2, clients=50)
    for restart in found:
        assert restart.outage < LONGEST_OUTAGE
        # VCL would sleep for 1 s in the loop's thread (vpp_loss.c: vpp_sleep).
        assert restart.slowest_answer < 0.9
        assert restart.report["longest_gap"] < 0.9
        assert restart.report["sessions"] == 51
    assert leaks(found) == []
