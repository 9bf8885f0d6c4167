"""Many runs: which seed goes where, and which ones have failed before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from tests.faults.places import AdoptingPlace, FakePlace, HostPlace, Place, VppPlace
from tests.vppinstance import VppInstance

# (stack, seed): what it found.
REGRESSIONS: Final[dict[tuple[str, int], str]] = {}


@contextlib.contextmanager
def places(stack: str, vpp: VppInstance | None = None) -> Iterator[Callable[[int], Place]]:
    """Which place each seed is for; `vpp` is a running one, else one is started."""
    with contextlib.ExitStack() as closing:
        if stack == "fake":
            fake = FakePlace()
            yield lambda seed: fake
        elif stack == "host":
            host = (HostPlace(), AdoptingPlace())
            yield lambda seed: host[seed % 2]
        else:
            on_vpp = VppPlace(vpp or closing.enter_context(VppInstance()))
            yield lambda seed: on_vpp


@contextlib.contextmanager
def progress(path: str | None) -> Iterator[Callable[[int], object]]:
    """Note the seed at hand in a file, for whoever has to say where a process died."""
    if path is None:
        yield lambda seed: None
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        yield lambda seed: os.pwrite(fd, f"{seed:<20}".encode(), 0)
    finally:
        os.close(fd)
