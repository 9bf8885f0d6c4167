"""Handles of workers and sessions, and calls that make no sense: an errno, never harm."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.stacks import Stack, kernel_only, without
from tests.support.driver import (
    ADD,
    ALL_EVENTS,
    IN,
    NOW,
    OUT,
    PARKED,
    TCP,
    UDP,
    Worker,
    endpoint,
)
from vppaio.vcl._vcl import ffi, lib

pytestmark = pytest.mark.usefixtures("table")


# -- Handles -----------------------------------------------------------------------------------------------------------


def test_vpps_handle_carries_its_worker_in_the_top_byte(table: Stack, worker: Worker) -> None:
    if table.name != "vpp":
        pytest.skip("a matter of VCL's, which libvppcom.c relies on")
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
    handle = worker.create()
    worker.close_session(handle)
    assert calls_with(table.ops, worker.vep, handle)[call]() == -errno.EBADF


@pytest.mark.parametrize("call", CALLS)
def test_handle_that_never_was_is_refused(table: Stack, worker: Worker, call: str) -> None:
    for handle in (worker.index << 24 | 0xABCDEF, 0x7F000000, 0xFFFFFFFF):
        assert calls_with(table.ops, worker.vep, handle)[call]() < 0


def test_handle_is_free_for_reuse_at_once(table: Stack, worker: Worker) -> None:
    first = worker.create()
    worker.close_session(first)
    assert worker.create() == first


def test_failing_calls_use_up_no_handles(table: Stack, worker: Worker) -> None:
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
    workers = [Worker(table.ops) for _ in range(100 if table.name == "fake" else 1000)]  # the fake has VCL's limit
    try:
        assert len({one.index for one in workers}) == len(workers)
        made = [one.create() for one in workers]
        assert min(made) >= 0
        assert len(set(made)) == len(workers)
    finally:
        for one in workers:
            one.close()


def test_attached_worker_is_not_detached(table: Stack, worker: Worker) -> None:
    assert table.ops.worker_is_detached(worker.index) == 0


# -- Robustness --------------------------------------------------------------------------------------------------------


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
                if table.ops.traps & lib.VCL_TRAP_PORT_ZERO:  # VPP is not asked when a session listens already
                    worker.close_session(worker.listen(table.host)[0])
                else:
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
