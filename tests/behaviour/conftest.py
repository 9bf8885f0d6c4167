"""`stack`: the two stacks in turn, each with a kernel on the other side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.vppinstance import VppInstance
from tests.support.sites import HostSite, Site, VppSite


@pytest.fixture(params=["host", pytest.param("vpp", marks=pytest.mark.vpp)])
def stack(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A place to serve and a kernel around it."""
    if request.param == "host":
        yield HostSite()
    else:
        yield request.getfixturevalue("vpp_site")


@pytest.fixture
def vpp_site(vpp_instance: VppInstance) -> Iterator[VppSite]:
    """The same, for what only VPP does."""
    # As tests/conftest.py does for tests that name vpp_instance; those here ask for it while they are set up.
    if not vpp_instance.healthy():
        vpp_instance.restart()
    yield VppSite(vpp_instance)
    if vpp_instance.crashed():
        pytest.fail(f"VPP crashed; its log ends:\n{vpp_instance.log_tail()}")
