"""TlsEngine: TLS of one connection without I/O, and the factory that chooses one by the kind of context.

An engine stands between two byte queues, each an ssl.MemoryBIO. What the peer sent is fed into `incoming`
(`incoming.write`), what is for the peer is taken out of `outgoing` (`outgoing.read`). The interface is a part of
ssl.SSLObject, and an ssl.SSLObject is an engine as it stands. tls.records is written once for all engines. It relies on
what stands here, not on what else one of them does; tests/unit/test_tls_engines.py holds each of them to it.

To add a kind: a function that returns a TlsContext for its contexts and None for others, and `KINDS.append(function)`.
"""

import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from vppaio.tls.pyopenssl import PyOpenSslContext, is_pyopenssl


class TlsEngine(Protocol):
    """Operations raise ssl.SSLError, which is SSLWantReadError where more of the peer's bytes are needed.

    What an operation has to tell the peer is in `outgoing` when it returns or raises.
    """

    def do_handshake(self) -> None:
        """Go on with the handshake; returns when it is complete."""

    def read(self, size: int, buffer: memoryview = ..., /) -> Any:
        """Plaintext: at most `size` bytes, which is not 0, or a count of bytes if `buffer` is there to be filled.

        b"" or 0 once the peer has sent close_notify. May end before there is no more: see `pending`.
        """

    def write(self, data: Any, /) -> int:
        """Encrypt what of `data` can be: 1 byte or more. What is left over, all of it where this raised
        SSLWantReadError (in a renegotiation), is offered again first.

        Args:
            data: bytes, or a memoryview of bytes; not empty.
        """
        ...

    def pending(self) -> int:
        """0 if a read gives nothing unless it finds more in `incoming`."""
        ...

    def unwrap(self) -> None:
        """Send close_notify, once, and look for the peer's; returns when that is there."""

    # Peer information: what asyncio puts into a transport's extra information.
    def getpeercert(self, binary_form: bool = False, /) -> Any: ...
    def cipher(self) -> tuple[str, Any, Any] | None: ...
    def compression(self) -> str | None: ...
    def version(self) -> str | None: ...
    def selected_alpn_protocol(self) -> str | None: ...


class TlsContext(Protocol):
    """What makes engines; an ssl.SSLContext is one."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: Any = None,
    ) -> TlsEngine: ...


def _of_ssl(context: Any) -> TlsContext | None:
    return cast(TlsContext, context) if isinstance(context, ssl.SSLContext) else None


def _of_pyopenssl(context: Any) -> TlsContext | None:
    return PyOpenSslContext(context) if is_pyopenssl(context) else None


KINDS: Final[list[Callable[[Any], TlsContext | None]]] = [_of_ssl, _of_pyopenssl]


def tls_context(context: Any) -> TlsContext | None:
    """The factory of engines for a context of any kind; None if it is of none."""
    return next((made for kind in KINDS if (made := kind(context)) is not None), None)
