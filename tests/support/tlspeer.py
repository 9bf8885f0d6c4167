"""TlsPeer: the other side of a TLS connection, which can do each odd thing that a record layer allows.

OpenSSL shakes hands and decrypts, over memory BIOs. What is sent after the handshake is encrypted here, from the
connection's secrets: empty records, key updates, alerts, a record byte by byte, several records in one segment.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

ALERT, HANDSHAKE, DATA = 21, 22, 23  # content types (RFC 8446, 5.1)
_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_MAX_RECORD: Final = 1 << 14
_CHUNK: Final = 1 << 16


def peer_context(version: str, chain: str, key: str) -> Any:
    """For either role, with the one cipher that is spoken here."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_VERSIONS[version])
    context.set_max_proto_version(_VERSIONS[version])
    context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    context.use_certificate_chain_file(chain)
    context.use_privatekey_file(key)
    context.set_keylog_callback(lambda connection, line: connection.get_app_data().append(line))
    return context


class TlsPeer:
    """TLS on a blocking socket.

    Args:
        sock: connected, with a timeout.
        context: of `peer_context`.
        server_side: whether this is the server.
    """

    def __init__(self, sock: socket.socket, context: Any, server_side: bool) -> None:
        self.sock: Final = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server_side: Final = server_side
        self.tls: Final = SSL.Connection(context, None)
        self._secrets: list[bytes] = []
        self.tls.set_app_data(self._secrets)
        self.tls.set_accept_state() if server_side else self.tls.set_connect_state()
        self.heard = bytearray()
        self.said_goodbye = False  # the other side
        self.end = ""  # "fin" or "reset", or what OpenSSL complains of
        self.records: Any = None
        self.speaks_openssl = False

    # ---- handshake --------------------------------------------------------------------------------------------------

    def handshake(self, piece: int = 0, behind: Callable[[], bytes] = bytes) -> None:
        """Shake hands; or find the end.

        Args:
            piece: bytes to a segment.
            behind: makes records for the last flight's segment.
        """
        while True:
            flight = self.step()
            if self.records is not None:
                break
            self.send(flight, piece)
            raw = self._received()
            if not raw:
                return
            self.tls.bio_write(raw)
        self.send(flight + behind(), piece)

    def step(self) -> bytes:
        """One step of the handshake, which has `records` when it is done; returns what to send."""
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return self._taken()
        flight = self._taken()
        if self.tls.get_protocol_version_name() == "TLSv1.3":
            tickets = _count(DATA, flight) if self.server_side else 0
            self.records = _Records13(self._secret(), tickets)
        else:
            self.records = _Records12(self.tls, self.server_side)
        self._decrypt()  # what came with the last message
        return flight

    def _secret(self) -> bytes:
        label = b"SERVER_TRAFFIC_SECRET_0" if self.server_side else b"CLIENT_TRAFFIC_SECRET_0"
        return next(bytes.fromhex(line.split()[2].decode()) for line in self._secrets if line.startswith(label))

    def _taken(self) -> bytes:
        try:
            return bytes(self.tls.bio_read(1 << 20))
        except SSL.WantReadError:
            return b""

    # ---- what is sent -----------------------------------------------------------------------------------------------

    def send(self, raw: bytes, piece: int = 0) -> None:
        """Send ciphertext, `piece` bytes at a time."""
        if not piece:
            self.sock.sendall(raw)
            return
        for start in range(0, len(raw), piece):
            self.sock.sendall(raw[start : start + piece])
            time.sleep(0.0001)  # so that most arrive as they are sent

    def data(self, data: bytes, record: int = _MAX_RECORD) -> bytes:
        """Records of `record` bytes of plaintext; an empty one for b""."""
        starts = range(0, len(data), record) if data else [0]
        return b"".join(self.records.encrypt(DATA, data[start : start + record]) for start in starts)

    def goodbye(self) -> bytes:
        return self.alert(0, level=1)

    def alert(self, code: int, level: int = 2) -> bytes:
        return bytes(self.records.encrypt(ALERT, bytes([level, code])))

    def key_update(self, request: bool) -> bytes:
        """TLS 1.3 only."""
        message = self.records.encrypt(HANDSHAKE, bytes([24, 0, 0, 1, request]))
        self.records.update()
        return bytes(message)

    # ---- what is received -------------------------------------------------------------------------------------------

    def read(self, size: int) -> None:
        """Until `size` bytes of plaintext came in all, or the end."""
        while len(self.heard) < size and not self.end and not self.said_goodbye:
            self._receive()

    def read_to_end(self) -> None:
        while not self.end:
            self._receive()

    def _receive(self) -> None:
        if raw := self._received():
            self.tls.bio_write(raw)
            self._decrypt()

    def _received(self) -> bytes:
        """Ciphertext; b"" at the end."""
        raw = b""
        try:
            raw = self.sock.recv(_CHUNK)
            self.end = "" if raw else "fin"
        except TimeoutError:
            self.end = "nothing more comes"
        except OSError:
            self.end = "reset"
        return raw

    def _decrypt(self) -> None:
        try:
            while not self.said_goodbye:
                self.heard += self.tls.recv(_CHUNK)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.said_goodbye = True
        except SSL.Error as exc:
            self.end = f"error {exc.args}"
        if self.speaks_openssl:
            self.sock.sendall(self._taken())

    # ---- renegotiation, TLS 1.2 -------------------------------------------------------------------------------------

    def renegotiate(self) -> None:
        """Before anything was sent: OpenSSL sends from now on, as nobody else has the keys. Ends when it is done, or
        refused."""
        self.speaks_openssl = True
        self.tls.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            self.tls.do_handshake()
        self.sock.sendall(self._taken())
        while self.tls.renegotiate_pending() and not self.end:
            self._receive()

    def send_by_openssl(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_RECORD):
            self.tls.send(data[start : start + _MAX_RECORD])
        self.sock.sendall(self._taken())

    def shutdown_by_openssl(self) -> None:
        self.tls.shutdown()
        self.sock.sendall(self._taken())


