"""Random sequences over TLS, by both engines: what asyncio's loop does with ssl, ours does too, on both stacks.

The long mode is `python -m tests.differential --tls ssl` (or pyopenssl).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.differential.arena import Arena
from tests.differential.known import RULES
from tests.differential.operations import BIG, Sequence, Step
from tests.differential.test_differential import agree, agree_on
from tests.differential.tls import ENGINES, over_tls
from vppaio.testing.vppinstance import VppInstance

REGRESSIONS: Final = {
    "nobody is told to resume writing after the end": Sequence(
        "client",
        ("plain", False),
        (
            Step((("write", "memoryview", BIG),)),
            Step((("write", "bytes", BIG), ("peer_close",))),
            Step((("set_write_buffer_limits", 1, None),)),
        ),
        tls="1.2",
    ),
    "who was told to resume is not told again": Sequence(
        "server",
        ("buffered", False),
        (
            Step((("write", "memoryview", BIG), ("write", "memoryview", BIG))),
            Step((("abort",),)),
            Step((("set_write_buffer_limits", 1 << 30, None),)),
            Step((("set_protocol", "plain", True),)),
            Step((("set_write_buffer_limits", 65536, 8192),)),
        ),
        tls="1.2",
    ),
    "writes behind a goodbye and a full buffer": Sequence(
        "client",
        ("buffered", False),
        (
            Step((("writelines", "generator", (BIG, 10, 1), 1),)),
            Step((("peer_shutdown",),)),
            Step((("writelines", "list", (1000, 1, 1000), 1),)),
        ),
        tls="1.2",
    ),
    "key updates and a goodbye": Sequence(
        "client",
        ("plain", True),
        (Step((("peer_update", True), ("peer_update", False))), Step((("peer_close",),))),
        tls="1.3",
    ),
    "goodbyes that cross": Sequence("server", ("tiny", True), (Step((("close",), ("peer_close",))),), tls="1.3"),
    "much twice": Sequence(
        "client", ("buffered", True), (Step((("peer_send", BIG),)), Step((("peer_send", BIG),))), tls="1.3"
    ),
    "a goodbye and a reset behind it": Sequence("server", ("buffered", False), (Step((("peer_close",),)),), tls="1.3"),
}


@pytest.fixture(scope="module", params=ENGINES)
def tls_arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    with Arena("host", tls=request.param) as arena:
        yield arena


@pytest.fixture(scope="module", params=ENGINES)
def tls_vpp_arena(request: pytest.FixtureRequest, vpp_instance: VppInstance) -> Iterator[Arena]:
    if not vpp_instance.healthy():
        vpp_instance.restart()
    with Arena("vpp", frozenset(RULES["vpp"]), vpp_instance, request.param) as arena:
        yield arena
    assert not vpp_instance.crashed(), vpp_instance.log_tail()


@pytest.mark.parametrize("name", REGRESSIONS)
def test_no_disagreement_over_tls_comes_back_on_host(tls_arena: Arena, name: str) -> None:
    agree(tls_arena, REGRESSIONS[name])


@pytest.mark.vpp
@pytest.mark.parametrize("name", REGRESSIONS)
def test_no_disagreement_over_tls_comes_back_on_vpp(tls_vpp_arena: Arena, name: str) -> None:
    agree(tls_vpp_arena, REGRESSIONS[name])


@pytest.mark.timeout(400)
def test_random_sequences_over_tls_agree_with_asyncio_on_host(tls_arena: Arena) -> None:
    agree_on(tls_arena, 60, over_tls)


@pytest.mark.vpp
@pytest.mark.timeout(400)
def test_random_sequences_over_tls_agree_with_asyncio_on_vpp(tls_vpp_arena: Arena) -> None:
    agree_on(tls_vpp_arena, 20, over_tls)


def test_a_sequence_over_tls_is_the_same_again() -> None:
    plain = Sequence("server", ("plain", True), (Step((("peer_send", 10), ("peer_shutdown",))),) * 20)
    assert over_tls(plain) == over_tls(plain)
    assert over_tls(plain).tls
