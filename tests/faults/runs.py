"""Many runs: which seed goes where, and which ones have failed before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from tests.faults.places import AdoptingPlace, FakePlace, HostPlace, LimitedPlace, Place, VppPlace
from vppaio.testing.vppinstance import VppInstance

_CONNECT: Final = "epoll_ctl without memory: the session of a connect waited for ever as an orphan nobody could tell"
_TRANSPORT: Final = "epoll_ctl without memory: the session of a transport that could not be made stayed open"
_LISTENER: Final = "epoll_ctl without memory: a listener's descriptor was closed twice, by then another connection's"
# (stack, seed): what it found. Seeds that failed for the same reason are kept too: they fail in another way next time.
REGRESSIONS: Final[dict[tuple[str, int], str]] = {
    **{("fake", seed): _CONNECT for seed in (10, 20, 38, 78, 103, 111, 146, 147, 154, 167, 208, 217, 261, 262, 265)},
    **{("fake", seed): _CONNECT for seed in (276, 287, 307, 343, 373, 383, 401, 429, 435, 457, 460, 477, 500, 521)},
    **{("fake", seed): _CONNECT for seed in (548, 562, 563, 575)},
    **{("host", seed): _TRANSPORT for seed in (15, 31, 51, 69, 71, 131, 135, 147, 159, 181, 185, 211, 215, 239, 273)},
    **{("host", seed): _TRANSPORT for seed in (307, 351, 363, 383, 477, 509, 521, 535, 575)},
    **{("host", seed): _CONNECT for seed in (18, 78, 84, 128, 130, 146, 190, 284, 314, 334, 336, 366, 432, 444, 458)},
    **{("host", seed): _CONNECT for seed in (548, 562, 594)},
    ("vpp", 23): _CONNECT,
    ("vpp", 122): _CONNECT,
    ("host", 21): _LISTENER,
    ("host", 263): _LISTENER,
    (
        "fake",
        21,
    ): "a transport that could not be made left its server, which it had never joined, when it was collected",
    ("fake", 19): "a listener on a stack that was lost did not bind again where port 0 is no trap",
    ("fake", 24): "EOF was not seen after an EAGAIN that came behind the hang-up",
    ("fake", 5544): "a FIN that was read before it was told cleared the mask again, and a backlog waited for ever",
    ("fake", 2343): "a stack lost and back while events waited for their turn: nobody noticed that it had been away",
    ("fake", 66589): "a stack lost and back while events waited for their turn: nobody noticed that it had been away",
    ("fake", 602): "the trouble itself: an EAGAIN made up before the first real one hid a FIN",
}


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
            vpp = vpp or closing.enter_context(VppInstance())
            on_vpp = LimitedPlace(vpp) if stack == "limits" else VppPlace(vpp)
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
