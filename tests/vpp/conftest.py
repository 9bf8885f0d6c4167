"""The shared VPP as a `Site`, and one of its own for a test that kills it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stacks.sites import VppSite
from tests.vppinstance import VppInstance


@pytest.fixture
def site(vpp_instance: VppInstance) -> VppSite:
    return VppSite(vpp_instance)


@pytest.fixture
def own_vpp() -> Iterator[VppInstance]:
    """One that may die."""
    if reason := VppInstance.unavailable():
        pytest.skip(reason)
    with VppInstance() as vpp:
        yield vpp
