"""What tls.records relies on, of each engine: two of them back to back, without a loop."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from OpenSSL import SSL

from vppaio.tls.engine import tls_context

ENGINES = ("ssl", "pyopenssl")
DATA = random.Random(5).randbytes(1 << 20)
RECORD = 1 << 14


class End(NamedTuple):
    """An engine and its queues."""

    engine: Any
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder: Path = tmp_path_factory.mktemp("engines")
    made = trustme.CA().issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(folder / "chain.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    return str(folder / "chain.pem"), str(folder / "key.pem")


def make(kind: str, server_side: bool, files: tuple[str, str], version: str) -> End:
    context: Any
    if kind == "ssl":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        if server_side:
            context.load_cert_chain(*files)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    else:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version({"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version])
        if server_side:
            context.use_certificate_chain_file(files[0])
            context.use_privatekey_file(files[1])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    factory = tls_context(context)
    assert factory is not None
    hostname = None if server_side else "localhost"
    return End(factory.wrap_bio(incoming, outgoing, server_side, hostname), incoming, outgoing)


@pytest.fixture(params=["server", "client"])
def pair(request: pytest.FixtureRequest, engine: str, version: str, files: tuple[str, str]) -> tuple[End, End]:
    """The engine that is tested, in either role, and one of ssl's; hands are shaken."""
    server_side = request.param == "server"
    tested, peer = make(engine, server_side, files, version), make("ssl", not server_side, files, version)
    done: set[int] = set()
    while len(done) < 2 or tested.outgoing.pending or peer.outgoing.pending:
        for end, other in ((tested, peer), (peer, tested)):
            if id(end) not in done:
                try:
                    end.engine.do_handshake()
                    done.add(id(end))
                except ssl.SSLWantReadError:
                    pass
            other.incoming.write(end.outgoing.read())
    for end in (tested, peer):  # TLS 1.3's tickets
        with pytest.raises(ssl.SSLWantReadError):
            end.engine.read(1)
    return tested, peer


pytestmark = [pytest.mark.parametrize("engine", ENGINES), pytest.mark.parametrize("version", ["1.2", "1.3"])]


def move(source: End, target: End) -> None:
    target.incoming.write(source.outgoing.read())


def write_all(end: End, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = end.engine.write(view)
        assert 0 < count <= len(view)
        view = view[count:]


def read_all(end: End) -> bytes:
    """Until nothing more is pending, which has to be all."""
    pieces = []
    while end.incoming.pending or end.engine.pending():
        try:
            pieces.append(end.engine.read(RECORD))
        except ssl.SSLWantReadError:
            assert not end.incoming.pending
            assert not end.engine.pending()
            break
    with pytest.raises(ssl.SSLWantReadError):
        end.engine.read(RECORD)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 1 << 20])
def test_writes_and_reads_are_whole(pair: tuple[End, End], size: int) -> None:
    tested, peer = pair
    write_all(tested, DATA[:size])
    move(tested, peer)
    assert read_all(peer) == DATA[:size]
    write_all(peer, DATA[:size])
    move(peer, tested)
    assert read_all(tested) == DATA[:size]


def test_nothing_pending_means_that_a_read_wants_more(pair: tuple[End, End]) -> None:
    """Whatever the pieces are in which records come."""
    tested, peer = pair
    chance = random.Random(9)
    for _ in range(50):
        size = chance.choice((1, 10, 1000, 16384, 40_000))
        write_all(peer, DATA[:size])
        raw, got = peer.outgoing.read(), b""
        while raw:
            cut = chance.choice((1, 4, 5, 6, 21, 16_000, len(raw)))
            tested.incoming.write(raw[:cut])
            raw = raw[cut:]
            got += read_all(tested)
        assert got == DATA[:size]


def test_what_was_not_read_is_in_the_queue(pair: tuple[End, End]) -> None:
    """Back-pressure counts it there. A write does not move it, and a read takes a record of it."""
    tested, peer = pair
    write_all(peer, DATA)
    move(peer, tested)
    whole = tested.incoming.pending
    write_all(tested, b"x" * 100_000)
    assert tested.incoming.pending == whole
    tested.engine.read(100)
    assert tested.incoming.pending >= whole - RECORD - 100
    assert tested.engine.pending() >= RECORD - 100
    buffer = bytearray(1000)
    assert tested.engine.read(1000, memoryview(buffer)) == 1000
    assert buffer == DATA[100:1100]


def test_goodbye_is_an_empty_read(pair: tuple[End, End]) -> None:
    tested, peer = pair
    write_all(peer, b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        peer.engine.unwrap()
    move(peer, tested)
    assert tested.engine.read(100) == b"last words"
    assert tested.engine.read(100) == b""
    assert tested.engine.read(100, memoryview(bytearray(100))) == 0
    tested.engine.unwrap()
    move(tested, peer)
    peer.engine.unwrap()


def test_unwrap_finds_a_goodbye_that_is_there(pair: tuple[End, End]) -> None:
    tested, peer = pair
    with pytest.raises(ssl.SSLWantReadError):
        peer.engine.unwrap()
    move(peer, tested)
    tested.engine.unwrap()
    assert tested.outgoing.pending


def test_unwrap_says_goodbye_once(pair: tuple[End, End]) -> None:
    tested, peer = pair
    for _ in range(2):
        with pytest.raises(ssl.SSLWantReadError):
            tested.engine.unwrap()
    move(tested, peer)
    assert peer.engine.read(1) == b""
    assert not peer.incoming.pending


def test_unwrap_does_not_pass_over_data(pair: tuple[End, End]) -> None:
    tested, peer = pair
    write_all(peer, b"unread")
    move(peer, tested)
    with pytest.raises(ssl.SSLError) as caught:
        tested.engine.unwrap()
    assert type(caught.value) is ssl.SSLError


@pytest.mark.parametrize("noise", [b"\x17\x03\x03\x00\x20" + bytes(32), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_noise_is_an_error(pair: tuple[End, End], noise: bytes) -> None:
    pair[0].incoming.write(noise)
    with pytest.raises(ssl.SSLError) as caught:
        pair[0].engine.read(10)
    assert type(caught.value) is ssl.SSLError


def test_peer_information(pair: tuple[End, End], version: str) -> None:
    tested, peer = pair
    assert tested.engine.version() == f"TLSv{version}"
    assert tested.engine.cipher()[0] == peer.engine.cipher()[0]
    assert tested.engine.compression() is None
    assert tested.engine.selected_alpn_protocol() is None
    certificate = tested.engine.getpeercert(True)
    assert (certificate is None) is tested.engine.server_side
