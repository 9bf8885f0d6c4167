"""The same two stacks as in tests/behaviour."""

from __future__ import annotations

from tests.behaviour.conftest import stack, vpp_site

__all__ = ["stack", "vpp_site"]
