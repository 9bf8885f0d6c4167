"""The process that runs a program: vppaio's loop, an orderly end on SIGTERM, tracebacks with its frames only."""

from __future__ import annotations

import asyncio
import runpy
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

import vppaio
from vppaio import config, routes, settings
from vppaio.cli.options import reason
from vppaio.vcl import application


def install_loop() -> None:
    """Make vppaio's the loop of whatever this process runs next, and the process fit for it."""
    vppaio.install()
    sys.excepthook = _print_exception
    # SIGTERM, left alone, ends the process on the spot: VPP is not told, drops its connections late, and 26.06 may even
    # die of it (see vcl.application). Services under systemd get it whenever they are stopped.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends us at once
    if not application.is_attached():
        signal.raise_signal(number)
    application.end_by_signal(number)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise SystemExit(128 + number) from None
    # From a callback of its own, for a task that happens to run now would take it for a failure of its own.
    loop.call_soon_threadsafe(sys.exit, 128 + number)


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shorten tracebacks to what `python program.py` would show, and those of wrong settings to their text."""
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    if frames and frames[-1].f_globals.get("__name__") in _ABOUT_SETTINGS:
        print(f"vppaio: {reason(error)}", file=sys.stderr)
        return
    while trace and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


_HERE: Final = Path(__file__).parent
_ABOUT_SETTINGS: Final = tuple(module.__name__ for module in (application, config, routes, settings))
_OURS: Final = {*map(str, _HERE.glob("*.py")), str(_HERE.with_name("__main__.py")), "<frozen runpy>", runpy.__file__}
