"""Fixtures for all tests."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.sites import HostSite, Site, VppSite
from tests.support.traps import guards
from vppaio.testing.vppinstance import VppInstance

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

# Kernel peers of thousands of connections are descriptors of this process.
_, _most_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most_descriptors, _most_descriptors))

# A shell ignores it for what runs in its background, and programs that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

VPP_FIXTURES = {"vpp_instance", "own_vpp", "slow_vpp"}
_collected: list[pytest.Item] = []


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who names a fixture that starts VPP needs one, whether marked or not: under sanitizers VPP does not start."""
    for item in items:
        if VPP_FIXTURES & {*getattr(item, "fixturenames", ())}:
            item.add_marker("vpp")


def pytest_collection_finish(session: pytest.Session) -> None:
    _collected[:] = session.items


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`pytest --co -m trap` ends with the list of VCL's traps: rule, guard, test."""
    config = terminalreporter.config
    if config.option.collectonly and config.option.markexpr == "trap":
        terminalreporter.section("traps of VCL, what stands before them, and the test that walks in")
        for trap in guards(_collected):
            terminalreporter.write_line(f"{trap.name}\n    {trap.file}: {trap.function}\n    {trap.test}")


@pytest.fixture(scope="session")
def vpp_installed() -> None:
    """For tests that need a VPP: where none can be started they are skipped, and fail if CI says that there is one."""
    if reason := VppInstance.unavailable():
        (pytest.fail if os.environ.get("CI_REQUIRE_VPP") == "1" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def vpp_instance(vpp_installed: None) -> Iterator[VppInstance]:
    """The VPP all tests share; `whole_vpp` before each of them."""
    with VppInstance() as vpp:
        yield vpp


@pytest.fixture
def own_vpp(vpp_installed: None) -> Iterator[VppInstance]:
    """One that may die. The shared one is attached to this process, which would have to survive as well."""
    with VppInstance() as vpp:
        yield vpp


@pytest.fixture
def whole_vpp(vpp_instance: VppInstance) -> Iterator[VppInstance]:
    """The shared VPP: started again if the last test left it dead or stuck; a test that made it crash fails."""
    if not vpp_instance.healthy():
        vpp_instance.restart()
    yield vpp_instance
    if vpp_instance.crashed():
        pytest.fail(f"VPP crashed; its log ends:\n{vpp_instance.log_tail()}")


@pytest.fixture(autouse=True)
def _vpp_is_whole(request: pytest.FixtureRequest) -> None:
    """For tests that name `vpp_instance` alone."""
    if "vpp_instance" in request.fixturenames:
        request.getfixturevalue("whole_vpp")


# ---- the two stacks, each with a kernel on the other side ------------------------------------------------------------


@pytest.fixture(params=["host", pytest.param("vpp", marks=pytest.mark.vpp)])
def stack(request: pytest.FixtureRequest) -> Site:
    """Each of them in turn: a place to serve and a kernel around it."""
    site: Site = HostSite() if request.param == "host" else request.getfixturevalue("vpp_site")
    return site


@pytest.fixture
def vpp_site(whole_vpp: VppInstance) -> VppSite:
    """VPP's, for what only VPP does."""
    return VppSite(whole_vpp)


@pytest.fixture
def certificates(tmp_path: Path, stack: Site) -> Certificates:
    """For the addresses of `stack`."""
    from tests.support.certificates import Certificates  # trustme is not there where only CPython's tests run

    return Certificates(tmp_path, stack)
