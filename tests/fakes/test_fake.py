"""The fake's trouble on request; what it has in common with real stacks is in tests/contract."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.peer import Peer, Peers
from tests.fakes.vcl import VPP_TRAPS, FakeVcl
from tests.support.driver import ERR, HUP, IN, NOW, OUT, RDHUP, TCP, UDP, Worker
from vppaio.vcl._vcl import ffi, lib

HOST = "127.0.0.1"


class Scene:
    """A fake, a worker under test, and peers."""

    def __init__(self, **options: Any) -> None:
        self.fake = FakeVcl(**options)
        self.worker = Worker(self.fake.ops)
        self.peers = Peers(self.fake, timeout=2)

    def pair(self) -> tuple[int, Peer]:
        listener, bound = self.worker.listen(HOST)
        peer = self.peers.connect(bound)
        return self.worker.accepted(listener)[0], peer

    def close(self) -> None:
        self.worker.close()
        self.peers.close()
        self.fake.check()


@pytest.fixture
def scene() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        made.append(Scene(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_call_fails_on_request(scene: Callable[..., Scene]) -> None:
    here = scene()
    listener, bound = here.worker.listen(HOST)
    here.peers.connect(bound)
    here.worker.wait_for(listener, IN)
    here.fake.fail("session_accept", errno.EMFILE, times=2)
    assert here.worker.accept(listener)[0] == -errno.EMFILE
    assert here.worker.accept(listener)[0] == -errno.EMFILE
    assert here.worker.accept(listener)[0] >= 0
    assert here.fake.calls["session_accept"] == 3


def test_exception_inside_a_call_is_kept(scene: Callable[..., Scene]) -> None:
    here = scene()
    handle = here.worker.create()
    here.fake.session(handle).local = ("not an address", 1)
    assert here.fake.ops.session_local(handle, ffi.new("vcl_endpoint *")) == -errno.EIO
    with pytest.raises(OSError, match="illegal IP address"):
        here.fake.check()


def test_events_follow_vcls_edges(scene: Callable[..., Scene]) -> None:
    here = scene(fifo_bytes=4)
    handle, peer = here.pair()
    here.worker.news()
    peer.send(b"ab")
    peer.send(b"c")
    assert here.worker.ask() == [(handle, IN)]
    peer.send(b"d")
    assert here.worker.ask() == []  # one event until drained
    assert here.worker.read(handle, 3) == b"abc"
    assert here.worker.read(handle, 3) == b"d"
    peer.send(b"e")
    assert here.worker.ask() == [(handle, IN)]


def test_out_comes_only_from_completely_full(scene: Callable[..., Scene]) -> None:
    here = scene(fifo_bytes=4)
    handle, peer = here.pair()
    here.worker.news()
    assert here.worker.write(handle, b"abc") == 3
    assert peer.recv(10) == b"abc"
    assert here.worker.ask() == []
    assert here.worker.write(handle, b"abcdef") == 4
    assert peer.recv(1) == b"a"
    assert here.worker.ask() == [(handle, OUT)]


def test_mask_is_empty_after_fin(scene: Callable[..., Scene]) -> None:
    here = scene(fifo_bytes=4, traps=lib.VCL_TRAP_FIN_EXPIRES)
    handle, peer = here.pair()
    here.worker.news()
    here.worker.write_until_full(handle)
    peer.shutdown(1)
    assert here.worker.ask() == [(handle, RDHUP)]
    peer.recv(10)
    assert here.worker.ask() == []
    assert here.fake.ops.epoll_ctl(here.worker.vep, 3, handle, IN | OUT, handle) == 0
    assert here.worker.ask(lib.VCL_WAIT_PARKED) == [(handle, IN | OUT)]


def test_parked_events_do_not_show_on_the_descriptor(scene: Callable[..., Scene]) -> None:
    here = scene()
    pairs = [here.pair() for _ in range(3)]
    here.worker.news()
    for _, peer in pairs:
        peer.send(b"x")
    assert len(here.worker.ask(NOW, max_events=1)) == 1
    assert not here.worker.fd_is_readable()
    assert len(here.worker.ask(lib.VCL_WAIT_PARKED)) == 2


def test_reset_on_request(scene: Callable[..., Scene]) -> None:
    here = scene()
    handle, _ = here.pair()
    here.fake.reset(handle)
    assert here.worker.wait_for(handle, HUP) & ERR
    assert here.worker.read(handle) == -errno.ECONNRESET


@pytest.mark.parametrize("code", [0, errno.ETIMEDOUT])
def test_connects_can_be_held(scene: Callable[..., Scene], code: int) -> None:
    here = scene()
    here.fake.hold_connects = True
    handle = here.worker.connect(listening(here))
    assert here.worker.news() == {}
    here.fake.release_connects(code)
    assert here.worker.connect_result(handle) == -code


def listening(here: Scene) -> tuple[str, int]:
    return here.worker.listen(HOST)[1]


def test_chance_refuses_resets_and_shortens_the_same_way_each_time(scene: Callable[..., Scene]) -> None:
    def story(seed: int) -> list[int]:
        here = scene(seed=seed, refuse=0.3, reset=0.1, short=0.5)
        to = listening(here)
        results = []
        for _ in range(20):
            handle = here.worker.connect(to)
            results.append(here.worker.connect_result(handle))
            results += [here.worker.write(handle, b"0123456789") for _ in range(5)]
        return results

    first = story(1)
    assert {0, -errno.ECONNREFUSED, -errno.ECONNRESET, 10} <= set(first)
    assert set(first) & {1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert story(1) == first
    assert story(2) != first


def test_delayed_messages_keep_the_descriptor_readable_and_their_order(scene: Callable[..., Scene]) -> None:
    here = scene(seed=3, delay=0.5)
    for _ in range(20):
        handle, peer = here.pair()
        peer.send(b"x")
        peer.close()
        assert here.worker.wait_for(handle, RDHUP) & IN
        assert here.worker.read_to_end(handle) == b"x"


def test_lost_stack(scene: Callable[..., Scene]) -> None:
    here = scene()
    ops, worker = here.fake.ops, here.worker
    listener, _ = worker.listen(HOST)
    handle, _ = here.pair()
    worker.news()
    here.fake.lose()
    assert worker.fd_is_readable()
    assert ops.worker_is_detached(worker.index) == 0
    assert worker.ask(NOW) == [(handle, RDHUP)]
    assert ops.worker_is_detached(worker.index) == 1
    assert worker.fd_is_readable()  # for good
    assert worker.read(handle) == -errno.ECONNRESET
    assert worker.accept(listener)[0] == -errno.ENETDOWN
    assert ops.session_create(worker.index, TCP, 1) == -errno.ENETDOWN

    here.fake.restore()
    assert ops.worker_is_detached(worker.index) == 1
    worker.ask(NOW)
    assert ops.worker_is_detached(worker.index) == 0
    assert not worker.fd_is_readable()
    assert worker.accept(listener)[0] == -errno.ENETDOWN
    worker.listen(HOST)


def test_fins_expire_without_a_word(scene: Callable[..., Scene]) -> None:
    here = scene(traps=VPP_TRAPS)
    handle, peer = here.pair()
    peer.send(b"unread")
    peer.shutdown(1)
    here.worker.wait_for(handle, RDHUP)
    here.fake.expire_fins()
    assert here.worker.news() == {}
    assert here.worker.read(handle) == -errno.ENOTCONN


def test_empty_datagram_silences_the_session_until_a_read(scene: Callable[..., Scene]) -> None:
    here = scene(traps=VPP_TRAPS)
    handle, bound = here.worker.datagrams(HOST)
    here.worker.news()
    sender = ("10.0.0.1", 9)
    here.fake.inject_datagram(bound, b"", sender)
    assert here.worker.wait_for(handle, IN) & IN
    assert here.worker.recvfrom(handle) == -errno.EAGAIN
    here.fake.inject_datagram(bound, b"x", sender)
    assert here.worker.news() == {}
    assert here.worker.recvfrom(handle) == (b"x", sender)


@pytest.mark.parametrize(("traps", "told"), [(0, OUT), (VPP_TRAPS, 0)])
def test_blocked_datagrams(scene: Callable[..., Scene], traps: int, told: int) -> None:
    here = scene(traps=traps)
    handle, bound = here.worker.datagrams(HOST)
    here.worker.news()
    here.fake.block_datagrams(True)
    assert here.worker.sendto(handle, b"x", bound) == -errno.EAGAIN
    here.fake.block_datagrams(False)
    assert here.worker.news().get(handle, 0) == told


def test_long_datagrams_are_split_and_refused_ones_are_deadly(scene: Callable[..., Scene]) -> None:
    here = scene(traps=VPP_TRAPS)
    receiver, bound = here.worker.datagrams(HOST)
    sender = here.worker.connected(bound, UDP)
    assert here.worker.sendto(sender, bytes(4000)) == 4000
    assert [len(here.worker.received(receiver)[0]) for _ in range(3)] == [1472, 1472, 1056]
    here.worker.close_session(receiver)
    assert here.worker.sendto(sender, b"x") == 1
    assert here.worker.wait_for(sender, ERR) & (ERR | HUP | RDHUP) == ERR | HUP | RDHUP
    assert here.worker.sendto(sender, b"x") == -errno.ENOTCONN


def test_workers_share_a_listener_in_turn(scene: Callable[..., Scene]) -> None:
    here = scene()
    second = Worker(here.fake.ops)
    first_listener, bound = here.worker.listen(HOST)
    second_listener, _ = second.listen(HOST, bound[1])
    for _ in range(4):
        here.peers.connect(bound)
    for worker, listener in ((here.worker, first_listener), (second, second_listener)):
        worker.accepted(listener)
        worker.accepted(listener)
        assert worker.accept(listener)[0] == -errno.EAGAIN
    second.close()
