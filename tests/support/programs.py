"""A server's own command line in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

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
