"""Datagrams."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.contract.stacks import Stack, kernel_only, without
from tests.support.driver import (
    ERR,
    IN,
    UDP,
    Worker,
    endpoint,
)
from vppaio.vcl._vcl import lib

pytestmark = pytest.mark.usefixtures("table")


def test_datagrams_carry_addresses(table: Stack, worker: Worker) -> None:
    for host, peer_host in ((table.host, None), (table.host6, table.peer_host6)):
        handle, bound = worker.datagrams(host)
        peer = table.datagrams(peer_host)
        assert worker.recvfrom(handle) == -errno.EAGAIN
        peer.sendto(b"ping", bound)
        assert worker.received(handle) == (b"ping", peer.getsockname()[:2])
        assert worker.sendto(handle, b"pong", peer.getsockname()[:2]) == 4
        data, sender = peer.recvfrom(100)
        assert (data, sender[:2]) == (b"pong", bound)


def test_datagrams_keep_their_borders(worker: Worker, datagrams: tuple[int, tuple[str, int], Any]) -> None:
    handle, bound, peer = datagrams
    for data in (b"one", b"three", b"five"):
        peer.sendto(data, bound)
    assert [worker.received(handle)[0] for _ in range(3)] == [b"one", b"three", b"five"]
    assert worker.recvfrom(handle) == -errno.EAGAIN


def test_new_datagram_is_told_after_draining(worker: Worker, datagrams: tuple[int, tuple[str, int], Any]) -> None:
    handle, bound, peer = datagrams
    for _ in range(3):
        peer.sendto(b"x", bound)
        worker.wait_for(handle, IN)
        assert worker.received(handle)[0] == b"x"
        assert worker.recvfrom(handle) == -errno.EAGAIN
        assert not worker.news().get(handle, 0) & IN


def test_what_does_not_fit_of_a_datagram_is_lost(worker: Worker, datagrams: tuple[int, tuple[str, int], Any]) -> None:
    handle, bound, peer = datagrams
    peer.sendto(b"0123456789", bound)
    peer.sendto(b"next", bound)
    assert worker.received(handle, 4)[0] == b"0123"
    assert worker.received(handle)[0] == b"next"


def test_empty_datagram_is_a_datagram(
    table: Stack, worker: Worker, datagrams: tuple[int, tuple[str, int], Any]
) -> None:
    without(table, lib.VCL_TRAP_DATAGRAM_EVENTS, "an empty datagram reads as EAGAIN")
    handle, bound, peer = datagrams
    peer.sendto(b"", bound)
    assert worker.received(handle) == (b"", peer.getsockname()[:2])
    assert worker.sendto(handle, b"", peer.getsockname()[:2]) == 0
    assert peer.recvfrom(10)[0] == b""


def test_datagram_too_long_is_refused(
    table: Stack, worker: Worker, datagrams: tuple[int, tuple[str, int], Any]
) -> None:
    handle, _, peer = datagrams
    assert worker.sendto(handle, bytes(65536), peer.getsockname()[:2]) == -errno.EMSGSIZE
    assert worker.sendto(handle, b"x", peer.getsockname()[:2]) == 1


def test_connected_datagram_session(table: Stack, worker: Worker) -> None:
    peer = table.datagrams()
    to = peer.getsockname()[:2]
    handle = worker.connected(to, UDP)
    assert worker.peer(handle) == to
    assert worker.sendto(handle, b"ping") == 4
    data, sender = peer.recvfrom(100)
    assert data == b"ping"
    peer.sendto(b"pong", sender)
    assert worker.received(handle) == (b"pong", to)
    assert worker.sendto(handle, b"x", to) < 0


def test_bound_datagram_session_can_connect(table: Stack, worker: Worker) -> None:
    handle, bound = worker.datagrams(table.host)
    worker.news()
    peer = table.datagrams()
    assert table.ops.session_connect(handle, endpoint(peer.getsockname()[:2])) == -errno.EINPROGRESS
    assert worker.connect_result(handle) == 0
    assert worker.sendto(handle, b"x") == 1
    assert peer.recvfrom(10)[1][:2] == bound


def test_datagram_session_that_is_not_connected_has_no_peer(
    worker: Worker, datagrams: tuple[int, tuple[str, int], Any]
) -> None:
    handle, bound, peer = datagrams
    assert worker.peer(handle) == -errno.ENOTCONN
    peer.sendto(b"x", bound)
    worker.received(handle)
    assert worker.peer(handle) == -errno.ENOTCONN


def test_unbound_datagram_session_hears_the_answer(table: Stack, worker: Worker) -> None:
    kernel_only(table)
    peer = table.datagrams()
    handle = worker.create(UDP)
    worker.watch(handle)
    assert worker.sendto(handle, b"ping", peer.getsockname()) == 4
    peer.sendto(b"pong", peer.recvfrom(10)[1])
    worker.wait_for(handle, IN)
    assert worker.recvfrom(handle) == (b"pong", peer.getsockname())


def test_refused_datagram_is_told(table: Stack, worker: Worker) -> None:
    without(table, lib.VCL_TRAP_DATAGRAM_DIES, "the session is dead then")
    peer = table.datagrams()
    to = peer.getsockname()[:2]
    peer.close()
    handle = worker.connected(to, UDP)
    assert worker.sendto(handle, b"x") == 1
    worker.wait_for(handle, ERR)
    assert worker.recvfrom(handle) == -errno.ECONNREFUSED
    assert worker.recvfrom(handle) == -errno.EAGAIN


def test_taken_datagram_address_is_in_use(table: Stack, worker: Worker) -> None:
    _, bound = worker.datagrams(table.host)
    assert table.ops.session_bind(worker.create(UDP), endpoint(bound)) == -errno.EADDRINUSE
