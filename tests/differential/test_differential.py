"""Random sequences of transport operations: what asyncio's loop does, ours does too, on the host stack and on VPP.

The long mode is `python -m tests.differential`; what VPP cannot do is in known.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.differential.arena import Arena, Disagreement
from tests.differential.known import RULES
from tests.differential.machine import Connection
from tests.differential.operations import MAX_STEPS, Sequence, sequence
from tests.differential.regressions import REGRESSIONS
from vppaio.testing.vppinstance import VppInstance

# Others every time. A failure shows what to put into regressions.py, and hypothesis's database repeats it meanwhile.
SETTINGS = settings(
    deadline=None,
    stateful_step_count=MAX_STEPS,
    print_blob=True,
    phases=(Phase.reuse, Phase.generate, Phase.shrink),  # explaining would trace all that is played
    suppress_health_check=list(HealthCheck),
)
SHORTENING = (3,), 0.3  # most candidates agree or not at once, and hypothesis has 300 s for all of them


@pytest.fixture(scope="module")
def host_arena() -> Iterator[Arena]:
    with Arena("host") as arena:
        yield arena


@pytest.fixture(scope="module")
def vpp_arena(vpp_instance: VppInstance) -> Iterator[Arena]:
    if not vpp_instance.healthy():
        vpp_instance.restart()
    with Arena("vpp", frozenset(RULES["vpp"]), vpp_instance) as arena:
        yield arena
    assert not vpp_instance.crashed(), vpp_instance.log_tail()


def agree(arena: Arena, played: Sequence) -> None:
    disagreement = arena.compare(played)
    assert disagreement is None, f"\n{disagreement}"


@pytest.mark.parametrize("name", REGRESSIONS)
def test_no_disagreement_comes_back_on_host(host_arena: Arena, name: str) -> None:
    agree(host_arena, REGRESSIONS[name])


@pytest.mark.vpp
@pytest.mark.parametrize("name", REGRESSIONS)
def test_no_disagreement_comes_back_on_vpp(vpp_arena: Arena, name: str) -> None:
    agree(vpp_arena, REGRESSIONS[name])


def agree_on(arena: Arena, examples: int, changed: Callable[[Sequence], Sequence] = lambda drawn: drawn) -> None:
    """Random sequences; of the first on which they disagree, hypothesis seeks the shortest that still does it."""
    found: list[Disagreement] = []

    def play(played: Sequence) -> None:
        disagreement = arena.compare(changed(played), *(SHORTENING if found else ()))
        if disagreement is not None:
            if not found:
                print(f"as found:\n{disagreement}")
            found.append(disagreement)
            raise AssertionError(f"\n{disagreement}")

    run_state_machine_as_test(lambda: Connection(play), settings=settings(SETTINGS, max_examples=examples))


@pytest.mark.timeout(400)
def test_random_sequences_agree_with_asyncio_on_host(host_arena: Arena) -> None:
    agree_on(host_arena, 300)


@pytest.mark.vpp
@pytest.mark.timeout(400)
def test_random_sequences_agree_with_asyncio_on_vpp(vpp_arena: Arena) -> None:
    agree_on(vpp_arena, 100)


def test_a_seed_makes_the_same_sequence_again() -> None:
    assert sequence(random.Random(7)) == sequence(random.Random(7))
