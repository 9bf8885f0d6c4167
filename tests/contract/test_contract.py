"""What the layers above rely on, promise by promise of vcl_ops.h, on every table.

A test that needs what one stack cannot do says so by its trap or its `session_fd`; everything else holds everywhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.stacks import Stack
from tests.driver import (
    ADD,
    ALL_EVENTS,
    DEL,
    ERR,
    HUP,
    IN,
    MOD,
    NOW,
    OUT,
    PARKED,
    RDHUP,
    TCP,
    UDP,
    Worker,
    endpoint,
)
from vppaio.vcl._vcl import ffi, lib

pytestmark = pytest.mark.usefixtures("table")


@pytest.fixture
def pair(table: Stack, worker: Worker) -> tuple[int, Any]:
    """An accepted session and its peer."""
    listener, bound = worker.listen(table.host)
    peer = table.connect(bound)
    handle, _ = worker.accepted(listener)
    return handle, peer


@pytest.fixture
def datagrams(table: Stack, worker: Worker) -> tuple[int, tuple[str, int], Any]:
    """A bound datagram session, its address, and a peer."""
    handle, bound = worker.datagrams(table.host)
    return handle, bound, table.datagrams()


def without(table: Stack, trap: int, reason: str) -> None:
    if table.ops.traps & trap:
        pytest.skip(reason)


def kernel_only(table: Stack) -> None:
    if table.name != "host":
        pytest.skip("a matter of kernel sockets")


# -- Handles ----------------------------------------------------------------------------------------------------------


def test_handle_carries_its_worker_in_the_top_byte(worker: Worker) -> None:
    assert worker.vep >> 24 == worker.index
    assert worker.create() >> 24 == worker.index


def calls_with(ops: Any, vep: int, handle: int) -> dict[str, Callable[[], int]]:
    """Every call that takes a session handle."""
    memory, some = ffi.new("char[16]"), ffi.new("vcl_endpoint *")
    pieces, value = ffi.new("struct iovec[1]", [(memory, 16)]), ffi.new("int *")
    loopback = endpoint(("127.0.0.1", 9))
    return {
        "epoll_ctl": lambda: ops.epoll_ctl(vep, ADD, handle, ALL_EVENTS, 0),
        "bind": lambda: ops.session_bind(handle, loopback),
        "listen": lambda: ops.session_listen(handle, 1),
        "accept": lambda: ops.session_accept(handle, some),
        "connect": lambda: ops.session_connect(handle, loopback),
        "connect_result": lambda: ops.session_connect_result(handle, OUT),
        "read": lambda: ops.session_read(handle, memory, 16),
        "write": lambda: ops.session_write(handle, memory, 16),
        "writev": lambda: ops.session_writev(handle, pieces, 1) if memory else 0,  # what `pieces` point to must live
        "recvfrom": lambda: ops.session_recvfrom(handle, memory, 16, some),
        "sendto": lambda: ops.session_sendto(handle, memory, 16, loopback),
        "shutdown": lambda: ops.session_shutdown(handle, socket.SHUT_WR),
        "close": lambda: ops.session_close(handle),
        "readable": lambda: ops.session_readable(handle),
        "local": lambda: ops.session_local(handle, some),
        "peer": lambda: ops.session_peer(handle, some),
        "get_option": lambda: ops.session_get_option(handle, socket.SOL_SOCKET, socket.SO_REUSEADDR, value),
        "set_option": lambda: ops.session_set_option(handle, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    }


CALLS = sorted(calls_with(None, 0, 0))


@pytest.mark.parametrize("call", CALLS)
def test_stale_handle_is_refused(table: Stack, worker: Worker, call: str) -> None:
    without(table, lib.VCL_TRAP_CONNECT_LEAKS, "the slot of an unused session is not freed")
    handle = worker.create()
    worker.close_session(handle)
    assert calls_with(table.ops, worker.vep, handle)[call]() == -errno.EBADF


@pytest.mark.parametrize("call", CALLS)
def test_handle_that_never_was_is_refused(table: Stack, worker: Worker, call: str) -> None:
    for handle in (worker.index << 24 | 0xABCDEF, 0x7F000000, 0xFFFFFFFF):
        assert calls_with(table.ops, worker.vep, handle)[call]() < 0


def test_handle_is_free_for_reuse_at_once(table: Stack, worker: Worker) -> None:
    without(table, lib.VCL_TRAP_CONNECT_LEAKS, "the slot of an unused session is not freed")
    first = worker.create()
    worker.close_session(first)
    assert worker.create() == first


def test_failing_calls_use_up_no_handles(table: Stack, worker: Worker) -> None:
    without(table, lib.VCL_TRAP_CONNECT_LEAKS, "the slot of an unused session is not freed")
    listener, _ = worker.listen(table.host)
    first = worker.create()
    worker.close_session(first)
    for _ in range(3):
        assert worker.accept(listener)[0] == -errno.EAGAIN
        assert table.ops.session_create(worker.index, 99, 1) < 0
    assert worker.create() == first


def test_reused_handle_does_not_inherit_the_epoll_membership(table: Stack, worker: Worker) -> None:
    listener, _ = worker.listen(table.host)
    worker.close_session(listener)
    worker.watch(worker.create())  # -EEXIST if it did


@pytest.mark.parametrize("index", [-1, 77, 127, 128, 1 << 30])
def test_unregistered_worker_is_refused(table: Stack, worker: Worker, index: int) -> None:
    for rv in (
        table.ops.worker_fd(index),
        table.ops.worker_unregister(index),
        table.ops.epoll_create(index),
        table.ops.session_create(index, TCP, 1),
    ):
        assert rv < 0


def test_unknown_protocol_is_refused(table: Stack, worker: Worker) -> None:
    assert table.ops.session_create(worker.index, 99, 1) < 0


def test_two_workers_are_isolated(table: Stack, worker: Worker) -> None:
    other = Worker(table.ops)
    try:
        listener, bound = other.listen(table.host)
        table.connect(bound)
        other.wait_for(listener, IN)
        assert worker.news() == {}
        other.accepted(listener)
    finally:
        other.close()
    if table.name != "vpp":  # its workers go back to a pool
        assert table.ops.worker_fd(other.index) < 0
    assert table.ops.worker_fd(worker.index) == worker.fd


def test_unregistering_frees_the_descriptors(table: Stack, worker: Worker) -> None:
    if table.name == "vpp":
        pytest.skip("VCL keeps a descriptor for each listener there ever was, see test_lifecycle")
    rounds = []
    for _ in range(3):
        other = Worker(table.ops)
        other.listen(table.host)
        other.close()
        rounds.append(len(os.listdir("/proc/self/fd")))
    assert len(set(rounds)) == 1


def test_many_workers_have_handles_that_stay_positive(table: Stack, worker: Worker) -> None:
    without(table, lib.VCL_TRAP_PORT_ZERO, "VPP's workers are a matter of its configuration")
    workers = [Worker(table.ops) for _ in range(127)]
    try:
        assert table.ops.worker_register() == -errno.EMFILE
        assert all(one.create() >= 0 for one in workers)
    finally:
        for one in workers:
            one.close()


def test_attached_worker_is_not_detached(table: Stack, worker: Worker) -> None:
    assert table.ops.worker_is_detached(worker.index) == 0


# -- The epoll set ----------------------------------------------------------------------------------------------------


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


# -- Listening and accepting ------------------------------------------------------------------------------------------


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


# -- Connecting -------------------------------------------------------------------------------------------------------


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
    without(table, lib.VCL_TRAP_CONNECT_LEAKS, "the slot leaks")
    handle = worker.connect(table.listen().getsockname()[:2])
    assert worker.close_session(handle) == 0
    assert worker.news() == {}


# -- Streams ----------------------------------------------------------------------------------------------------------


def test_read_to_eagain(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    assert worker.read(handle) == -errno.EAGAIN
    peer.send(b"abc")
    assert worker.read_exactly(handle, 3) == b"abc"
    assert worker.read(handle) == -errno.EAGAIN


def test_short_read_has_emptied_the_fifo(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.send(b"abcdef")
    worker.wait_for(handle, IN)
    assert table.ops.session_readable(handle) == 6
    assert worker.read(handle, 4) == b"abcd"
    assert worker.read(handle, 4) == b"ef"
    assert table.ops.session_readable(handle) == 0
    worker.news()
    peer.send(b"more")  # armed again, although no read has said EAGAIN
    assert worker.wait_for(handle, IN) & IN


def test_one_event_per_arrival(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.send(b"abc")
    worker.wait_for(handle, IN)
    assert worker.news() == {}
    assert worker.read(handle, 1) == b"a"
    assert worker.news() == {}
    assert worker.read(handle) == b"bc"
    assert worker.read(handle) == -errno.EAGAIN
    assert worker.news() == {}
    peer.send(b"def")
    assert worker.wait_for(handle, IN) & IN


def test_write_until_eagain_then_out_when_the_peer_drains(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    sent = worker.write_until_full(handle)
    # The peer's side may go on taking bytes for a while; what counts is the last EAGAIN.
    while worker.news().get(handle, 0) & OUT:
        sent += worker.write_until_full(handle)
    received = b""
    while len(received) < len(sent):
        received += peer.recv(65536)
    assert received == sent
    assert worker.wait_for(handle, OUT) & OUT
    assert worker.write(handle, b"x") == 1


def test_writev_takes_up_to_64_pieces(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    pieces = [bytes([65 + i % 26]) * i for i in range(64)]
    expected = b"".join(pieces)
    assert worker.writev(handle, pieces) == len(expected)
    received = b""
    while len(received) < len(expected):
        received += peer.recv(65536)
    assert received == expected


def test_writev_stops_where_the_fifo_is_full(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, _ = pair
    taken = 0
    while taken >= 0:  # the kernel may find some more room a moment later
        worker.write_until_full(handle)
        taken = worker.writev(handle, [b"a", b"b"])
    assert taken == -errno.EAGAIN


def test_nothing_written_is_nothing(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, _ = pair
    assert worker.write(handle, b"") == 0


@pytest.mark.parametrize("family", ["host", "host6"])
def test_both_ways_at_once_intact(table: Stack, worker: Worker, family: str) -> None:
    listener, bound = worker.listen(getattr(table, family))
    peer = table.connect(bound)
    handle, _ = worker.accepted(listener)
    down, up = (random.Random(seed).randbytes(1 << 20) for seed in (1, 2))
    got: dict[str, bytes] = {}

    def play_peer() -> None:
        with_upload = threading.Thread(target=peer.sendall, args=(up,))
        with_upload.start()
        received = bytearray()
        while piece := peer.recv(65536):
            received += piece
        got["down"] = bytes(received)
        with_upload.join()

    thread = threading.Thread(target=play_peer)
    thread.start()
    received = bytearray()
    unsent = memoryview(down)
    while unsent or len(received) < len(up):
        progress = False
        while unsent and (rv := worker.write(handle, bytes(unsent[:40000]))) >= 0:
            unsent = unsent[rv:]
            progress = True
        while isinstance(piece := worker.read(handle, 30000), bytes) and piece:
            received += piece
            progress = True
        if not progress:
            worker.wait_for(handle, IN | OUT)
    assert worker.ops.session_shutdown(handle, socket.SHUT_WR) == 0
    thread.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got["down"]).digest() == hashlib.sha256(down).digest()


# -- The end of a stream ----------------------------------------------------------------------------------------------


def test_end_of_stream_after_the_last_byte(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.send(b"last")
    peer.close()
    assert worker.wait_for(handle, RDHUP) & RDHUP
    assert worker.read(handle) == b"last"
    assert worker.read(handle) == b""
    assert worker.read(handle) == b""


def test_data_and_fin_are_both_told(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    assert worker.news()[handle] & (IN | RDHUP) == IN | RDHUP  # in one entry or in two


def test_peer_may_go_on_reading_after_its_fin(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.shutdown(socket.SHUT_WR)
    worker.wait_for(handle, RDHUP)
    assert worker.read(handle) == b""
    assert worker.write(handle, b"answer") == 6
    assert peer.recv(100) == b"answer"


def test_we_may_go_on_reading_after_our_fin(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    assert worker.write(handle, b"question") == 8
    assert table.ops.session_shutdown(handle, socket.SHUT_WR) == 0
    assert peer.recv(100) == b"question"
    assert peer.recv(100) == b""
    peer.send(b"answer")
    assert worker.read_exactly(handle, 6) == b"answer"
    assert worker.read(handle) == -errno.EAGAIN
    peer.close()
    assert worker.read_to_end(handle) == b""


def test_write_after_our_fin_is_a_broken_pipe(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, _ = pair
    assert table.ops.session_shutdown(handle, socket.SHUT_WR) == 0
    signals: list[int] = []
    former = signal.signal(signal.SIGPIPE, lambda number, _: signals.append(number))
    try:
        assert worker.write(handle, b"x") == -errno.EPIPE
        assert worker.writev(handle, [b"x"]) == -errno.EPIPE
    finally:
        signal.signal(signal.SIGPIPE, former)
    assert signals == []


def test_after_shutting_down_reading_the_stream_ends(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, _ = pair
    assert table.ops.session_shutdown(handle, socket.SHUT_RD) == 0
    assert worker.read(handle) == b""
    assert worker.write(handle, b"x") == 1


def test_reset_is_an_error_and_a_hangup(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    table.reset(peer)
    assert worker.wait_for(handle, HUP) & (ERR | HUP) == ERR | HUP
    assert worker.read(handle) == -errno.ECONNRESET
    assert worker.write(handle, b"x") in (-errno.EPIPE, -errno.ECONNRESET)


def test_write_to_a_peer_that_is_gone_fails_in_the_end(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.close()
    deadline = time.monotonic() + 5
    while (rv := worker.write(handle, b"x")) > 0 and time.monotonic() < deadline:
        worker.news()
    assert rv in (-errno.EPIPE, -errno.ECONNRESET, -errno.ENOTCONN)


def test_close_sends_what_is_queued(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    sent = worker.write_until_full(handle)
    worker.close_session(handle)
    worker.news()  # VCL closes as it is polled
    received = bytearray()
    while piece := peer.recv(65536):
        received += piece
    assert bytes(received) == sent


def test_close_with_unread_bytes_resets_the_peer(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    peer.send(b"unread")
    worker.wait_for(handle, IN)
    worker.close_session(handle)
    worker.news()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_closed_session_says_nothing(worker: Worker, pair: tuple[int, Any]) -> None:
    handle, peer = pair
    worker.news()
    worker.close_session(handle)
    peer.close()
    assert worker.news() == {}


# -- Datagrams --------------------------------------------------------------------------------------------------------


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


# -- Questions --------------------------------------------------------------------------------------------------------


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


# -- Adopting kernel sockets ------------------------------------------------------------------------------------------


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


# -- Robustness -------------------------------------------------------------------------------------------------------


def test_calls_during_listen_are_refused(table: Stack, worker: Worker) -> None:
    """A second thread asks while the first listens, again and again; each answer is either right or EBUSY."""
    listener, _ = worker.listen(table.host)
    answers: set[int] = set()
    done = threading.Event()
    interval = sys.getswitchinterval()

    def ask() -> None:
        while not done.is_set():
            answers.add(table.ops.session_readable(listener))

    thread = threading.Thread(target=ask)
    sys.setswitchinterval(1e-6)
    try:
        with table.slow_listen():
            thread.start()
            deadline = time.monotonic() + 10
            while -errno.EBUSY not in answers and time.monotonic() < deadline:
                assert table.ops.session_listen(listener, 5) in (0, -errno.EBUSY)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert answers <= {0, -errno.EBUSY}
    assert -errno.EBUSY in answers
    assert table.ops.session_readable(listener) == 0


def test_null_pointers_are_refused(table: Stack, worker: Worker, pair: tuple[int, Any]) -> None:
    kernel_only(table)
    handle, peer = pair
    peer.send(b"x")
    worker.wait_for(handle, IN)
    peer.send(b"y")
    time.sleep(0.1)
    ops, null = table.ops, ffi.NULL
    for rv in (
        ops.session_read(handle, null, 10),
        ops.session_write(handle, null, 10),
        ops.session_writev(handle, null, 10),
        ops.session_writev(handle, null, 1 << 30),
        ops.session_writev(handle, null, -1),
        ops.session_bind(worker.create(), null),
        ops.session_connect(worker.create(), null),
        ops.session_get_option(handle, socket.SOL_SOCKET, socket.SO_TYPE, null),
        ops.epoll_wait(worker.vep, null, 10, NOW),
    ):
        assert rv < 0
    assert ops.session_local(handle, null) == 0
    assert worker.read_exactly(handle, 2) == b"xy"


@pytest.mark.parametrize("seed", range(5))
def test_random_calls_do_no_harm(table: Stack, worker: Worker, seed: int) -> None:
    """Any call in any state answers; a worker that has been through that still works."""
    kernel_only(table)
    chance = random.Random(seed)
    victims = Worker(table.ops)
    handles = [victims.create(chance.choice([TCP, UDP]), ip6=chance.random() < 0.3) for _ in range(8)]
    events = ffi.new("struct epoll_event[4]")
    for _ in range(5000):
        handle = chance.choice([*handles, victims.vep, chance.getrandbits(32)])
        name = chance.choice(CALLS)
        if handle == victims.vep and name == "close":
            continue
        rv = calls_with(table.ops, victims.vep, handle)[name]()
        assert rv >= -4095
        if rv > 0 and name == "accept":
            handles.append(rv)
        if chance.random() < 0.05:
            handles.append(table.ops.session_create(victims.index, chance.choice([TCP, UDP]), 1))
        if chance.random() < 0.1:
            assert table.ops.epoll_wait(victims.vep, events, 4, chance.choice([NOW, PARKED])) >= 0
    assert table.ops.worker_unregister(victims.index) == 0  # with sessions open: they are closed
    listener, bound = worker.listen(table.host)
    table.connect(bound)
    worker.accepted(listener)


@pytest.fixture(autouse=True)
def _no_exceptions_inside(table: Stack) -> Iterator[None]:
    yield
    table.check()
