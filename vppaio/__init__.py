"""asyncio on FD.io VPP's user-space host stack.

`vppaio.run(main())` runs a coroutine as asyncio.run does; `vppaio.new_event_loop` is a loop_factory;
`vppaio.install()` makes every loop of the process ours. Without VPP the same code runs on the kernel's stack.
"""

import asyncio as _asyncio
import socket as _socket
import warnings as _warnings
from collections.abc import Coroutine as _Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from vppaio.config import Config
from vppaio.loop.eventloop import EventLoop
from vppaio.loop.stacks import StackEvent
from vppaio.routes import Stack
from vppaio.transports.pseudosocket import SessionSocket

if TYPE_CHECKING:
    import sys

    if sys.version_info >= (3, 14):
        from asyncio.events import _BaseDefaultEventLoopPolicy as EventLoopPolicy
    else:
        from asyncio.events import BaseDefaultEventLoopPolicy as EventLoopPolicy

__version__ = "0.1.0"
__all__ = [
    "Config",
    "EventLoop",
    "EventLoopPolicy",
    "StackEvent",
    "__version__",
    "install",
    "new_event_loop",
    "run",
    "socket",
]

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


def socket(
    family: int = _socket.AF_INET, type: int = _socket.SOCK_STREAM, *, stack: Stack | None = None
) -> SessionSocket:
    """A non-blocking socket on a session of the running loop, for its sock_* methods, `create_server(sock=)` and so on.

    Args:
        family: AF_INET or AF_INET6.
        type: SOCK_STREAM or SOCK_DGRAM.
        stack: "host" or "vpp"; by default VPP where it takes part.

    Raises:
        RuntimeError: no loop of ours is running.
        ValueError: that stack does not take part, or there are no such sockets.
    """
    loop = _asyncio.get_running_loop()
    if not isinstance(loop, EventLoop):
        raise RuntimeError(f"vppaio.socket() needs a running vppaio.EventLoop, not {loop!r}")
    return loop._stacks.socket(family, type, stack)


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
