"""The service under limits: an echo server on several ports of VPP's. `python -m tests.limits.service ADDRESS [FREE]`.

FREE, such as "descriptors=3" or "memory=100", is what it leaves itself before it attaches; it then tries until it can.
SIGUSR1 has it open files until each descriptor below the highest is taken, SIGUSR2 closes them.
It speaks on stdout, a line for each thing that happens. Its stdin is a file, which nobody may write to.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sys
import time
from typing import Any, Final

import vppaio
from tests.support.protocols import Echo
from vppaio.testing.trouble import limit_with_free, mapped

PORTS: Final = (4000, 4001, 4002, 4003)  # the first connection of each brings a segment
_MIB: Final = 1 << 20
fillers: list[int] = []


def say(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


async def main(address: str) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_complaint)
    waiting = list(PORTS)
    while waiting:
        try:
            await loop.create_server(Echo, address, waiting[0], backlog=100)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENOMEM):
                raise
            say("refused", type(error).__name__, error)
            await asyncio.sleep(0.1)
        else:
            del waiting[0]
    loop.add_signal_handler(signal.SIGUSR1, lambda: (fill_holes(), say("filled")))
    loop.add_signal_handler(signal.SIGUSR2, close_fillers)
    say("serving")
    await asyncio.Event().wait()


def on_complaint(_loop: Any, context: dict[str, Any]) -> None:
    say("complaint", repr(context.get("exception") or context["message"]))


def limit(what: str, free: int) -> None:
    """Leave this process so many descriptors, or MiB."""
    if what == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (mapped(os.getpid()) + free * _MIB, most(resource.RLIMIT_AS)))
    else:
        if what == "files":
            fill_holes()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_with_free(os.getpid(), free), most(resource.RLIMIT_NOFILE)))


def most(kind: int) -> int:
    return resource.getrlimit(kind)[1]


def fill_holes() -> None:
    """Open files until no number below the highest is left."""
    highest = limit_with_free(os.getpid(), -1)
    while (number := os.open(os.devnull, os.O_RDONLY)) < highest:
        fillers.append(number)
    os.close(number)


def close_fillers() -> None:
    while fillers:
        os.close(fillers.pop())


def run(arguments: list[str]) -> None:
    address = arguments[0]
    if arguments[1:]:
        what, free = arguments[1].split("=")
        limit(what, int(free))
    say("limited")
    while True:
        try:
            vppaio.run(main(address))
        except (OSError, RuntimeError, MemoryError) as error:
            say("refused", type(error).__name__, error)
            time.sleep(0.1)


if __name__ == "__main__":
    run(sys.argv[1:])
