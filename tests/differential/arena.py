"""Compares: one sequence on asyncio's loop and on ours, and what is left of it when it is shortened."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from tests.differential.operations import Sequence, sequence, spelled
from tests.differential.places import Place, VppPlace, host, stock
from tests.differential.player import STALLED, Entry, Player, describe
from tests.differential.tls import TlsPlayer, over_tls, tls_places
from vppaio.testing.vppinstance import VppInstance

CALM: Final = (1, 5, 20)  # a disagreement counts if it is still there when packets get this much more time


class Disagreement(NamedTuple):
    sequence: Sequence
    expected: list[list[Entry]]
    seen: list[list[Entry]]

    def __str__(self) -> str:
        return "\n".join([spelled(self.sequence), *describe(self.sequence, self.expected, self.seen)])


class Arena:
    """asyncio's loop beside ours on one stack; a context manager.

    Args:
        stack: "host" or "vpp".
        rules: what this stack cannot do (player.Rule).
        vpp: a running VPP, for the stack of that name.
        tls: the engine, for connections over TLS.
    """

    def __init__(
        self, stack: str, rules: frozenset[str] = frozenset(), vpp: VppInstance | None = None, tls: str = ""
    ) -> None:
        self.rules = rules
        self.make_player = TlsPlayer if tls else Player
        self.generate = (lambda chance: over_tls(sequence(chance))) if tls else sequence
        self.reference: Place
        self.place: Place
        if tls:
            self.reference, self.place = tls_places(stack, tls, vpp)
        elif stack == "host":
            self.reference = stock()
            self.place = host()
        else:
            assert vpp is not None
            self.reference = stock()
            self.place = VppPlace(vpp)
        self.agreed = 0
        self.verbose = False  # show them
        self.repeated = 0  # because of a disagreement that was only a matter of time

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *_: object) -> None:
        self.reference.close()
        self.place.close()

    def compare(
        self, candidate: Sequence, calm: tuple[float, ...] = CALM, patience: float = STALLED
    ) -> Disagreement | None:
        """Play it on both; None if they agree at the first try or, with more time, at a later one."""
        doubts: list[Disagreement] = []
        for factor in calm:
            player: Player = self.make_player(self.reference, candidate, self.rules)
            expected = self.reference.loop.run_until_complete(player.play())
            player = self.make_player(self.place, candidate, self.rules, factor)
            seen = self.place.loop.run_until_complete(player.play(expected, patience))
            if seen == expected:
                self.agreed += 1
                self.repeated += len(doubts)
                if self.verbose and doubts:
                    print(*(f"\nonly with more time:\n{doubt}" for doubt in doubts), sep="", flush=True)
                return None
            doubts.append(Disagreement(candidate, expected, seen))
        return doubts[-1]

    def compare_seed(self, seed: int) -> Disagreement | None:
        return self.compare(self.generate(random.Random(seed)))

    def shortened(self, found: Disagreement) -> Disagreement:
        """The same disagreement with fewer steps and operations."""
        progress = True
        while progress:
            progress = False
            for shorter in _shorter(found.sequence):
                if (smaller := self.compare(shorter, (3,), 0.3)) is not None:
                    found, progress = smaller, True
                    break
        return found


def _shorter(long: Sequence) -> list[Sequence]:
    """Candidates, the boldest cuts first."""
    steps = long.steps
    cuts = []
    size = max(len(steps) // 2, 1)
    while size:
        cuts += [steps[:at] + steps[at + size :] for at in range(0, len(steps), size)]
        size //= 2
    for at, step in enumerate(steps):
        for drop in range(len(step.operations) if len(step.operations) > 1 else 0):
            fewer = step._replace(operations=step.operations[:drop] + step.operations[drop + 1 :])
            cuts.append((*steps[:at], fewer, *steps[at + 1 :]))
    shorter = [long._replace(steps=cut) for cut in cuts]
    opening = long.opening
    for name in ("on_socket", "connection_made", "connected"):
        done = getattr(opening, name)
        fewer = [{name: done[:drop] + done[drop + 1 :]} for drop in range(len(done))]
        shorter += [long._replace(opening=opening._replace(**change)) for change in fewer]
    if opening.greeting:
        shorter.append(long._replace(opening=opening._replace(greeting=0)))
    return shorter
