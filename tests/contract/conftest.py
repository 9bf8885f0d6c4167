"""What the layers above rely on, promise by promise of vcl_ops.h, on every table.

`table` is each stack in turn, `worker` a worker of it that closes its sessions afterwards. A test that needs what one
stack cannot do says so by its trap or its `session_fd`; everything else holds everywhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.stacks import FakeStack, HostStack, Stack, VppStack
from tests.fakes.vcl import VPP_TRAPS
from tests.support.driver import Worker


@pytest.fixture(params=["fake", "fake_with_traps", "host", pytest.param("vpp", marks=pytest.mark.vpp)])
def table(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack under test; on ours, no descriptor may be left over."""
    if request.param == "vpp":
        vpp = VppStack(request.getfixturevalue("vpp_site"))
        yield vpp
        vpp.close()
        return
    before = open_descriptors()
    stack: FakeStack | HostStack
    match request.param:
        case "fake":
            stack = FakeStack()
        case "fake_with_traps":
            stack = FakeStack(VPP_TRAPS)  # so that the fake differs from the kernel as VPP does, and not in more
        case _:
            stack = HostStack()
    yield stack
    stack.close()
    assert open_descriptors() == before


@pytest.fixture
def worker(table: Stack) -> Iterator[Worker]:
    """A worker whose sessions are closed at the end."""
    worker = Worker(table.ops)
    yield worker
    worker.close()


def open_descriptors() -> list[str]:
    """What is open, by number and kind."""
    descriptors = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of the listing itself
            descriptors.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return descriptors


@pytest.fixture
def pair(table: Stack, worker: Worker) -> tuple[int, Any]:
    """An accepted session and its peer."""
    listener, bound = worker.listen(table.host)
    peer = table.connect(bound)
    handle, _ = worker.accepted(listener)
    return handle, peer


@pytest.fixture
def datagrams(table: Stack, worker: Worker) -> tuple[int, tuple[str, int], Any]:
    """A bound datagram session, its address, and a peer."""
    handle, bound = worker.datagrams(table.host)
    return handle, bound, table.datagrams()


@pytest.fixture(autouse=True)
def _no_exceptions_inside(table: Stack) -> Iterator[None]:
    yield
    table.check()
