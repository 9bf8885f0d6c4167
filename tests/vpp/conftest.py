"""The shared VPP as a `Site`."""

from __future__ import annotations

import pytest

from tests.support.sites import VppSite


@pytest.fixture
def site(vpp_site: VppSite) -> VppSite:
    return vpp_site
