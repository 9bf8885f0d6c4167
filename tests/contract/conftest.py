"""`table`: each stack in turn; `worker`: a worker of it that closes its sessions afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contract.driver import Worker
from tests.contract.stacks import FakeStack, HostStack, Stack


@pytest.fixture(params=["fake", "host", pytest.param("vpp", marks=pytest.mark.vpp)])
def table(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack under test; on ours, no descriptor may be left over."""
    if request.param == "vpp":
        try:
            stack = request.getfixturevalue("vpp_stack")
        except pytest.FixtureLookupError:
            pytest.skip("there is no fixture vpp_stack yet")
        yield stack
        return
    before = open_descriptors()
    stack = FakeStack() if request.param == "fake" else HostStack()
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
    return [f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
