"""The epoll set: who is in it, what is told, and when the worker descriptor says so."""

from __future__ import annotations

import errno
import select
import time
from typing import Any

import pytest

from tests.contract.stacks import Stack, kernel_only
from tests.support.driver import (
    ADD,
    ALL_EVENTS,
    DEL,
    IN,
    MOD,
    NOW,
    PARKED,
    TCP,
    UDP,
    Worker,
    endpoint,
)
from vppaio.vcl._vcl import ffi

pytestmark = pytest.mark.usefixtures("table")


def test_epoll_ctl_knows_who_is_in_the_set(table: Stack, worker: Worker) -> None:
    handle = worker.create()

    def control(op: int) -> int:
        return int(table.ops.epoll_ctl(worker.vep, op, handle, ALL_EVENTS, 0))

    assert control(MOD) == -errno.ENOENT
    assert control(DEL) == -errno.ENOENT
    assert control(ADD) == 0
    assert control(ADD) == -errno.EEXIST
    assert control(MOD) == 0
    assert control(DEL) == 0
    assert control(DEL) == -errno.ENOENT


def test_session_that_could_not_join_can_try_again(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    kernel_only(table)
    handle, _ = pair
    assert table.ops.epoll_ctl(worker.vep, DEL, handle, 0, 0) == 0
    impossible = ALL_EVENTS | select.EPOLLEXCLUSIVE | select.EPOLLONESHOT
    assert table.ops.epoll_ctl(worker.vep, ADD, handle, impossible, 0) == -errno.EINVAL
    worker.watch(handle)


def test_fresh_session_says_nothing(worker: Worker) -> None:
    for proto in (TCP, UDP):
        worker.watch(worker.create(proto))
    assert worker.news() == {}


def test_bound_session_says_nothing_before_it_listens(table: Stack, worker: Worker) -> None:
    handle = worker.create()
    worker.watch(handle)
    assert table.ops.session_bind(handle, endpoint((table.host, 29999))) == 0
    assert worker.news() == {}


def test_data_comes_back_verbatim(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    data = 0xFEDC_BA98_7654_3210
    assert table.ops.epoll_ctl(worker.vep, MOD, handle, ALL_EVENTS, data) == 0
    peer.send(b"x")
    assert worker.wait_for(data, IN) & IN


def test_deleted_session_says_nothing(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    assert table.ops.epoll_ctl(worker.vep, DEL, handle, 0, 0) == 0
    peer.send(b"x")
    assert worker.news() == {}


def test_session_that_joins_with_data_waiting_says_so(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    assert table.ops.epoll_ctl(worker.vep, DEL, handle, 0, 0) == 0
    worker.news()
    peer.send(b"x")
    time.sleep(0.1)
    with worker.holds_nothing_back():
        worker.watch(handle)
        assert worker.wait_for(handle, IN) & IN


def test_worker_fd_is_readable_while_events_wait_and_not_after(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    assert not worker.fd_is_readable()
    peer.send(b"x")
    poll = select.poll()
    poll.register(worker.fd, select.POLLIN)
    assert poll.poll(5000)
    assert worker.fd_is_readable()  # level-triggered: still
    assert [data for data, _ in worker.ask(NOW)] == [handle]
    assert not worker.fd_is_readable()


def test_events_beyond_max_events_are_not_lost(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    peers = [table.connect(bound) for _ in range(3)]
    handles = [worker.accepted(listener)[0] for _ in peers]
    worker.news()
    for peer in peers:
        peer.send(b"x")
    time.sleep(0.1)
    came = worker.ask(NOW, max_events=1)
    assert len(came) == 1
    with worker.holds_nothing_back():
        rest = worker.news()
    assert {came[0][0], *rest} == set(handles)


def test_what_is_parked_comes_with_a_parked_look(worker: Worker, pair: tuple[int, Any]) -> None:
    _, peer = pair
    worker.news()
    assert worker.ask(PARKED) == []
    peer.send(b"x")
    time.sleep(0.1)
    with worker.holds_nothing_back():
        assert worker.ask(PARKED) or worker.fd_is_readable()
        worker.news()


def test_senseless_epoll_calls_are_refused(table: Stack, worker: Worker) -> None:
    handle = worker.create()
    events = ffi.new("struct epoll_event[1]")
    assert table.ops.epoll_wait(worker.vep, events, 0, NOW) < 0
    assert table.ops.epoll_wait(worker.vep, events, 1, 10) < 0
    assert table.ops.epoll_ctl(worker.vep, 99, handle, 0, 0) < 0
    assert table.ops.epoll_ctl(worker.vep, ADD, worker.vep, 0, 0) < 0
