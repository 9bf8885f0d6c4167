"""A few hundred seeds of trouble on every change; the long mode is `python -m tests.faults`."""

from __future__ import annotations

import errno
import gc
import warnings
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.fakes.peer import Peers
from tests.fakes.vcl import FakeVcl
from tests.faults.places import Place
from tests.faults.runs import REGRESSIONS, places
from tests.faults.simulation import Failed, run
from tests.faults.table import KINDS, Faults
from tests.support.driver import NOW, PARKED, Worker
from vppaio.testing.vppinstance import VppInstance
from vppaio.vcl._vcl import ffi

SEEDS = {"fake": 300, "host": 200, "vpp": 100, "limits": 100}


def play(stack: str, seeds: Iterable[int], vpp: VppInstance | None = None) -> Counter[str]:
    outcome: Counter[str] = Counter()
    with places(stack, vpp) as place_of:
        for seed in seeds:
            outcome += run(place_of(seed), seed)
    return outcome


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stack", ["fake", "host"])
def test_bytes_stay_right_and_everything_ends(stack: str) -> None:
    outcome = play(stack, range(SEEDS[stack]))
    # The trouble was there, and was not all there was.
    assert set(KINDS) | {"lost"} <= set(outcome)
    assert outcome["complete"] > SEEDS[stack]


@pytest.mark.vpp
@pytest.mark.timeout(120)
def test_bytes_stay_right_and_everything_ends_on_vpp(vpp_instance: VppInstance) -> None:
    before = [seed for stack, seed in REGRESSIONS if stack == "vpp"]
    assert play("vpp", [*before, *range(SEEDS["vpp"])], vpp_instance)["complete"] > SEEDS["vpp"]


@pytest.mark.vpp
@pytest.mark.timeout(120)
def test_bytes_stay_right_and_everything_ends_under_limits(vpp_instance: VppInstance) -> None:
    outcome = play("limits", range(SEEDS["limits"]), vpp_instance)
    assert {"descriptors", "memory", "stopped", "slow"} <= set(outcome)
    assert outcome["complete"] > SEEDS["limits"]


@pytest.mark.parametrize("reason", sorted(set(REGRESSIONS.values())))
def test_seeds_that_failed_before(reason: str) -> None:
    for (stack, seed), found in REGRESSIONS.items():
        if found == reason and stack != "vpp":  # those are played above
            play(stack, range(seed, seed + 1))


# ---- the trouble itself ----------------------------------------------------------------------------------------------


def troubled(**rates: float) -> tuple[FakeVcl, Faults, Worker, Peers]:
    """A fake, trouble around it (with _ for spaces), a worker on the troubled table and peers on the plain one."""
    fake = FakeVcl()
    faults = Faults(int(ffi.cast("uintptr_t", fake.ops)), 1, {kind.replace("_", " "): r for kind, r in rates.items()})
    return fake, faults, Worker(ffi.cast("vcl_ops *", faults.address)), Peers(fake)


def test_a_made_up_eagain_is_followed_by_an_event() -> None:
    fake, faults, worker, peers = troubled(read_again=1.0)
    handle = worker.connected(peers.listen().getsockname())
    assert worker.read(handle) == -errno.EAGAIN  # the fake's own, so that from here on events tell everything
    worker.news()
    before = fake.calls["session_read"]
    assert worker.read(handle) == -errno.EAGAIN
    assert fake.calls["session_read"] == before
    assert worker.fd_is_readable()
    events = [event for _ in range(10) for event in worker.ask(NOW)]
    assert events == [(handle, 1)]
    assert not worker.fd_is_readable()
    worker.close()
    peers.close()
    assert faults.open_sessions == 0


def test_a_lost_stack_takes_its_sessions_with_it_and_comes_back() -> None:
    _, faults, worker, peers = troubled()
    address = peers.listen().getsockname()
    handle = worker.connected(address)
    faults.lose(polls=2)
    assert worker.fd_is_readable()
    assert worker.ask(PARKED) == []
    assert worker.ops.worker_is_detached(worker.index) == 0  # nobody has looked yet
    assert worker.ask(NOW) == []
    assert worker.ops.worker_is_detached(worker.index) == 1
    assert worker.read(handle) == -errno.ENOTCONN
    assert worker.ops.session_create(worker.index, 0, 1) == -errno.ENETDOWN
    worker.ask(NOW)
    worker.ask(NOW)
    assert worker.ops.worker_is_detached(worker.index) == 0
    assert worker.read(handle) == -errno.ENOTCONN
    worker.connected(address)
    worker.close()
    peers.close()


def test_wrong_bytes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that could not fail would be worth nothing."""
    monkeypatch.setattr("tests.faults.ends.Run.pieces", lambda self, content: iter([bytes(len(content))]))
    with pytest.raises(Failed, match="wrong bytes"):
        play("fake", range(20))


def test_a_connection_that_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "patience", 0.2)
    monkeypatch.setattr("tests.faults.ends.Client.took", lambda self, data: self.transport.pause_reading())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # transports that never ended
        with pytest.raises(Failed, match="no end"):
            play("fake", range(20))
        gc.collect()
