"""One run: clients of several kinds talk to an echo server of several kinds while the stack makes trouble.

What must hold, whatever the trouble: bytes are right and in order, every connection ends, whoever lost bytes was told
by an exception (or its peer was), nothing is left open, and only expected complaints reach the exception handler.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import random
import sys
from asyncio import constants
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import vppaio
from tests.faults.ends import Client, Echo, Run, stream_client, stream_echo
from tests.faults.places import Place
from tests.faults.table import KINDS, Faults

MOST_TURNS: Final = 500_000
_RARE: Final = {"reset": (0.002, 0.01, 0.03), "no memory": (0.01, 0.05), "aborted": (0.05,), "in use": (0.2,)}
_USUAL: Final = (0.01, 0.05, 0.2)
# What the loop reports by itself; anything else is a failure.
_EXPECTED: Final = {
    "socket.accept() out of system resource",
    "Error on transport creation for incoming connection",
}


class Failed(AssertionError):
    """A run went wrong; says how."""


def rates_of(chance: random.Random) -> dict[str, float]:
    """Which kinds of trouble there are in a run, and how much of each."""
    return {kind: chance.choice(_RARE.get(kind, _USUAL)) for kind in KINDS if chance.random() < 0.4}


def run(place: Place, seed: int) -> Counter[str]:
    """One run from a seed.

    Returns:
        How often each kind of trouble happened, and how conversations ended.

    Raises:
        Failed: something that must hold did not.
    """
    chance = random.Random(seed)
    outcome: Counter[str] = Counter()
    unraisable: list[Any] = []
    with (
        mock.patch.object(constants, "ACCEPT_RETRY_DELAY", 0.002),
        mock.patch.object(sys, "unraisablehook", unraisable.append),
        place.troubled(seed, rates_of(chance)) as faults,
    ):
        try:
            vppaio.run(_Simulation(place, chance, faults, outcome).main(), config=place.config)
        except TimeoutError:
            raise Failed(f"seed {seed}: no end in {place.patience} s") from None
        except AssertionError as failure:
            raise Failed(f"seed {seed}: {failure}") from failure
        if faults.open_sessions:
            raise Failed(f"seed {seed}: {faults.open_sessions} sessions were not closed")
        outcome.update(faults.counts())
    if seed % 50 == 0:
        gc.collect()
    if unraisable:
        raise Failed(f"seed {seed}: {unraisable[0].exc_value!r} in {unraisable[0].object!r}")
    return outcome


class _Simulation:
    def __init__(self, place: Place, chance: random.Random, faults: Faults, outcome: Counter[str]) -> None:
        self.place = place
        self.chance = chance
        self.faults = faults
        self.outcome = outcome
        self.complaints: list[str] = []
        self.lose_after = chance.randrange(1, 60) if place.can_be_lost and chance.random() < 0.1 else 0
        self.run = Run(chance, self.count_arrival)

    def count_arrival(self) -> None:
        """Something was received: the clock that decides when the stack is lost."""
        if self.lose_after:
            self.lose_after -= 1
            if not self.lose_after:
                self.outcome["lost"] += 1
                self.faults.lose(self.chance.randint(1, 4))

    async def main(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(self.on_complaint)
        loop._poller.retry_lost_ns = 1_000_000
        async with asyncio.timeout(self.place.patience):
            server = await self.served()
            count = self.chance.randint(1, 6)
            gathering = loop._stacks.worker(loop.stacks[-1]).gathering
            if gathering is not None and count % 2:
                gathering.quick_ns = 10**12  # these callbacks go through Python, and would count as slow
            await asyncio.gather(*(self.converse(server, number) for number in range(count)))
            self.faults.end()
            for _ in range(self.outcome["lost"]):  # once: it has to serve again
                while not await self.converse(server, count, patient=True):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            server.close()
            await _until(lambda: not self.run.alive and not self.run.tasks)
            await _until(lambda: not sum(stack["sessions"] for stack in loop.statistics()["stacks"].values()))
        truncated, told = self.outcome["truncated"], self.run.broken + self.faults.counts().get("aborted", 0)
        assert truncated <= told, f"{truncated} clients lost bytes without a word, {told} servers know why"
        assert not self.complaints, self.complaints
        turns = loop.statistics()["turns"]
        assert turns < MOST_TURNS, f"{turns} turns"

    def on_complaint(self, _loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        self.outcome["complaints"] += 1
        self.run.broken += 1
        # The kernel refuses to shut down a connection whose reset has arrived; asyncio's callback fails there, too.
        refused = isinstance(exc, OSError) and exc.errno == errno.ENOTCONN and "(shutdown)" in str(exc)
        if not refused and (context["message"] not in _EXPECTED or not isinstance(exc, OSError)):
            self.complaints.append(f"{context['message']}: {exc!r}")

    async def served(self) -> asyncio.Server:
        """A server; the first ones may fail, as listening may."""
        kind = self.chance.choice(("plain", "buffered", "streams"))
        while True:
            try:
                return await self.place.serve(
                    lambda: stream_echo(self.run) if kind == "streams" else Echo.of(kind)(self.run)
                )
            except OSError:
                self.outcome["not served"] += 1

    async def converse(self, server: asyncio.Server, number: int, patient: bool = False) -> bool:
        """One client's life. True if it sent and got all its bytes."""
        chance = self.chance
        limit = min(100_000, self.place.fifo_bytes * 20)
        size = min(limit, chance.choice((0, 1, 100, 3000, 10_000, 20_000, 100_000)))
        content = random.Random(number).randbytes(size)
        kind = chance.choice(("plain", "buffered", "streams"))
        try:
            if kind == "streams":
                client = await stream_client(self.run, self.place, server, content)
            else:
                _, client = await self.place.connect(lambda: Client.of(kind)(self.run, content, not patient), server)
                await client.done
        except OSError:
            self.outcome["not connected"] += 1
            return False
        received = bytes(client.received)
        assert content.startswith(received), f"wrong bytes for a {kind} client, {len(received)} of {size}"
        if client.failure is not None:
            assert isinstance(client.failure, OSError), repr(client.failure)
            self.outcome["failed"] += 1
            return False
        if client.aborted:
            self.outcome["aborted by us"] += 1
            return False
        if received != content:
            self.outcome["truncated"] += 1
            return False
        self.outcome["complete"] += 1
        return True


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.0005)
