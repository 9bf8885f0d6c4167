"""The same two stacks as in tests/stacks."""

from __future__ import annotations

from tests.stacks.conftest import stack, vpp_site

__all__ = ["stack", "vpp_site"]
