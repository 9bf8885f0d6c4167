"""RecordProtocol: the way of the bytes through asyncio's TLS protocol, compiled.

What happens for every message of an established connection: ciphertext in, one `data_received`, one `write`, ciphertext
out. The rules and their order are those of `sslproto.SSLProtocol`, whose methods these replace and whose state they use.
What is left out is what a message need not pay for:

- A read that can only say "want read", by an exception, when the engine has nothing left.
- A 256 KiB bytes object for each read, cut down to the few bytes that came: a TLS record has 16 KiB at most.
- The Python layer of ssl.SSLObject over `_ssl`'s object.

It is written once for all engines, and relies on what tls.engine promises: not, for one, on a write that takes all.

Five things are mended, which asyncio has wrong:

- A BufferedProtocol may hand out a bytearray, or views of other items than bytes. asyncio slices what it gets: of a
  bytearray that is a copy, and what did not fit in one record goes there.
- An empty buffer is an error, as on asyncio's plain transport, and not the peer's goodbye.
- With a high water of 0, pause_writing is called when something waits to be written. asyncio calls it when nothing does,
  and then nothing calls resume_writing. After the end, where there is no protocol, asyncio stumbles over it.
- What writelines cannot write is a TypeError for its caller, as write has it, and not the end of the connection.
- What the handshake leaves to send is sent also where connection_made pauses reading; a client's last message else waits
  for its first write.

Base of tls.protocol. On the loop's thread.
"""
import ssl
from asyncio import sslproto
from asyncio.log import logger
from asyncio.sslproto import SSLProtocolState

from vppaio.private import SslProtocol, SslTransport

cdef enum:
    MAX_RECORD = 16 * 1024  # bytes of plaintext
    LOG_THRESHOLD = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES

cdef object WRAPPED = SSLProtocolState.WRAPPED
cdef object FLUSHING = SSLProtocolState.FLUSHING
cdef object CLOSED_STATES = (SSLProtocolState.FLUSHING, SSLProtocolState.SHUTDOWN, SSLProtocolState.UNWRAPPED)
cdef object AGAIN = sslproto.SSLAgainErrors


cdef class _Calls:
    """What a message needs of a tls.engine.TlsEngine and its queues, looked up once."""

    cdef object incoming, outgoing
    cdef object feed, read, write, pending, take  # bound methods: queue in, TLS, queue out
    cdef object transport  # below

    def __cinit__(self, engine, incoming, outgoing, transport):
        if type(engine) is ssl.SSLObject:  # a class of the program's own may do more
            engine = engine._sslobj
        self.incoming = incoming
        self.outgoing = outgoing
        self.feed = incoming.write
        self.take = outgoing.read
        self.read = engine.read
        self.write = engine.write
        self.pending = engine.pending
        self.transport = transport

    cdef bint has_more(self) except -1:
        """False if a further read would only say "want read"."""
        return self.incoming.pending or self.pending()


cdef object view_of(data):
    """A memoryview of bytes of any buffer, whatever its items are."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


cdef object piece_of(data, bint at_once):
    """What an engine takes: bytes, or a view of what the caller will not change before it was taken."""
    if type(data) is bytes:
        return data
    return view_of(data) if at_once else bytes(view_of(data))


cdef _Calls calls_of(protocol):
    engine = protocol._calls
    if engine is None:
        raise ConnectionError("TLS: the connection is not open")
    return engine


class SSLTransport(SslTransport):
    """What the protocol above sees. (Programs look for "ssl" in the name.)"""

    def write(self, data):
        protocol = self._ssl_protocol
        if type(data) is bytes and protocol._state is WRAPPED and not protocol._write_backlog:
            if data:
                protocol._write_through(data)
        else:
            super().write(data)

    # asyncio forgets its protocol at the second close, and every call after that fails.

    def close(self):
        if not self._closed:
            super().close()

    def _force_close(self, exc):
        """asyncio's 3.11 and 3.12 lack what this calls. A TLS connection inside this one ends this way."""
        protocol = self._ssl_protocol
        self._closed = True
        protocol._set_state(SSLProtocolState.UNWRAPPED)
        if protocol._transport is not None:
            protocol._transport._force_close(exc)

    def abort(self):
        self._force_close(None)


