"""Settings, routes, vcl.conf and addresses: text that may hold anything. Each is taken, or refused with ValueError or
OSError; nothing else may come of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import random
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

from tests.fuzz.mutation import corpus, mutate
from vppaio.config import SETTINGS, Config
from vppaio.loop.stacks import Stacks
from vppaio.reactor.session import TCP, UDP
from vppaio.routes import RouteTable
from vppaio.vcl import vclconf

FIELDS: Final = tuple(field.name for field in dataclasses.fields(Config))
TEXT_FIELDS: Final = ("routes", "app_name", "app_socket", "vcl_config", "stack", "on_stack_loss")
PORTS: Final = (-1, 0, 1, 65535, 65536, 1 << 31, 1 << 40)


class Texts:
    """One case: one text, in every place that takes text."""

    def __init__(self) -> None:
        self._seeds = corpus("text")

    async def __aenter__(self) -> Texts:
        loop: Any = asyncio.get_running_loop()
        stacks: Stacks = loop._stacks
        self._worker = stacks.worker("host")
        self._endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._endpoint.close()

    async def case(self, rng: random.Random) -> None:
        self.take(rng, mutate(rng, self._seeds, 4000).decode(errors="surrogateescape"))

    async def corpus(self) -> None:
        for seed in self._seeds:
            self.take(random.Random(0), seed.decode(errors="surrogateescape"))

    def take(self, rng: random.Random, text: str) -> None:
        in_environment = text.replace("\0", "")  # where no value has a NUL
        for name in FIELDS:
            with mock.patch.dict(os.environ, {SETTINGS[name].variable: in_environment}):
                self.settle(Config)
        for name in TEXT_FIELDS:
            self.settle(functools.partial(Config, **{name: text}))
        with contextlib.suppress(ValueError):
            RouteTable(text, vpp_attached=True).stack_for(text.partition("/")[0])
        vclconf.parse("x", text, {})
        port = rng.choice(PORTS)
        session = self._worker.create(rng.choice((TCP, UDP)), rng.random() < 0.5)
        with contextlib.suppress(ValueError, OSError, OverflowError):
            session.bind(text, port)
        session.discard()
        if "." in text or ":" in text or not text.strip():  # else it is a name, and the resolver is not ours
            with contextlib.suppress(ValueError, OSError, OverflowError, TypeError):
                self._endpoint.sendto(b"x", (text[:40] if text[:1].isdigit() else "127.0.0.1", port))

    @staticmethod
    def settle(make: Callable[[], Config]) -> None:
        """Settings that are taken can be written down for VCL."""
        with contextlib.suppress(ValueError):
            vclconf.parse("own", vclconf.own(make()), {}).require()
