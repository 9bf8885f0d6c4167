"""What programs call on a non-blocking socket, for SessionSocket: each acts at once or raises BlockingIOError."""

from typing import Any

from vppaio.transports.socketio import SocketIO


class SocketCalls:
    @property
    def io(self) -> SocketIO:
        """The session's input and output."""
        raise NotImplementedError

    def recv(self, bufsize: int) -> bytes:
        """At most `bufsize` bytes, b"" once the peer has finished. VCL: vppcom_session_read.

        Raises:
            BlockingIOError: nothing has arrived.
        """
        return self.io.recv(bufsize)

    def recv_into(self, buffer: Any) -> int:
        """As `recv`; returns how many bytes came. VCL: vppcom_session_read."""
        return self.io.recv_into(buffer)

    def recvfrom(self, bufsize: int) -> tuple[bytes, tuple[Any, ...]]:
        """A datagram, of which more than `bufsize` bytes are lost, and its sender. VCL: vppcom_session_recvfrom.

        Raises:
            BlockingIOError: none has arrived.
        """
        return self.io.recvfrom(bufsize)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0) -> tuple[int, tuple[Any, ...]]:
        """As `recvfrom`; returns how many bytes it has, and its sender. VCL: vppcom_session_recvfrom."""
        view = memoryview(buffer).cast("B")
        data, address = self.io.recvfrom(nbytes or len(view))
        view[: len(data)] = data
        return len(data), address

    def send(self, data: Any) -> int:
        """Send what there is room for; returns how many bytes. VCL: vppcom_session_write.

        Raises:
            BlockingIOError: there is no room.
        """
        return self.io.send(data)

    def setblocking(self, flag: bool) -> None:
        """Take False.

        Raises:
            ValueError: for True.
        """
        if flag:
            raise ValueError("sessions are non-blocking: setblocking(True) is not supported")

    def settimeout(self, value: float | None) -> None:
        """Take 0 seconds.

        Raises:
            ValueError: for any other, and for None.
        """
        if value != 0:
            raise ValueError(f"sessions are non-blocking: settimeout({value!r}) is not supported, only 0")

    def gettimeout(self) -> float:
        """0 seconds, as of a non-blocking socket."""
        return 0.0

    def getblocking(self) -> bool:
        """False."""
        return False

    def get_inheritable(self) -> bool:
        """False: a session stays in its process."""
        return False
