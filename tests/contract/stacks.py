"""Who is on the other end: what a contract test needs to know of a stack besides its table.

A stack's peers are plain sockets where they can be: the host stack and VPP both talk to the kernel. The fake has no
kernel to talk to, so its peers are sessions of a second worker behind the few socket methods that the tests use.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import pytest

from tests.fakes.peer import Peer, Peers
from tests.fakes.vcl import FakeVcl
from tests.support.driver import Address
from tests.support.sites import HostSite, Site, VppSite, reset
from vppaio.vcl import application
from vppaio.vcl._vcl import ffi, lib

PATIENCE: Final = 5.0


class Stack(Protocol):
    """A table and its surroundings."""

    name: str
    ops: Any
    host: str  # where sessions may listen
    host6: str
    peer_host6: str  # where peers may, on IPv6
    foreign: str  # an address that is not this stack's own: cannot be bound
    unroutable: str  # a TCP connect there fails by itself, soon
    unroutable_datagram: str | None  # the same for a datagram session's, if there is such an address

    def connect(self, to: Address) -> Any:
        """A connected socket-like peer; its reads wait at most PATIENCE seconds."""

    def listen(self, host: str | None = None) -> Any:
        """A listening socket-like peer; its address is `getsockname()[:2]`."""

    def datagrams(self, host: str | None = None) -> Any:
        """A bound datagram peer."""

    def reset(self, peer: Any) -> None:
        """Close `peer` so that our end is reset."""

    def slow_listen(self) -> AbstractContextManager[None]:
        """In this block session_listen takes long enough for a second thread to come in between, where possible."""

    def check(self) -> None:
        """Raise what went wrong inside the table unnoticed."""


class _WithKernelPeers:
    """Peers are the kernel's sockets, closed with the stack."""

    name: str

    def __init__(self, site: Site) -> None:
        self.name = site.name
        self.host, self.host6, self.peer_host6 = site.address, site.address6, site.peer_address6
        self._site = site
        self._peers = contextlib.ExitStack()

    def close(self) -> None:
        self._peers.close()

    def connect(self, to: Address) -> socket.socket:
        return self._keep(self._site.connect(to[1], PATIENCE, to[0]))

    def listen(self, host: str | None = None) -> socket.socket:
        return self._keep(self._site.listen(address=host))

    def datagrams(self, host: str | None = None) -> socket.socket:
        return self._keep(self._site.datagrams(address=host))

    def reset(self, peer: socket.socket) -> None:
        reset(peer)

    def slow_listen(self) -> AbstractContextManager[None]:
        # On the host stack listen(2) has nothing to wait for, and hammering hits it all the same; VPP's is slow enough.
        return contextlib.nullcontext()

    def check(self) -> None:
        pass

    def _keep(self, peer: socket.socket) -> socket.socket:
        peer.settimeout(PATIENCE)
        return self._peers.enter_context(peer)


class HostStack(_WithKernelPeers):
    """host.c; peers are on the loopback interface."""

    foreign = HostSite.foreign_address
    # Whatever the routes of the machine: TCP to a multicast address is ENETUNREACH (net/ipv4/tcp_ipv4.c), and a
    # broadcast address without SO_BROADCAST is EACCES (net/ipv4/datagram.c).
    unroutable = "224.0.0.1"
    unroutable_datagram: str | None = "255.255.255.255"

    def __init__(self) -> None:
        super().__init__(HostSite())
        self.ops = lib.vppaio_host_ops()


class VppStack(_WithKernelPeers):
    """libvppcom on a live VPP; peers are behind the veth."""

    unroutable = "224.0.0.1"
    unroutable_datagram: str | None = None

    def __init__(self, site: VppSite) -> None:
        super().__init__(site)
        application.attach(site.config)
        # Workers from the pool that loops use: VCL leaves two descriptors behind for each one it unregisters.
        self.ops = ffi.new("vcl_ops *", lib.vppaio_vpp_ops()[0])
        self._acquired: set[int] = set()
        self._callbacks = (
            ffi.callback("int (void)", self._acquire),
            ffi.callback("int (int)", self._release),
        )
        self.ops.worker_register, self.ops.worker_unregister = self._callbacks
        self.foreign = site.peer_address  # an address, but not one of VPP's
        self._vpp = site.vpp

    def check(self) -> None:
        assert self._vpp.healthy()

    def _acquire(self) -> int:
        index = application.acquire_worker()
        self._acquired.add(index)
        return index

    def _release(self, index: int) -> int:
        if index not in self._acquired:
            return int(lib.vppaio_vpp_ops().worker_unregister(index))
        self._acquired.discard(index)
        application.release_worker(index)
        return 0


class FakeStack:
    """tests/fakes; peers are sessions of a worker of their own, made when the first is needed."""

    name = "fake"
    host = "127.0.0.1"
    host6 = peer_host6 = "::1"
    foreign = unroutable = "192.0.2.1"
    unroutable_datagram: str | None = None

    def __init__(self, traps: int = 0) -> None:
        self._fake = FakeVcl(traps=traps)
        self.ops = self._fake.ops
        self._peers: Peers | None = None

    def close(self) -> None:
        if self._peers is not None:
            self._peers.close()
        assert self._fake.sessions() == []

    def connect(self, to: Address) -> Peer:
        return self._all_peers().connect(to)

    def listen(self, host: str | None = None) -> Peer:
        return self._all_peers().listen(host or self.host)

    def datagrams(self, host: str | None = None) -> Peer:
        return self._all_peers().datagrams(host or self.host)

    def reset(self, peer: Peer) -> None:
        self._fake.reset(peer.handle)
        peer.close()

    @contextlib.contextmanager
    def slow_listen(self) -> Iterator[None]:
        self._fake.listen_seconds = 0.01
        yield
        self._fake.listen_seconds = 0.0

    def check(self) -> None:
        self._fake.check()

    def _all_peers(self) -> Peers:
        self._peers = self._peers or Peers(self._fake, PATIENCE)
        return self._peers


def without(table: Stack, trap: int, reason: str) -> None:
    if table.ops.traps & trap:
        pytest.skip(reason)


def kernel_only(table: Stack) -> None:
    if table.name != "host":
        pytest.skip("a matter of kernel sockets")
