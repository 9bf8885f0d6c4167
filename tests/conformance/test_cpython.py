"""CPython's own asyncio tests on vppaio, one pytest test per module; see runner.py.

`python -m tests.conformance` does the same with more to say.
"""

import concurrent.futures
import os
import sys

import pytest

from tests.conformance import runner
from tests.conformance.stacks import VPP_STACKS

MODULES = runner.modules()
# Tests that have to run on a loop of ours: a runner that runs nothing passes everything. 907 do with 3.11.7, 998 with
# 3.12.1.
LEAST = 850

# Debian has them in a package of their own.
WITH_TESTS = pytest.mark.skipif(
    not MODULES, reason=f"no test.test_asyncio here: apt-get install libpython3.{sys.version_info.minor}-testsuite"
)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def verdicts(request):
    """A future for each module that was selected; they run side by side, the longest of them begin."""
    chosen = {
        item.callspec.params["module"]
        for item in request.session.items
        if "module" in getattr(item, "fixturenames", ()) and item.callspec.params["module"] in MODULES
    }
    first = [module for module in ("test_subprocess", "test_tasks", "test_events") if module in chosen]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {module: pool.submit(runner.judge, module, "host") for module in (*first, *sorted(chosen - {*first}))}


@WITH_TESTS
@pytest.mark.parametrize("module", MODULES)
def test_passes_what_stock_asyncio_passes(module, verdicts, executed):
    verdict = verdicts[module].result()
    executed["host"] += verdict.executed
    failures = verdict.failures
    assert not failures, "\n".join(f"{test}: {result.outcome}\n{result.detail}" for test, result in failures.items())


def test_enough_tests_were_executed(verdicts, executed):
    if set(verdicts) != set(MODULES) or not MODULES:
        pytest.skip("only when all modules are run")
    assert executed["host"] >= LEAST


# The ones that have real clients or servers on VPP and take seconds; `python -m tests.conformance --stack vpp` runs
# all.
QUICK_ON_VPP = ("test_buffered_proto", "test_server", "test_sock_lowlevel", "test_streams")
# Of these, with 3.11.7 4 tests have servers on VPP and 22 clients, with 3.13.0 10 and 27. Patch releases add some and
# seldom take one away.
LEAST_ON_VPP = dict(zip(VPP_STACKS, (4, 21) if sys.version_info < (3, 13) else (9, 26), strict=True))


@pytest.mark.vpp
@WITH_TESTS
@pytest.mark.parametrize("stack", VPP_STACKS)
@pytest.mark.usefixtures("vpp_installed")
def test_passes_on_vpp_what_stock_asyncio_passes(stack, executed):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda module: runner.judge(module, stack), QUICK_ON_VPP))
    failures = {test: result for verdict in verdicts for test, result in verdict.failures.items()}
    assert not failures, "\n".join(f"{test}: {result.outcome}\n{result.detail}" for test, result in failures.items())
    executed[stack] = sum(verdict.executed for verdict in verdicts)
    assert executed[stack] >= LEAST_ON_VPP[stack]
