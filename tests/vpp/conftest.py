"""The shared VPP as a `Site`."""

from __future__ import annotations

import pytest

from testbed.vppinstance import VppInstance
from tests.support.sites import VppSite


@pytest.fixture
def site(vpp_instance: VppInstance) -> VppSite:
    return VppSite(vpp_instance)
