"""Where sequences of random calls happen: a stack, the ways to it from outside, and its death.

`Place.peer` is the kernel's end: a socket that never blocks. The fake has none: both ends are the loop's there.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.faults.places import FakePlace
from vppaio.config import Config
from vppaio.testing.vppinstance import VppInstance

IP_FREEBIND: Final = 15


class Place:
    name: str
    address: str
    foreign = "192.0.2.1"
    peer_address: str
    can_die = False

    @contextlib.contextmanager
    def sequence(self, seed: str, rng: random.Random) -> Iterator[None]:
        """Around one sequence."""
        yield

    def configs(self) -> list[Config]:
        raise NotImplementedError

    def peer(self, kind: int = socket.SOCK_STREAM) -> socket.socket | None:
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    def kill(self) -> None:
        """The stack dies."""

    def revive(self) -> None:
        """And is back; nothing if it is there."""

    def pause(self, seconds: float) -> None:
        """It hangs for a while, and goes on by itself."""


class HostPlace(Place):
    name = "host"
    address = peer_address = "127.0.0.1"

    def configs(self) -> list[Config]:
        return [Config(stack="host")]


class Fake(Place):
    name = "fake"
    address = peer_address = "10.0.0.1"
    can_die = True

    @contextlib.contextmanager
    def sequence(self, seed: str, rng: random.Random) -> Iterator[None]:
        self._place = FakePlace()
        with self._place.troubled(rng.randrange(1 << 30), {}) as self._faults:
            yield

    def configs(self) -> list[Config]:
        return [self._place.config, Config(stack="vpp", on_stack_loss="fail")]

    def peer(self, kind: int = socket.SOCK_STREAM) -> socket.socket | None:
        return None

    def kill(self) -> None:
        self._faults.lose(3)


class OnVpp(Place):
    """Beside a VPP of the parent's, which kills it and starts it when asked.

    Args:
        ask: sends the parent a word and returns when it has done so.
    """

    name = "vpp"
    can_die = True

    def __init__(self, vpp: VppInstance, ask: Callable[[str], None]) -> None:
        self.vpp, self.ask = vpp, ask
        self.address, self.peer_address = vpp.address, vpp.kernel_address

    def configs(self) -> list[Config]:
        common: dict[str, Any] = {"stack": "vpp", "app_socket": self.vpp.app_socket}
        return [Config(**common), Config(**common, adopt_sockets=False), Config(**common, on_stack_loss="fail")]

    def peer(self, kind: int = socket.SOCK_STREAM) -> socket.socket | None:
        with self.vpp.kernel_sockets():
            return super().peer(kind)

    def kill(self) -> None:
        self.ask("kill")

    def revive(self) -> None:
        self.ask("revive")

    def pause(self, seconds: float) -> None:
        pid = self.vpp.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.ask(f"continue {pid} {seconds}")
