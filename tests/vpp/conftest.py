"""The shared VPP as a `Site`."""

from __future__ import annotations

import pytest

from tests.stacks.sites import VppSite
from tests.vppinstance import VppInstance


@pytest.fixture
def site(vpp_instance: VppInstance) -> VppSite:
    return VppSite(vpp_instance)
