"""Which call each state of a session allows: vcl_states.c's table against every stack.

tests/unit/test_states.py has it against the kernel.

`scene` brings a session into each state there is, `call` makes each operation on it; the table must give the answer.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.stacks import Stack
from tests.support.driver import ADD, ALL_EVENTS, HUP, MOD, OUT, TCP, UDP, Worker, endpoint
from tests.unit.test_states import OPERATIONS, STATES, refusal
from vppaio.vcl._vcl import ffi, lib


def scene(table: Stack, worker: Worker, proto: int, state: str) -> int:
    """A session in that state."""
    ops = table.ops
    match state, proto:
        case "EPOLL_SET", _:
            return worker.vep
        case "LISTENING", _:
            return worker.listen(table.host)[0]
        case "BOUND", lib.VCL_PROTO_UDP:
            return worker.datagrams(table.host)[0]
    handle = worker.create(proto)
    if state == "BOUND":
        assert ops.session_bind(handle, endpoint((table.host, 29900))) == 0
    elif state == "FAILED":
        host = table.unroutable if proto == TCP else table.unroutable_datagram
        assert host is not None
        assert ops.session_connect(handle, endpoint((host, 9))) == -errno.EINPROGRESS
        worker.watch(handle)
        assert worker.connect_result(handle) < 0
    elif state in ("CONNECTING", "CONNECTED"):
        peer = table.listen() if proto == TCP else table.datagrams()
        assert ops.session_connect(handle, endpoint(peer.getsockname()[:2])) == -errno.EINPROGRESS
        if state == "CONNECTED":
            worker.watch(handle)
            assert worker.connect_result(handle) == 0
    return handle


def call(table: Stack, worker: Worker, handle: int, operation: str) -> int:
    ops, memory, some = table.ops, ffi.new("char[16]"), ffi.new("vcl_endpoint *")
    value, target = ffi.new("int *"), endpoint((table.host, 29901))
    pieces = ffi.new("struct iovec[1]", [(memory, 16)])

    def asked() -> int:
        answers = (
            ops.session_readable(handle),
            ops.session_local(handle, some),
            ops.session_get_option(handle, socket.SOL_SOCKET, socket.SO_REUSEADDR, value),
            ops.session_set_option(handle, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        )
        assert max(answers) >= 0 or len(set(answers)) == 1
        return int(min(answers))

    def written() -> int:
        both = ops.session_writev(handle, pieces, 1), ops.session_write(handle, memory, 1)
        assert max(both) >= 0 or both[0] == both[1]
        return int(both[1])

    calls: dict[str, Callable[[], int]] = {
        "BIND": lambda: ops.session_bind(handle, target),
        "LISTEN": lambda: ops.session_listen(handle, 5),
        "ACCEPT": lambda: ops.session_accept(handle, some),
        "CONNECT": lambda: ops.session_connect(handle, target),
        "RESULT": lambda: ops.session_connect_result(handle, 0),
        "READ": lambda: ops.session_read(handle, memory, 16),
        "WRITE": written,
        "RECEIVE": lambda: ops.session_recvfrom(handle, memory, 16, some),
        "SEND": lambda: ops.session_sendto(handle, memory, 1, ffi.NULL),
        "SEND_TO": lambda: ops.session_sendto(handle, memory, 1, target),
        "SHUTDOWN": lambda: ops.session_shutdown(handle, socket.SHUT_WR),
        "PEER": lambda: ops.session_peer(handle, some),
        "ASK": asked,
        "WATCH": lambda: ops.epoll_ctl(worker.vep, ADD, handle, ALL_EVENTS, 1),
        "CLOSE": lambda: worker.close_session(handle),
    }
    return calls[operation]()


@pytest.mark.parametrize("proto", [TCP, UDP])
@pytest.mark.parametrize("state", STATES)
def test_every_call_in_every_state(table: Stack, worker: Worker, state: str, proto: int) -> None:
    if state == "LISTENING" and proto == UDP:
        pytest.skip("datagram sessions do not listen")
    if state == "EPOLL_SET" and proto == UDP:
        pytest.skip("an epoll set is neither")
    if state == "FAILED" and proto == UDP and table.unroutable_datagram is None:
        pytest.skip("every datagram address is accepted here")
    for operation in OPERATIONS:
        expected = refusal(proto, state, operation)
        if state == "EPOLL_SET" and operation == "CLOSE":
            continue  # the worker does
        handle = scene(table, worker, proto, state)
        answer = call(table, worker, handle, operation)
        if expected:
            assert answer == expected, (state, operation, errno.errorcode[-expected], errno.errorcode.get(-answer))
        else:  # what the stack says; not that the state does not allow it
            allowed = (errno.EAGAIN, errno.EINPROGRESS, errno.EEXIST)
            if state == "FAILED" and operation == "RESULT":
                allowed = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EFAULT)
            if operation == "LISTEN" and state == "NEW" and table.ops.traps & lib.VCL_TRAP_PORT_ZERO:
                allowed = (*allowed, errno.EDESTADDRREQ)  # nobody chooses a port
            if operation == "SEND_TO":
                allowed = (*allowed, errno.EADDRNOTAVAIL)  # of a session without an address
            if operation == "ASK" and state == "FAILED":
                allowed = (*allowed, errno.EINVAL)
            assert answer >= 0 or -answer in allowed, (state, operation, errno.errorcode.get(-answer))
        if operation != "CLOSE" and state != "EPOLL_SET":
            assert worker.close_session(handle) == 0
        worker.news()
    table.check()
    listener, bound = worker.listen(table.host)  # the worker serves as before
    table.connect(bound)
    worker.accepted(listener)


def test_what_was_refused_changed_nothing(table: Stack, worker: Worker) -> None:
    """A connection on which everything was tried still carries bytes, and a listener accepts."""
    listener, bound = worker.listen(table.host)
    peer = table.connect(bound)
    handle, _ = worker.accepted(listener)
    for session, state in ((listener, "LISTENING"), (handle, "CONNECTED"), (worker.vep, "EPOLL_SET")):
        for operation in OPERATIONS:
            if refusal(TCP, state, operation):
                assert call(table, worker, session, operation) < 0
    peer.send(b"still here")
    assert worker.read_exactly(handle, 10) == b"still here"
    table.connect(bound)
    worker.accepted(listener)


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_connection_that_its_peer_has_ended_is_a_connection(
    table: Stack, worker: Worker, pair: tuple[int, Any], end: str
) -> None:
    """VCL listened on it, and took its old error for the answer."""
    handle, peer = pair
    if end == "fin":
        peer.close()
    else:
        table.reset(peer)
    worker.wait_for(handle, HUP | select.EPOLLRDHUP)
    ops = table.ops
    target = endpoint((table.host, 29902))
    for _ in range(3):
        assert ops.session_bind(handle, target) == -errno.EINVAL
        assert ops.session_listen(handle, 5) == -errno.EINVAL
        assert ops.session_connect(handle, target) == -errno.EISCONN
        assert ops.session_accept(handle, endpoint((table.host, 0))) == -errno.EINVAL
    assert worker.close_session(handle) == 0
    worker.news()
    listener, bound = worker.listen(table.host)
    table.connect(bound)
    worker.accepted(listener)


def test_joining_the_epoll_set_before_there_is_anything_to_say(table: Stack, worker: Worker) -> None:
    handle = worker.create()
    worker.watch(handle)
    assert table.ops.epoll_ctl(worker.vep, ADD, handle, ALL_EVENTS, 0) == -errno.EEXIST
    assert table.ops.epoll_ctl(worker.vep, MOD, handle, ALL_EVENTS, handle) == 0
    assert worker.news() == {}
    assert table.ops.session_connect(handle, endpoint(table.listen().getsockname()[:2])) == -errno.EINPROGRESS
    assert worker.wait_for(handle, OUT) & HUP == 0


def test_listener_whose_address_was_taken_can_try_again(table: Stack, worker: Worker) -> None:
    """VCL keeps the error, and answers the next listen with it."""
    first, bound = worker.listen(table.host)
    handle = worker.create()
    rv = table.ops.session_bind(handle, endpoint(bound)) or table.ops.session_listen(handle, 5)
    assert rv == -errno.EADDRINUSE
    worker.close_session(first)
    worker.news()
    if table.ops.traps & lib.VCL_TRAP_PORT_ZERO:  # streams: listen says so, and the session is as it was
        assert table.ops.session_listen(handle, 5) == 0
    else:
        assert table.ops.session_bind(handle, endpoint(bound)) == 0


def test_many_that_are_closed_while_they_connect(table: Stack, worker: Worker) -> None:
    """Their results come when their handles are others'."""
    listening = table.listen().getsockname()[:2]
    for round_ in range(20):
        handles = [worker.connect(listening if i % 2 else (table.unroutable, 9)) for i in range(5)]
        for handle in handles:
            assert worker.close_session(handle) == 0
        listener, bound = worker.listen(table.host)
        if round_ % 5 == 0:
            table.connect(bound)
            worker.accepted(listener)
        worker.close_session(listener)
        worker.news()
