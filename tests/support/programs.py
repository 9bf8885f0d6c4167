"""Servers in processes of their own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Self

from tests.support.sites import PATIENCE, Site


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    stack: Site, port: int, *command: str, end: signal.Signals = signal.SIGINT, **options: Any
) -> Iterator[None]:
    """`python COMMAND` from when it listens on `port`; it has to end in order on signal `end`."""
    with stack.python(*command, stderr=subprocess.STDOUT, **options) as process:
        try:
            deadline = time.monotonic() + PATIENCE * 2
            while True:
                with contextlib.suppress(OSError):
                    stack.connect(port, 1).close()
                    break
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < deadline, f"{command[1]} does not listen"
                time.sleep(0.05)
            yield
            process.send_signal(end)
            assert process.wait(PATIENCE) in (0, -end)
        finally:
            process.kill()


class Service:
    """Python code in a process of its own, with vppaio on the stack; it prints the port it serves on.

    Args:
        arguments: of the program, behind the address to serve on.
        options: of subprocess.Popen.
    """

    port: int

    def __init__(self, stack: Site, code: str, *arguments: str, **options: Any) -> None:
        self.stack = stack
        self.process = stack.python("-c", code, stack.address, *arguments, **options)

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
