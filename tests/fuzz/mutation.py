"""Inputs from inputs: the corpus, changed at random, the same for the same seed.

A corpus file is text, or, where its name ends in .hex, bytes in hexadecimal digits with white space wherever it helps.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
INTERESTING: Final = (0, 1, 127, 128, 255)


def corpus(target: str) -> list[bytes]:
    """All inputs of a target, in the order of their names."""
    return [read(path) for path in sorted((CORPUS / target).iterdir())]


def read(path: Path) -> bytes:
    data = path.read_bytes()
    return bytes.fromhex(data.decode()) if path.suffix == ".hex" else data


def mutate(rng: random.Random, seeds: list[bytes], most: int = 70_000) -> bytes:
    """One of `seeds` after a few changes; at most `most` bytes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        _change(rng, data, seeds)
    return bytes(data[:most])


def _change(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    at = rng.randint(0, len(data))
    length = rng.choice((1, 1, 2, 4, 16, 256, 4096))
    match rng.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[at % len(data)] = rng.choice(INTERESTING)
        case 2:
            data[at:at] = rng.randbytes(length)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 16))
        case 5:
            other = rng.choice(seeds)
            cut = rng.randint(0, len(other))
            data[at:] = other[cut:]
        case 6:
            del data[at:]
        case _:
            data[at : at + length] = bytes([rng.choice(INTERESTING)]) * min(length, len(data) - at)
