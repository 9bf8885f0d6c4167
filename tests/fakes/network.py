"""The fake's network: which address is whose, and what reaches it."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable
from typing import Final

from tests.fakes.sessions import Address, Message, Refusal, Session, State

MSS: Final = 1472


class Network:
    """Addresses in use, by transport.

    Args:
        own: addresses of the stack; a connect elsewhere fails without a reason, as VCL has it (EFAULT).
        keep_port_zero: port 0 is a port like any other, VPP's way.
    """

    def __init__(self, own: Iterable[str], keep_port_zero: bool) -> None:
        self.own = list(own)
        self.keep_port_zero = keep_port_zero
        # Several workers may listen on one address; connections go to them in turn.
        self._bound: dict[tuple[bool, Address], list[Session]] = {}
        self._ports = itertools.cycle(range(40000, 60000))

    def bind(self, session: Session, local: Address) -> None:
        """Take the address; the session receives from here on."""
        host, port = local
        if host not in (*self.own, "0.0.0.0", "::"):
            raise Refusal(errno.EADDRNOTAVAIL)
        if port == 0 and not self.keep_port_zero:
            local = (host, self.free_port(session.is_stream))
        sharers = self._bound.setdefault((session.is_stream, local), [])
        if any(other.worker is session.worker for other in sharers):
            raise Refusal(errno.EADDRINUSE)
        sharers.append(session)
        session.local = local

    def release(self, session: Session) -> None:
        sharers = self._bound.get((session.is_stream, session.local or ("", 0)), [])
        if session in sharers:
            sharers.remove(session)

    def release_all(self) -> None:
        self._bound.clear()

    def free_port(self, is_stream: bool) -> int:
        in_use = {port for (stream, (_, port)), sharers in self._bound.items() if sharers and stream == is_stream}
        return next(port for port in self._ports if port not in in_use)

    def source(self, session: Session, to: Address) -> Address:
        """The address that packets from `session` to `to` carry."""
        if session.local is None:
            session.local = (to[0] if to[0] in self.own else self.own[0], self.free_port(session.is_stream))
        host, port = session.local
        return (to[0], port) if host in ("0.0.0.0", "::") else (host, port)

    def connect(self, client: Session, to: Address) -> Session:
        """The session that a connection to `to` makes on the listener's side."""
        if to[0] not in self.own:
            raise Refusal(errno.EFAULT)
        listener = self._receiver(True, to)
        if listener is None:
            raise Refusal(errno.ECONNREFUSED)
        server = Session(
            listener.worker.new_handle(), listener.worker, True, listener.is_ip4, listener.fifo_bytes, State.READY
        )
        server.local, server.peer = to, self.source(client, to)
        server.remote, client.remote = client, server
        listener.worker.sessions[server.handle] = server
        listener.announced.append(server)
        listener.worker.post(listener, Message.ACCEPTED)
        return server

    def deliver(self, to: Address, data: bytes, sender: Address) -> bool:
        """A datagram's arrival; False if there is nobody. A full FIFO drops it."""
        receiver = self._receiver(False, to)
        if receiver is None or (receiver.peer is not None and receiver.peer != sender):
            return False
        if sum(len(waiting) for waiting, _ in receiver.datagrams) + len(data) <= receiver.fifo_bytes:
            receiver.datagrams.append((data, sender))
            receiver.tell_of_content()
        return True

    def _receiver(self, is_stream: bool, to: Address) -> Session | None:
        wildcard = "::" if ":" in to[0] else "0.0.0.0"
        for host in (to[0], wildcard):
            sharers = self._bound.get((is_stream, (host, to[1])))
            if sharers and (not is_stream or sharers[0].state is State.LISTENING):
                sharers.append(sharers.pop(0))  # round robin
                return sharers[-1]
        return None
