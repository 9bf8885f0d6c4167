"""Random sequences of transport operations: what asyncio's loop does, ours does too, on the host stack and on VPP.

The long mode is `python -m tests.differential`; what VPP cannot do is in known.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential.arena import Arena
from tests.differential.known import RULES
from tests.differential.operations import Sequence, sequence
from tests.differential.regressions import REGRESSIONS
from tests.vppinstance import VppInstance

# One generator: in the long mode it draws from random.Random(seed), here from hypothesis, which can shorten.
SEQUENCES = st.randoms(use_true_random=False).map(sequence)
SETTINGS = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


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


@pytest.mark.timeout(180)
def test_random_sequences_agree_with_asyncio_on_host(host_arena: Arena) -> None:
    @settings(SETTINGS, max_examples=300)
    @given(SEQUENCES)
    def run(played: Sequence) -> None:
        agree(host_arena, played)

    run()


@pytest.mark.vpp
@pytest.mark.timeout(180)
def test_random_sequences_agree_with_asyncio_on_vpp(vpp_arena: Arena) -> None:
    @settings(SETTINGS, max_examples=100)
    @given(SEQUENCES)
    def run(played: Sequence) -> None:
        agree(vpp_arena, played)

    run()


def test_a_seed_makes_the_same_sequence_again() -> None:
    assert sequence(random.Random(7)) == sequence(random.Random(7))
