"""The engine (tls.engine) for contexts of pyOpenSSL: an OpenSSL.SSL.Connection between two ssl.MemoryBIO.

The connection has memory BIOs of its own, which do not say how much they hold. So it is given one record at a time, and
only when it has nothing left to read: then all that the peer sent is in `incoming`, where back-pressure counts it, and
`pending` is as exact as OpenSSL's.

As with pyOpenSSL itself the host name is sent (SNI) but not compared with the certificate: set a verify callback, or
use ssl.SSLContext.
"""

import ssl
import sys
from typing import Any, Final

_CHUNK: Final = 64 * 1024
_HEADER: Final = 5  # bytes: type, version, length
_RECORD: Final = 16 * 1024  # bytes of plaintext; the connection takes no more at a time
_RECORD_TYPES: Final = range(20, 25)  # change cipher spec to heartbeat


def is_pyopenssl(context: Any) -> bool:
    """Whether `context` is an OpenSSL.SSL.Context, without importing pyOpenSSL."""
    module = sys.modules.get("OpenSSL.SSL")
    return module is not None and isinstance(context, module.Context)


class PyOpenSslContext:
    """Makes engines of one OpenSSL.SSL.Context."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> "PyOpenSslEngine":
        return PyOpenSslEngine(self.context, incoming, outgoing, server_side, server_hostname)


class PyOpenSslEngine:
    """A TlsEngine, and the "ssl_object" that programs ask a transport for."""

    def __init__(
        self,
        context: Any,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        from OpenSSL import SSL

        self._SSL = SSL
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._incoming = incoming
        self._outgoing = outgoing
        self._header = b""  # of a record whose length is not known yet
        self._missing = 0  # bytes of the record at hand
        self._connection = SSL.Connection(context, None)
        if server_side:
            self._connection.set_accept_state()
        else:
            if server_hostname:
                self._connection.set_tlsext_host_name(server_hostname.encode("idna"))
            self._connection.set_connect_state()

    # ---- bytes between the queues and the connection ----------------------------------------------------------------

    def _feed(self) -> bool:
        """Give the connection what came of one record; False if nothing did."""
        piece = b""
        if not self._missing:
            self._header += self._incoming.read(_HEADER - len(self._header))
            if len(self._header) < _HEADER:
                return False
            piece, self._header = self._header, b""
            self._missing = int.from_bytes(piece[3:5], "big")
            if piece[0] not in _RECORD_TYPES:
                # No TLS, and OpenSSL's to judge.
                piece += self._incoming.read()
                self._missing = 0
        if self._missing:
            body = self._incoming.read(self._missing)
            self._missing -= len(body)
            piece += body
        if not piece:
            return False
        self._connection.bio_write(piece)
        return True

    def _take_out(self) -> None:
        try:
            while True:
                piece = self._connection.bio_read(_CHUNK)
                self._outgoing.write(piece)
                if len(piece) < _CHUNK:
                    return
        except self._SSL.WantReadError:
            return

    def _run(self, operation: Any, *args: Any) -> Any:
        """Perform an operation that may read what came; pyOpenSSL's errors become ssl's."""
        try:
            while True:
                try:
                    return operation(*args)
                except self._SSL.WantReadError:
                    if not self._feed():
                        raise
        except self._SSL.Error as exc:
            raise self._as_ssl(exc) from exc
        finally:
            self._take_out()

    def _as_ssl(self, exc: Exception) -> ssl.SSLError:
        SSL = self._SSL
        match exc:
            case SSL.WantReadError():
                return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")
            case SSL.WantWriteError():
                return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
            case SSL.ZeroReturnError():
                return ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed (EOF)")
            case SSL.SysCallError():
                return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        reasons = "; ".join(item[-1] for item in exc.args[0]) if exc.args and exc.args[0] else "unknown reason"
        return ssl.SSLError(ssl.SSL_ERROR_SSL, f"[pyOpenSSL] {reasons}")

    # ---- TlsEngine --------------------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        self._run(self._connection.do_handshake)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        if not self._connection.pending():
            self._feed()  # rather than be told that it wants to read: an exception costs more than a record
        try:
            if buffer is not None:
                return self._run(self._connection.recv_into, buffer, size)
            return self._run(self._connection.recv, size)
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: Any) -> int:
        sent = 0
        with memoryview(data) as view:
            try:
                while sent < len(view):
                    sent += self._connection.send(view[sent : sent + _RECORD])
            except self._SSL.WantReadError:
                # A renegotiation. With the peer's answer in `incoming` it goes on, and then so does the write.
                if not sent:
                    return int(self._run(self._connection.send, view[:_RECORD]))
            except self._SSL.Error as exc:
                raise self._as_ssl(exc) from exc
            finally:
                self._take_out()
        return sent

    def pending(self) -> int:
        return int(self._connection.pending())

    def unwrap(self) -> None:
        # The first call says goodbye, the second looks whether the peer has.
        if not (self._run(self._connection.shutdown) or self._run(self._connection.shutdown)):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The peer's certificate in DER; otherwise {}, as ssl has it for what it did not validate. pyOpenSSL's own
        object is `connection.get_peer_certificate()`."""
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return None
        if not binary_form:
            return {}
        from cryptography.hazmat.primitives.serialization import Encoding

        return certificate.public_bytes(Encoding.DER)

    def cipher(self) -> tuple[str, str | None, int | None] | None:
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_cipher_version(), self._connection.get_cipher_bits()

    def compression(self) -> None:
        return None  # OpenSSL has none since 1.1.0

    def version(self) -> str | None:
        return str(self._connection.get_protocol_version_name())

    def selected_alpn_protocol(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode() or None

    @property
    def connection(self) -> Any:
        """The OpenSSL.SSL.Connection."""
        return self._connection
