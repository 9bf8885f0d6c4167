"""Eight first loops in eight threads; the long mode is `python -m tests.threads`."""

from __future__ import annotations

import pytest

from tests.threads.runs import runs
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.timeout(120)


def test_first_loops_of_eight_threads_on_the_host_stack() -> None:
    assert "".join(runs(None, 6, first_seed=1000)) == ""


@pytest.mark.vpp
@pytest.mark.trap("beyond: settings are read while others change", guard="vppaio/vcl/vpp_settings.c: vpp_getenv")
def test_first_loops_of_eight_threads_on_vpp(own_vpp: VppInstance) -> None:
    assert "".join(runs(own_vpp, 10, first_seed=2000)) == ""
