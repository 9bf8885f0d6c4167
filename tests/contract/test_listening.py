"""Listening and accepting."""

from __future__ import annotations

import errno
import resource
import time
from typing import Any

import pytest

from tests.contract.stacks import Stack, kernel_only, without
from tests.support.driver import (
    IN,
    TCP,
    UDP,
    Worker,
    endpoint,
)
from vppaio.vcl._vcl import lib

pytestmark = pytest.mark.usefixtures("table")


def test_accept_until_eagain(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    assert worker.accept(listener) == (-errno.EAGAIN, None)
    peers = [table.connect(bound) for _ in range(5)]
    worker.wait_for(listener, IN)
    worker.news()
    accepted = [worker.accept(listener)[0] for _ in peers]
    assert len(set(accepted)) == len(peers)
    assert worker.accept(listener) == (-errno.EAGAIN, None)


def test_listener_tells_of_each_new_arrival(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    for _ in range(3):
        table.connect(bound)
        worker.wait_for(listener, IN)
        worker.accepted(listener)
        assert worker.accept(listener)[0] == -errno.EAGAIN


def test_addresses_of_an_accepted_session(table: Stack, worker: Worker) -> None:
    for host in (table.host, table.host6):
        listener, bound = worker.listen(host)
        peer = table.connect(bound)
        handle, announced = worker.accepted(listener)
        assert announced == peer.getsockname()[:2]
        assert worker.peer(handle) == announced
        assert worker.local(handle) == bound
        assert worker.local(listener) == bound


def test_accepted_session_is_writable_without_being_asked(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    assert worker.write(handle, b"banner") == 6
    assert peer.recv(100) == b"banner"


def test_listener_counts_as_readable_while_connections_wait(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    assert table.ops.session_readable(listener) == 0
    table.connect(bound)
    worker.wait_for(listener, IN)
    assert table.ops.session_readable(listener) > 0
    worker.accepted(listener)
    assert table.ops.session_readable(listener) == 0


def test_port_zero_becomes_a_port(table: Stack, worker: Worker) -> None:
    without(table, lib.VCL_TRAP_PORT_ZERO, "port 0 stays 0")
    handle = worker.create()
    assert table.ops.session_bind(handle, endpoint((table.host, 0))) == 0
    assert worker.local(handle)[1] > 0


def bind_and_listen(table: Stack, worker: Worker, to: tuple[str, int]) -> int:
    handle = worker.create(ip6=":" in to[0])
    return int(table.ops.session_bind(handle, endpoint(to)) or table.ops.session_listen(handle, 1))


def test_taken_address_is_in_use(table: Stack, worker: Worker) -> None:
    _, bound = worker.listen(table.host)
    assert bind_and_listen(table, worker, bound) == -errno.EADDRINUSE


def test_foreign_address_is_not_available(table: Stack, worker: Worker) -> None:
    assert bind_and_listen(table, worker, (table.foreign, 29998)) == -errno.EADDRNOTAVAIL


def test_ipv6_wildcard_leaves_the_port_free_for_ipv4(table: Stack, worker: Worker) -> None:
    _, (_, port) = worker.listen("::")
    assert bind_and_listen(table, worker, ("0.0.0.0", port)) == 0


def test_closed_listener_refuses(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    worker.close_session(listener)
    worker.news()
    with pytest.raises(ConnectionRefusedError):
        table.connect(bound)


def test_closing_a_listener_with_connections_waiting_ends_them(table: Stack, worker: Worker) -> None:
    listener, bound = worker.listen(table.host)
    peers = [table.connect(bound) for _ in range(3)]
    worker.wait_for(listener, IN)
    deadline = time.monotonic() + 5
    while table.name == "vpp" and table.ops.session_readable(listener) < 3 and time.monotonic() < deadline:
        worker.news()  # a handshake that ends in this moment may be lost, see libvppcom.c: close_listener
    worker.close_session(listener)
    worker.news()
    for peer in peers:
        try:
            assert peer.recv(1) == b""
        except ConnectionResetError:
            pass


def test_accept_on_what_does_not_listen_is_refused(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, _ = pair
    assert worker.accept(handle)[0] not in (-errno.EAGAIN, -errno.ECONNABORTED)
    for proto in (TCP, UDP):
        assert worker.accept(worker.create(proto))[0] not in (-errno.EAGAIN, -errno.ECONNABORTED)


def test_accept_survives_want_of_descriptors(table: Stack, worker: Worker) -> None:
    kernel_only(table)
    listener, bound = worker.listen(table.host)
    peers = [table.connect(bound) for _ in range(2)]
    worker.wait_for(listener, IN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert worker.accept(listener)[0] == -errno.EMFILE
        assert worker.accept(listener)[0] == -errno.EMFILE
        assert table.ops.session_create(worker.index, TCP, 1) == -errno.EMFILE
        assert table.ops.worker_register() == -errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert worker.create() & 0xFFFFFF == 2  # after epoll set and listener: the failed calls took no slot
    for peer in peers:
        handle, announced = worker.accepted(listener)
        assert announced == peer.getsockname()
        assert worker.write(handle, b"late") == 4
        assert peer.recv(10) == b"late"
