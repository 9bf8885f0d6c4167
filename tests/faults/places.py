"""Where a simulated run happens: a stack with trouble around it, and how both ends of its connections get there.

On the fake and on the host stack one loop has both ends on the troubled table. A VCL process cannot connect to itself,
so on VPP one end is the kernel's, in the namespace behind VPP, and untroubled.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from tests.fakes.vcl import VPP_TRAPS, FakeVcl
from tests.faults.table import Faults
from tests.support.sites import HostSite, VppSite
from vppaio.config import Config
from vppaio.testing.trouble import Trouble
from vppaio.testing.vppinstance import VppInstance
from vppaio.vcl import application
from vppaio.vcl._vcl import ffi

Factory = Callable[[], Any]


class Place:
    """One stack.

    Attributes:
        config: of the loop.
        can_be_lost: whether a run may take the stack away for a while.
        patience: seconds until a run counts as hanging.
        fifo_bytes: what one direction of a connection holds, about.
    """

    config: Config
    can_be_lost = True
    patience = 20.0
    fifo_bytes = 1 << 20

    @contextlib.contextmanager
    def troubled(self, seed: int, rates: dict[str, float]) -> Iterator[Faults]:
        """In this block loops get the troubled table."""
        raise NotImplementedError

    async def serve(self, factory: Factory) -> asyncio.Server:
        """A server on a free port."""
        return await asyncio.get_running_loop().create_server(factory, self.host, 0)

    async def connect(self, factory: Factory, server: asyncio.Server) -> tuple[Any, Any]:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.get_running_loop().create_connection(factory, self.host, port)

    host: str


class _Behind(Place):
    """A table of our choice where the loop expects VPP's: then connects and listens are its own, not the kernel's."""

    def inner(self, chance: random.Random) -> Any:
        """The `vcl_ops *` to make trouble around."""
        raise NotImplementedError

    @contextlib.contextmanager
    def troubled(self, seed: int, rates: dict[str, float]) -> Iterator[Faults]:
        inner = self.inner(random.Random(seed))
        faults = Faults(int(ffi.cast("uintptr_t", inner)), seed, rates)
        table = ffi.cast("vcl_ops *", faults.address)
        with mock.patch.multiple(
            application,
            attach=lambda config: None,
            acquire_worker=lambda: table.worker_register(),
            look_for_vpp=lambda config: None,
            release_worker=lambda index: table.worker_unregister(index),
            vpp_ops_address=lambda: faults.address,
        ):
            yield faults
        self.check()

    def check(self) -> None:
        """Raise what went wrong inside."""


class FakePlace(_Behind):
    host = "10.0.0.1"
    config = Config(stack="vpp")

    def inner(self, chance: random.Random) -> Any:
        self.fifo_bytes = chance.choice((64, 1000, 5000, 65536))
        self.fake = FakeVcl(fifo_bytes=self.fifo_bytes, traps=chance.choice((0, VPP_TRAPS)), own=["10.0.0.1"])
        return self.fake.ops

    def check(self) -> None:
        self.fake.check()
        assert self.fake.sessions() == [], "the fake has sessions left"


class HostPlace(_Behind):
    """host.c with sessions throughout, as VPP has it."""

    host = HostSite.address
    config = Config(stack="vpp", routes="127.0.0.0/8=vpp")

    def inner(self, chance: random.Random) -> Any:
        return ffi.cast("vcl_ops *", application.host_ops_address())


class AdoptingPlace(Place):
    """host.c as loops have it: the kernel's sockets, adopted."""

    host = HostSite.address
    config = HostSite.config
    can_be_lost = False

    @contextlib.contextmanager
    def troubled(self, seed: int, rates: dict[str, float]) -> Iterator[Faults]:
        faults = Faults(application.host_ops_address(), seed, rates)
        with mock.patch.object(application, "host_ops_address", return_value=faults.address):
            yield faults


class VppPlace(Place):
    """VPP, as the server and as the client in turns."""

    patience = 60.0

    def __init__(self, vpp: VppInstance) -> None:
        self._site = VppSite(vpp)
        self._serves = True
        self.config = dataclasses.replace(self._site.config, adopt_sockets=False)
        self.host = self._site.address

    @contextlib.contextmanager
    def troubled(self, seed: int, rates: dict[str, float]) -> Iterator[Faults]:
        self._serves = seed % 2 == 0
        faults = Faults(application.vpp_ops_address(), seed, rates)
        with mock.patch.object(application, "vpp_ops_address", return_value=faults.address):
            yield faults

    async def serve(self, factory: Factory) -> asyncio.Server:
        if self._serves:
            return await super().serve(factory)
        return await asyncio.get_running_loop().create_server(factory, sock=self._site.listen())

    async def connect(self, factory: Factory, server: asyncio.Server) -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        address = server.sockets[0].getsockname()
        if not self._serves:
            return await loop.create_connection(factory, *address)
        sock = self._site.kernel_socket()
        sock.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(sock, address), 3)
        except BaseException:
            sock.close()
            raise
        return await loop.create_connection(factory, sock=sock)


class _Limited(Faults):
    """And limits around the process."""

    trouble: Trouble

    def end(self) -> None:
        super().end()
        self.trouble.end()

    def counts(self) -> dict[str, int]:
        return super().counts() | self.trouble.counts


class LimitedPlace(VppPlace):
    """VPP, in a process whose limits go up and down, or beside a VPP that stops now and then, or crawls; one kind a
    run. The peers are in this process, too, and may fail as well."""

    kinds = ("descriptors", "memory", "stopped", "slow")

    def __init__(self, vpp: VppInstance) -> None:
        super().__init__(vpp)
        self._vpp = vpp

    @contextlib.contextmanager
    def troubled(self, seed: int, rates: dict[str, float]) -> Iterator[Faults]:
        self._serves = seed % 2 == 0
        kind = self.kinds[seed // 2 % len(self.kinds)]
        faults = _Limited(application.vpp_ops_address(), seed, rates)
        with (
            mock.patch.object(application, "vpp_ops_address", return_value=faults.address),
            Trouble(self._vpp, os.getpid(), seed, [kind], longest=0.02) as faults.trouble,
        ):
            yield faults