def _count(kind: int, raw: bytes) -> int:
    """Records of a content type."""
    found = at = 0
    while at < len(raw):
        found += raw[at] == kind
        at += 5 + int.from_bytes(raw[at + 3 : at + 5], "big")
    return found


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


class _Records13:
    """AES-128-GCM as TLS 1.3 has it (RFC 8446, 5.2 and 7.3)."""

    def __init__(self, secret: bytes, sequence: int) -> None:
        self._secret = secret
        self._set_keys(sequence)

    def _set_keys(self, sequence: int) -> None:
        self._cipher = AESGCM(self._expand(b"key", 16))
        self._iv = self._expand(b"iv", 12)
        self._sequence = sequence

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return hmac.digest(self._secret, info + b"\1", "sha256")[:size]

    def update(self) -> None:
        self._secret = self._expand(b"traffic upd", 32)
        self._set_keys(0)

    def encrypt(self, kind: int, data: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(data) + 1 + 16).to_bytes(2, "big")
        nonce = _xor(self._iv, self._sequence.to_bytes(12, "big"))
        self._sequence += 1
        return header + self._cipher.encrypt(nonce, data + bytes([kind]), header)


class _Records12:
    """AES-128-GCM as TLS 1.2 has it (RFC 5246, 6.3 and RFC 5288)."""

    def __init__(self, tls: Any, server_side: bool) -> None:
        seed = b"key expansion" + tls.server_random() + tls.client_random()
        master, block, round_ = tls.master_key(), b"", seed
        while len(block) < 40:
            round_ = hmac.digest(master, round_, hashlib.sha256)
            block += hmac.digest(master, round_ + seed, hashlib.sha256)
        self._cipher = AESGCM(block[16 * server_side :][:16])
        self._salt = block[32 + 4 * server_side :][:4]
        self._sequence = 1  # Finished was the first

    def encrypt(self, kind: int, data: bytes) -> bytes:
        sequence = self._sequence.to_bytes(8, "big")
        head = bytes([kind, 3, 3])
        self._sequence += 1
        sealed = self._cipher.encrypt(self._salt + sequence, data, sequence + head + len(data).to_bytes(2, "big"))
        return head + (8 + len(sealed)).to_bytes(2, "big") + sequence + sealed
