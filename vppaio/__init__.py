"""asyncio on FD.io VPP's user-space host stack.

`vppaio.run(main())` runs a coroutine as asyncio.run does; `vppaio.new_event_loop` is a loop_factory;
`vppaio.install()` makes every loop of the process ours. Without VPP the same code runs on the kernel's stack.
"""

import asyncio as _asyncio
import warnings as _warnings
from collections.abc import Coroutine as _Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from vppaio.config import Config
from vppaio.loop.eventloop import EventLoop

if TYPE_CHECKING:
    from asyncio.events import BaseDefaultEventLoopPolicy as EventLoopPolicy

__version__ = "0.1.0"
__all__ = ["Config", "EventLoop", "EventLoopPolicy", "__version__", "install", "new_event_loop", "run"]

_T = TypeVar("_T")


def new_event_loop(config: Config | None = None) -> EventLoop:
    """Make an event loop; without argument a `loop_factory` for asyncio.Runner, asyncio.run, uvicorn and
    pytest-asyncio.

    Raises:
        ValueError: a setting is wrong; names it.
    """
    return EventLoop(config)


def run(main: _Coroutine[Any, Any, _T], *, debug: bool | None = None, config: Config | None = None) -> _T:
    """Run `main` on a new event loop, as asyncio.run does.

    Raises:
        RuntimeError: called from a running event loop.
        ValueError: a setting is wrong; names it.
    """
    with _asyncio.Runner(debug=debug, loop_factory=lambda: EventLoop(config)) as runner:
        return runner.run(main)


def install() -> None:
    """Make vppaio's loop the default of this process: `asyncio.set_event_loop_policy(vppaio.EventLoopPolicy())`.

    Python 3.14 deprecates policies; prefer `vppaio.run` or `loop_factory=vppaio.new_event_loop`.
    """
    with _warnings.catch_warnings():
        _warnings.simplefilter("ignore", DeprecationWarning)
        _asyncio.set_event_loop_policy(_policy_class()())


def _policy_class() -> Any:
    """asyncio deprecates its policy classes from 3.14 on, so ours is made when it is first asked for."""
    with _warnings.catch_warnings():
        _warnings.simplefilter("ignore", DeprecationWarning)
        base: Any = _asyncio.DefaultEventLoopPolicy

        class EventLoopPolicy(base):  # type: ignore[misc]
            """An asyncio event loop policy whose loops are vppaio's."""

            _loop_factory = EventLoop

    EventLoopPolicy.__module__, EventLoopPolicy.__qualname__ = __name__, "EventLoopPolicy"
    return EventLoopPolicy


def __getattr__(name: str) -> Any:
    if name == "EventLoopPolicy":
        value = globals()[name] = _policy_class()
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
