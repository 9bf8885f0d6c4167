"""Bytes of a connection, and its end."""

from __future__ import annotations

import errno
import hashlib
import random
import signal
import socket
import threading
import time
from typing import Any

import pytest

from tests.contract.stacks import Stack
from tests.support.driver import (
    ERR,
    HUP,
    IN,
    OUT,
    RDHUP,
    Worker,
)

pytestmark = pytest.mark.usefixtures("table")


# -- Streams -----------------------------------------------------------------------------------------------------------


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


# -- The end of a stream -----------------------------------------------------------------------------------------------


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