class RecordProtocol(SslProtocol):
    _calls = None  # while the connection is open

    def _get_app_transport(self):
        if self._app_transport is None:
            if self._app_transport_created:
                raise RuntimeError("Creating _SSLProtocolTransport twice")
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return self._app_transport

    def _on_handshake_complete(self, handshake_exc):
        if self._transport is not None:
            self._calls = _Calls(self._sslobj, self._incoming, self._outgoing, self._transport)
        super()._on_handshake_complete(handshake_exc)
        if self._app_reading_paused and self._calls is not None and self._outgoing.pending:
            self._process_outgoing()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._calls = None  # holds the transport

    # ---- inbound ------------------------------------------------------------------------------------------------

    def buffer_updated(self, nbytes):
        if self._state is not WRAPPED:
            super().buffer_updated(nbytes)
            return
        calls_of(self).feed(self._ssl_buffer_view[:nbytes])
        self._do_read()

    def _do_read(self):
        state = self._state
        if state is not WRAPPED and state is not FLUSHING:
            return
        try:
            if not self._app_reading_paused:
                if self._app_protocol_is_buffer:
                    self._do_read__buffered()
                else:
                    self._do_read__copied()
                if self._write_backlog:
                    self._do_write()
                elif self._app_writing_paused or self._outgoing.pending:
                    self._process_outgoing()
            if self._ssl_reading_paused or self._incoming.pending:
                self._control_ssl_reading()
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")

    def _do_read__copied(self):
        cdef _Calls engine = calls_of(self)
        first = None
        chunks = None
        chunk = b"1"
        try:
            while True:
                chunk = engine.read(MAX_RECORD)
                if not chunk:
                    break
                if first is None:
                    first = chunk
                elif chunks is None:
                    chunks = [first, chunk]
                else:
                    chunks.append(chunk)
                if not engine.has_more():
                    break
        except AGAIN:
            pass
        if chunks is not None:
            self._app_protocol.data_received(b"".join(chunks))
        elif first is not None:
            self._app_protocol.data_received(first)
        if not chunk:  # close_notify
            self._call_eof_received()
            self._start_shutdown()

    def _do_read__buffered(self):
        cdef _Calls engine = calls_of(self)
        cdef Py_ssize_t offset = 0
        cdef Py_ssize_t count = 1
        cdef Py_ssize_t wants
        # Let go of before the protocol hears of it, which may want to resize its buffer.
        with view_of(self._app_protocol_get_buffer(self._get_read_buffer_size())) as view:
            wants = len(view)
            if not wants:
                raise RuntimeError("get_buffer() returned an empty buffer")
            try:
                while True:
                    if offset:
                        with view[offset:] as rest:
                            count = engine.read(wants - offset, rest)
                    else:
                        count = engine.read(wants, view)
                    if count <= 0:
                        break
                    offset += count
                    if not engine.has_more():
                        break
                    if offset == wants:
                        self._loop.call_soon(self._do_read)  # there may be more
                        break
            except AGAIN:
                pass
        if offset > 0:
            self._app_protocol_buffer_updated(offset)
        if count == 0:  # close_notify
            self._call_eof_received()
            self._start_shutdown()

    # ---- outbound -----------------------------------------------------------------------------------------------

    def _write_appdata(self, list_of_data):
        if self._state in CLOSED_STATES:
            if self._conn_lost >= LOG_THRESHOLD:
                logger.warning("SSL connection is closed")
            self._conn_lost += 1
            return
        backlog = self._write_backlog
        # A copy of what has to wait, since the caller may change its buffer as soon as we return.
        at_once = self._state is WRAPPED and not backlog
        pieces = [piece for data in list_of_data if len(piece := piece_of(data, at_once))]
        backlog.extend(pieces)
        self._write_buffer_size += sum(map(len, pieces))
        try:
            if self._state is WRAPPED:
                self._do_write()
            if at_once and backlog:
                for i in range(len(backlog)):
                    backlog[i] = piece_of(backlog[i], False)
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")

    def _write_through(self, data):
        """`_write_appdata` of one bytes object with nothing before it, wrapped."""
        cdef Py_ssize_t count
        try:
            try:
                count = calls_of(self).write(data)
            except AGAIN:
                count = 0
            if count < len(data):
                self._write_backlog.append(data[count:])
                self._write_buffer_size += len(data) - count
                if count:
                    self._do_write()
                    return
            self._process_outgoing()
        except Exception as exc:
            self._fatal_error(exc, "Fatal error on SSL protocol")

    def _do_write(self):
        cdef _Calls engine = calls_of(self)
        backlog = self._write_backlog
        cdef Py_ssize_t size, count
        try:
            while backlog:
                data = backlog[0]
                size = len(data)
                count = engine.write(data)
                self._write_buffer_size -= count
                if count < size:
                    backlog[0] = data[count:]
                else:
                    del backlog[0]
        except AGAIN:
            pass
        self._process_outgoing()

    def _control_app_writing(self):
        if self._app_protocol is None:  # after the end
            self._app_writing_paused = False
        elif self._app_writing_paused or self._get_write_buffer_size():
            super()._control_app_writing()

    def _process_outgoing(self):
        cdef _Calls engine = self._calls
        if engine is None:
            super()._process_outgoing()
            return
        if not self._ssl_writing_paused:
            data = engine.take()
            if data:
                engine.transport.write(data)
        if self._app_writing_paused or self._write_buffer_size or engine.outgoing.pending:
            self._control_app_writing()
