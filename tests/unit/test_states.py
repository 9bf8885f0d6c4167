"""Which call each state of a session allows: vcl_states.c's table against the kernel."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.support.driver import TCP, UDP
from vppaio.vcl._vcl import lib

STATES: Final = ("EPOLL_SET", "NEW", "BOUND", "LISTENING", "CONNECTING", "CONNECTED", "FAILED")
OPERATIONS: Final = (
    "BIND",
    "LISTEN",
    "ACCEPT",
    "CONNECT",
    "RESULT",
    "READ",
    "WRITE",
    "RECEIVE",
    "SEND",
    "SEND_TO",
    "SHUTDOWN",
    "PEER",
    "ASK",
    "WATCH",
    "CLOSE",
)


def refusal(proto: int, state: str, operation: str) -> int:
    return int(lib.vcl_refusal(proto == UDP, getattr(lib, f"VCL_{state}"), getattr(lib, f"VCL_OP_{operation}")))


# (state, operation): what vcl_states.c says beside the kernel's answer, for the reasons at its head.
CHOSEN: Final = {
    ("NEW", "WRITE"), ("BOUND", "WRITE"), ("LISTENING", "WRITE"), ("FAILED", "WRITE"),  # EPIPE
    ("CONNECTING", "READ"), ("CONNECTING", "WRITE"),  # EAGAIN
    ("CONNECTING", "SHUTDOWN"), ("LISTENING", "SHUTDOWN"),  # goes
    ("FAILED", "BIND"), ("FAILED", "CONNECT"),  # goes
    ("FAILED", "READ"),  # 0
}  # fmt: skip


def kernel_scene(stack: contextlib.ExitStack, state: str) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    if state in ("BOUND", "LISTENING"):
        sock.bind(("127.0.0.1", 0))
    if state == "LISTENING":
        sock.listen()
    if state in ("CONNECTED", "CONNECTING"):
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        if state == "CONNECTING":  # a full queue, whose SYNs are dropped
            for _ in range(2):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        sock.connect_ex(listener.getsockname())
        if state == "CONNECTED":
            select.select([], [sock], [], 5)
            assert sock.connect_ex(listener.getsockname()) == 0  # which asks what became of it
    if state == "FAILED":
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        sock.connect_ex(address)
        select.select([], [sock], [], 5)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    return sock


KERNEL_CALLS: Final[dict[str, Callable[[socket.socket], Any]]] = {
    "BIND": lambda sock: sock.bind(("127.0.0.1", 0)),
    "LISTEN": lambda sock: sock.listen(),
    "ACCEPT": lambda sock: sock.accept()[0].close(),
    "CONNECT": lambda sock: sock.connect(("127.0.0.1", 9)),
    "READ": lambda sock: sock.recv(1),
    "WRITE": lambda sock: sock.send(b"x"),
    "SHUTDOWN": lambda sock: sock.shutdown(socket.SHUT_WR),
    "PEER": lambda sock: sock.getpeername(),
}


@pytest.mark.parametrize("operation", KERNEL_CALLS)
@pytest.mark.parametrize("state", STATES[1:])
def test_refusals_are_the_kernels(state: str, operation: str) -> None:
    expected = refusal(TCP, state, operation)
    with contextlib.ExitStack() as stack:
        sock = kernel_scene(stack, state)
        code = 0
        try:
            KERNEL_CALLS[operation](sock)
        except OSError as error:
            code = error.errno or 0
        goes_on = (0, errno.EAGAIN, errno.EINPROGRESS, errno.ECONNREFUSED)
        same = code == -expected if expected else code in goes_on
        assert same != ((state, operation) in CHOSEN), (state, operation, errno.errorcode.get(code), expected)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_the_table_has_no_gaps() -> None:
    for proto in (TCP, UDP):
        for state in (*STATES, "FREE", "LOST"):
            for operation in OPERATIONS:
                assert -200 < refusal(proto, state, operation) <= 0
            assert refusal(proto, state, "CLOSE") == (-errno.EBADF if state == "FREE" else 0) or proto == UDP
    for state, operation in ((-1, 0), (lib.VCL_N_STATES, 0), (0, -1), (0, lib.VCL_N_OPERATIONS)):
        assert lib.vcl_refusal(0, state, operation) == -errno.EBADF
    assert len(OPERATIONS) == lib.VCL_N_OPERATIONS
    assert len(STATES) + 2 == lib.VCL_N_STATES
