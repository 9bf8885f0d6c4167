"""TlsProtocol: TLS between a stream transport and the protocol above.

The state machine (handshake, records, flow control both ways, shutdown, timeouts) is asyncio's own
`sslproto.SSLProtocol`, as the running Python has it, so every option of ssl.SSLContext and every rule of asyncio's
TLS holds. It runs on memory BIOs, which is what makes it work on sessions without descriptors. The way of the bytes is
compiled (tls.records). Added here: a read buffer shared by all connections of a thread, where asyncio's has 256 KiB for
each, and contexts of other kinds than ssl's (tls.engine).

Below it is a transports.stream.StreamTransport, above it the transport that the protocol sees. Made by loop.
"""

import threading
from typing import Any, ClassVar

from vppaio.private import StreamReader
from vppaio.tls.engine import tls_context
from vppaio.tls.records import RecordProtocol

_READ_SIZE = 256 * 1024  # asyncio's


class _ThreadBuffer(threading.local):
    """Filled and emptied within one dispatch, never held across: one per thread is enough."""

    def __init__(self) -> None:
        self.buffer = bytearray(_READ_SIZE)
        self.view = memoryview(self.buffer)


_shared = _ThreadBuffer()


class TlsProtocol(RecordProtocol):
    """asyncio's TLS protocol with a shared read buffer. Arguments as SSLProtocol's."""

    max_size: ClassVar[int] = 0  # what SSLProtocol.__init__ allocates

    def __init__(self, loop: Any, app_protocol: Any, sslcontext: Any, *args: Any, **kwargs: Any) -> None:
        # None is asyncio's to fill in; of what is of no kind it makes its own complaint.
        context: Any = tls_context(sslcontext) or sslcontext
        super().__init__(loop, app_protocol, context, *args, **kwargs)
        if sslcontext is not None:
            self._extra["sslcontext"] = sslcontext
        self.__dict__["max_size"] = _READ_SIZE  # what it reads

    def take_back(self, reader: StreamReader | None) -> None:
        """A client need not wait for our answer to its STARTTLS: what the reader got behind it is the handshake's."""
        if reader is not None and (read_ahead := reader._buffer):
            self._incoming.write(read_ahead)
            read_ahead.clear()

    def connection_lost(self, exc: BaseException | None) -> None:
        # asyncio forgets what is below before the protocol above hears of the end, and has no peername then to log.
        if self._transport is not None:
            self._extra["peername"] = self._transport.get_extra_info("peername")
            self._extra["sockname"] = self._transport.get_extra_info("sockname")
        super().connection_lost(exc)

    def get_buffer(self, n: int) -> memoryview:
        self._ssl_buffer_view = _shared.view
        return self._ssl_buffer_view
