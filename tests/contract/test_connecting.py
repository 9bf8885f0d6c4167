"""Connecting."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.contract.stacks import Stack
from tests.support.driver import (
    ERR,
    HUP,
    OUT,
    TCP,
    UDP,
    Worker,
    endpoint,
)

pytestmark = pytest.mark.usefixtures("table")


@pytest.mark.parametrize("joins", ["before", "after"])
def test_connect_succeeds_by_event(table: Stack, worker: Worker, joins: str) -> None:
    for host in (None, table.peer_host6):
        listener = table.listen(host)
        to = listener.getsockname()[:2]
        handle = worker.create(ip6=":" in to[0])
        if joins == "before":
            worker.watch(handle)
            assert handle not in worker.news()
        assert table.ops.session_connect(handle, endpoint(to)) == -errno.EINPROGRESS
        if joins == "after":
            worker.watch(handle)
        assert worker.wait_for(handle, OUT) & (HUP | ERR) == 0
        assert table.ops.session_connect_result(handle, OUT) == 0
        peer, announced = listener.accept()
        assert worker.peer(handle) == to
        assert worker.local(handle) == announced[:2]
        peer.send(b"hello")
        assert worker.read_exactly(handle, 5) == b"hello"
        peer.close()


@pytest.mark.parametrize("joins", ["before", "after"])
def test_refused_connect_says_so_by_event(table: Stack, worker: Worker, joins: str) -> None:
    listener = table.listen()
    to = listener.getsockname()[:2]
    listener.close()
    handle = worker.create()
    if joins == "before":
        worker.watch(handle)
    assert table.ops.session_connect(handle, endpoint(to)) == -errno.EINPROGRESS
    if joins == "after":
        worker.watch(handle)
    events = worker.wait_for(handle, HUP)
    assert events & (OUT | HUP) == OUT | HUP
    assert table.ops.session_connect_result(handle, events) == -errno.ECONNREFUSED
    assert table.ops.session_connect_result(handle, events) == -errno.ECONNREFUSED
    assert worker.write(handle, b"x") < 0


@pytest.mark.parametrize("proto", [TCP, UDP])
@pytest.mark.parametrize("joins", ["before", "after"])
def test_connect_that_cannot_begin_fails_by_event_too(table: Stack, worker: Worker, joins: str, proto: int) -> None:
    host = table.unroutable if proto == TCP else table.unroutable_datagram
    if host is None:
        pytest.skip("every datagram address is accepted here")
    to = (host, 80)
    handle = worker.create(proto)
    if joins == "before":
        worker.watch(handle)
    assert table.ops.session_connect(handle, endpoint(to)) == -errno.EINPROGRESS
    if joins == "after":
        worker.watch(handle)
    events = worker.wait_for(handle, HUP)
    assert events & (OUT | HUP) == OUT | HUP
    result = table.ops.session_connect_result(handle, events)
    assert result in (-errno.ENETUNREACH, -errno.EHOSTUNREACH, -errno.EACCES, -errno.EFAULT)
    assert table.ops.session_connect_result(handle, events) == result
    assert worker.news() == {}


def test_connection_in_progress_is_not_connected(table: Stack, worker: Worker) -> None:
    handle = worker.connect(table.listen().getsockname()[:2])
    assert table.ops.session_connect_result(handle, 0) == -errno.EINPROGRESS
    assert worker.read(handle) == -errno.ENOTCONN
    assert worker.write(handle, b"x") == -errno.ENOTCONN
    assert worker.connect_result(handle) == 0
    assert worker.write(handle, b"x") == 1


def test_unconnected_session_is_not_connected(worker: Worker) -> None:
    handle = worker.create()
    assert worker.read(handle) == -errno.ENOTCONN
    assert worker.write(handle, b"x") == -errno.ENOTCONN
    assert worker.writev(handle, [b"x"]) == -errno.ENOTCONN
    assert isinstance(worker.peer(handle), int)


def test_bind_before_connect_fixes_the_source(table: Stack, worker: Worker) -> None:
    listener = table.listen()
    handle = worker.create()
    source = (table.host, 29997)
    table.ops.session_set_option(handle, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    assert table.ops.session_bind(handle, endpoint(source)) == 0
    assert table.ops.session_connect(handle, endpoint(listener.getsockname()[:2])) == -errno.EINPROGRESS
    worker.watch(handle)
    assert worker.connect_result(handle) == 0
    peer, announced = listener.accept()
    assert announced == source
    peer.close()


def test_connecting_session_can_be_closed(table: Stack, worker: Worker) -> None:
    handle = worker.connect(table.listen().getsockname()[:2])
    assert worker.close_session(handle) == 0
    assert worker.news() == {}
