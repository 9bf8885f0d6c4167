"""The loops that CPython's tests can be run on, put behind asyncio's own names."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

STACKS = ("host",)

_made = itertools.count()
_last = -1


def loops_made() -> int:
    """How many loops under test this process has made."""
    return _last + 1


def install(stack: str) -> None:
    """Let everything that makes a selector event loop make one of `stack` instead; "asyncio" leaves the stock loop."""
    if stack == "asyncio":
        base: Any = asyncio.SelectorEventLoop
        arguments: tuple[Any, ...] = ()
    else:
        import vppaio

        base = vppaio.EventLoop
        arguments = (vppaio.Config(stack="host"),)

    class LoopUnderTest(base):
        """Counts itself; the selector that a test may bring goes unused, as the loop has one of its own."""

        def __init__(self, selector: Any = None) -> None:
            global _last
            _last = next(_made)
            super().__init__(*arguments)

    LoopUnderTest.__name__ = LoopUnderTest.__qualname__ = base.__name__
    asyncio.SelectorEventLoop = LoopUnderTest  # type: ignore[misc]
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = LoopUnderTest  # type: ignore[misc]
    for name in ("DefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):  # the latter from 3.14 on
        if policy := vars(asyncio).get(name) or vars(asyncio.unix_events).get(name):
            policy._loop_factory = LoopUnderTest
