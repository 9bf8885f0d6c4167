"""Contexts of pyOpenSSL, made to look like ssl.SSLContext where SSLProtocol asks.

SSLProtocol moves bytes through two ssl.MemoryBIO and calls an ssl.SSLObject between them. `_Engine` is that object on
an OpenSSL.SSL.Connection, which has its memory BIOs inside: each call hands what came in to the connection, acts, and
takes out what it produced.

As with pyOpenSSL itself the host name is sent (SNI) but not compared with the certificate: set a verify callback, or
use ssl.SSLContext.
"""

import ssl
import sys
from typing import Any

_CHUNK = 64 * 1024


def is_pyopenssl(context: Any) -> bool:
    """Whether `context` is an OpenSSL.SSL.Context, without importing pyOpenSSL."""
    module = sys.modules.get("OpenSSL.SSL")
    return module is not None and isinstance(context, module.Context)


def wrap_context(context: Any) -> "_Context":
    return _Context(context)


class _Context:
    """What SSLProtocol calls on its context."""

    check_hostname = False

    def __init__(self, context: Any) -> None:
        self.context = context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_side: bool, server_hostname: str | None
    ) -> "_Engine":
        return _Engine(self.context, incoming, outgoing, server_side, server_hostname)


class _Engine:
    """What SSLProtocol and its users call on an ssl.SSLObject."""

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
        self._connection = SSL.Connection(context, None)
        if server_side:
            self._connection.set_accept_state()
        else:
            if server_hostname:
                self._connection.set_tlsext_host_name(server_hostname.encode("idna"))
            self._connection.set_connect_state()

    def _run(self, operation: Any, *args: Any) -> Any:
        """One operation between taking bytes in and out; pyOpenSSL's errors become ssl's."""
        SSL = self._SSL
        while self._incoming.pending:
            self._connection.bio_write(self._incoming.read(_CHUNK))
        try:
            return operation(*args)
        except SSL.WantReadError:
            if self._incoming.eof:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol") from None
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)") from None
        except SSL.WantWriteError:
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)") from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError(
                ssl.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed (EOF)"
            ) from None
        except SSL.SysCallError as exc:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, str(exc)) from exc
        except SSL.Error as exc:
            reasons = "; ".join(item[-1] for item in exc.args[0]) if exc.args and exc.args[0] else "unknown reason"
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"[pyOpenSSL] {reasons}") from exc
        finally:
            self._take_out()

    def _take_out(self) -> None:
        while True:
            try:
                self._outgoing.write(self._connection.bio_read(_CHUNK))
            except self._SSL.WantReadError:
                return

    def do_handshake(self) -> None:
        self._run(self._connection.do_handshake)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        try:
            if buffer is not None:
                return self._run(self._connection.recv_into, buffer, size)
            return self._run(self._connection.recv, size)
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0  # the peer said goodbye; ssl.SSLObject has it this way

    def write(self, data: Any) -> int:
        return int(self._run(self._connection.send, bytes(data)))

    def pending(self) -> int:
        return int(self._connection.pending())

    def unwrap(self) -> None:
        # True once both sides have said goodbye; until then wait for the peer's.
        if not self._run(self._connection.shutdown):
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
