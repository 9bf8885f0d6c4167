"""Addresses, options, descriptors, and the adoption of kernel sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.stacks import Stack, kernel_only
from tests.support.driver import (
    TCP,
    UDP,
    Worker,
    endpoint,
)

pytestmark = pytest.mark.usefixtures("table")


# -- Questions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "option"),
    [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    ],
)
def test_options_come_back(table: Stack, worker: Worker, level: int, option: int) -> None:
    handle = worker.create()
    for value in (1, 0, 1):
        assert table.ops.session_set_option(handle, level, option, value) == 0
        assert worker.get_option(handle, level, option) == value


def test_unknown_option_is_refused(table: Stack, worker: Worker) -> None:
    handle = worker.create()
    assert table.ops.session_set_option(handle, socket.SOL_SOCKET, 9999, 1) == -errno.ENOPROTOOPT
    assert worker.get_option(handle, socket.SOL_SOCKET, 9999) == -errno.ENOPROTOOPT


def test_options_can_be_asked_for_before_there_is_a_session(table: Stack) -> None:
    if table.name == "host":
        pytest.skip("the kernel answers for a socket")
    nobodys = 0xFFFFFFFF
    assert table.ops.session_set_option(nobodys, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1) == -errno.EBADF
    assert table.ops.session_set_option(nobodys, socket.SOL_SOCKET, 9999, 1) == -errno.ENOPROTOOPT


def test_option_tells_the_kind_of_session(table: Stack, worker: Worker) -> None:
    listener, _ = worker.listen(table.host)
    kinds = [(worker.create(TCP), socket.SOCK_STREAM, 0), (worker.create(UDP), socket.SOCK_DGRAM, 0)]
    for handle, kind, listening in [*kinds, (listener, socket.SOCK_STREAM, 1)]:
        assert worker.get_option(handle, socket.SOL_SOCKET, socket.SO_TYPE) == kind
        assert worker.get_option(handle, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == listening


def test_descriptor_is_told_where_there_is_one(table: Stack, worker: Worker) -> None:
    fd = table.ops.session_fd(worker.create())
    assert (fd >= 0) == (table.name == "host")
    if fd >= 0:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)


def test_descriptor_of_an_accepted_session(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    kernel_only(table)
    handle, _ = pair
    assert not os.get_blocking(table.ops.session_fd(handle))
    assert not os.get_inheritable(table.ops.session_fd(handle))
    # asyncio's setting, without a system call for each connection
    assert worker.get_option(handle, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_copy_of_the_descriptor_does_not_keep_events_coming(
    table: Stack, worker: Worker, pair: tuple[int, Any]
) -> None:
    kernel_only(table)
    handle, peer = pair
    worker.news()
    copy = os.dup(table.ops.session_fd(handle))  # as a forked child has one
    try:
        worker.close_session(handle)
        peer.send(b"x")
        assert worker.news() == {}
    finally:
        os.close(copy)


def test_wrong_family_is_refused(table: Stack, worker: Worker) -> None:
    kernel_only(table)
    assert table.ops.session_bind(worker.create(ip6=True), endpoint(("127.0.0.1", 0))) == -errno.EAFNOSUPPORT
    assert table.ops.session_connect(worker.create(), endpoint(("::1", 9))) == -errno.EAFNOSUPPORT


def test_ipv6_scope_is_kept(table: Stack, worker: Worker) -> None:
    kernel_only(table)
    local = endpoint(("fe80::1", 9))
    local.scope_id = 1
    rv = table.ops.session_bind(worker.create(UDP, ip6=True), local)
    assert rv == -errno.EADDRNOTAVAIL  # without the scope it would be EINVAL


# -- Adopting kernel sockets -------------------------------------------------------------------------------------------


@pytest.fixture
def adopt(table: Stack, worker: Worker) -> Callable[[socket.socket], int]:
    if table.name != "host":
        with socket.socket() as unwanted:
            assert table.ops.session_adopt(worker.index, unwanted.fileno()) == -errno.EOPNOTSUPP
            assert unwanted.fileno() >= 0
        pytest.skip("sessions are not the kernel's")

    def adopt(sock: socket.socket) -> int:
        rv: int = table.ops.session_adopt(worker.index, sock.fileno())
        if rv >= 0:
            sock.detach()
            worker.watch(worker._keep(rv))
        return rv

    return adopt


def test_adopted_connection(table: Stack, worker: Worker, adopt: Callable[[socket.socket], int]) -> None:
    listener, bound = worker.listen(table.host)
    handle = adopt(socket.create_connection(bound))
    other, _ = worker.accepted(listener)
    assert worker.write(handle, b"x") == 1
    assert worker.read_exactly(other, 1) == b"x"
    assert not os.get_blocking(table.ops.session_fd(handle))


def test_adopted_listener(table: Stack, worker: Worker, adopt: Callable[[socket.socket], int]) -> None:
    listener = adopt(socket.create_server((table.host, 0)))
    assert worker.accept(listener)[0] == -errno.EAGAIN
    peer = table.connect(worker.local(listener))
    assert worker.accepted(listener)[1] == peer.getsockname()


def test_adopted_datagram_sockets(table: Stack, worker: Worker, adopt: Callable[[socket.socket], int]) -> None:
    bound = socket.socket(type=socket.SOCK_DGRAM)
    bound.bind((table.host, 0))
    to = bound.getsockname()
    connected = socket.socket(type=socket.SOCK_DGRAM)
    connected.connect(to)
    sender, receiver = adopt(connected), adopt(bound)
    assert worker.sendto(sender, b"x") == 1
    assert worker.received(receiver) == (b"x", worker.local(sender))


def test_forgotten_descriptor_is_left_alone(
    table: Stack, worker: Worker, adopt: Callable[[socket.socket], int]
) -> None:
    with socket.create_server((table.host, 0)) as listener:
        number = os.dup(listener.fileno())
        handle = adopt(socket.socket(fileno=number))
        os.close(number)  # by its other owner
        assert os.dup(listener.fileno()) == number
        assert table.ops.session_forget(handle) == 0
        assert table.ops.session_readable(handle) < 0  # the handle is free
        os.close(number)  # EBADF if it had been closed


def test_what_cannot_be_adopted_stays_the_callers(adopt: Callable[[socket.socket], int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert adopt(ours) == -errno.EAFNOSUPPORT
        ours.send(b"still mine")
        assert theirs.recv(10) == b"still mine"


def test_no_descriptor_cannot_be_adopted(table: Stack, worker: Worker) -> None:
    assert table.ops.session_adopt(worker.index, -1) < 0
