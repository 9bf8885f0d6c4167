"""vppaio in a process of its own beside a VPP that a test stops, kills and starts again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Final

from tests.support.sites import ROOT
from vppaio.testing.vppinstance import VppInstance

PATIENCE: Final = 20.0  # seconds


class Program:
    """Python code in a process of its own; it speaks in lines."""

    def __init__(self, vpp: VppInstance, code: str, *arguments: object, **settings: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "VPPAIO_APP_SOCKET": vpp.app_socket, "VPPAIO_STACK": "vpp"}
        environment |= settings
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, vpp.address, *map(str, arguments)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)

    def hears(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the program ended with status {self.process.wait(PATIENCE)}"
        return line.rstrip("\n")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ends(self) -> None:
        """It leaves in order when it hears no more."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0


def serves(vpp: VppInstance, port: int) -> bool:
    """Whether an echo comes back from there, within some seconds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), vpp.kernel_connect(vpp.address, port, timeout=1) as peer:
            peer.sendall(b"are you there?")
            if peer.recv(100):
                return True
        time.sleep(0.05)
    return False


ECHO = """
import asyncio, contextlib, json, os, socket, subprocess, sys, threading, time, vppaio

address = sys.argv[1]

from tests.support.protocols import Echo
"""
