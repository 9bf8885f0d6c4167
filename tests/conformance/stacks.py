"""The loops that CPython's tests can be run on, put behind asyncio's own names.

    host         everything on the host stack
    vpp-servers  what is bound is on VPP, what is connected on the host stack; both in one VppInstance's namespace
    vpp-clients  the other way round

A VCL process cannot connect to itself, so the two ends of a test cannot both be on VPP.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
from collections.abc import Iterator
from typing import Any

from tests.conformance import loopback

VPP_STACKS = ("vpp-servers", "vpp-clients")
STACKS = ("host", *VPP_STACKS)

_made = itertools.count()
_last = -1
_opening: contextvars.ContextVar[str] = contextvars.ContextVar("opening", default="")


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
    if stack in VPP_STACKS:
        base = _on_vpp(base, "bind" if stack == "vpp-servers" else "connect")
        # Some tests make SO_RCVBUF small, so that what they send does not fit; VPP's buffers are the Config's.
        arguments = (
            vppaio.Config(
                stack="vpp",
                app_socket=os.environ["VPPAIO_APP_SOCKET"],
                rx_fifo_size=64 << 10,
                tx_fifo_size=64 << 10,
            ),
        )

    class LoopUnderTest(base):
        """Counts itself; the selector that a test may bring goes unused, as the loop has one of its own."""

        def __init__(self, selector: Any = None) -> None:
            global _last
            _last = next(_made)
            super().__init__(*arguments)

    LoopUnderTest.__name__ = LoopUnderTest.__qualname__ = "EventLoop" if arguments else base.__name__
    asyncio.SelectorEventLoop = LoopUnderTest  # type: ignore[misc]
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = LoopUnderTest  # type: ignore[misc]
    for name in ("DefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):  # the latter from 3.14 on
        if policy := vars(asyncio).get(name) or vars(asyncio.unix_events).get(name):
            policy._loop_factory = LoopUnderTest


@contextlib.contextmanager
def _while_opening(what: str) -> Iterator[None]:
    token = _opening.set(what)
    try:
        yield
    finally:
        _opening.reset(token)


def _on_vpp(event_loop: Any, side: str) -> Any:
    """An EventLoop class that has on VPP what it binds, or what it connects; whatever the address."""
    from vppaio.vcl import application

    vpp_table = loopback.translated("vpp", application.vpp_ops_address())
    host_table = loopback.translated("host", application.host_ops_address())
    application.vpp_ops_address = lambda: vpp_table
    application.host_ops_address = lambda: host_table
    loopback.translate_sockets()

    class OneSideOnVpp(event_loop):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._stacks.stack_for = lambda ip: "vpp" if self.stacks and _opening.get() == side else "host"

        async def create_server(self, *args: Any, **kwargs: Any) -> Any:
            with _while_opening("bind"):
                return await super().create_server(*args, **kwargs)

        async def create_datagram_endpoint(
            self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **kwargs: Any
        ) -> Any:
            with _while_opening("connect" if remote_addr else "bind"):
                return await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **kwargs)

        async def _connect_sock(self, *args: Any) -> Any:
            with _while_opening("connect"):
                connecting = super()._connect_sock(*args)
                del args  # this frame is in the tracebacks of the errors that are collected in there
                return await connecting

        async def sock_connect(self, *args: Any) -> Any:
            with _while_opening("connect"):
                return await super().sock_connect(*args)

    return OneSideOnVpp
