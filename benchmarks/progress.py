"""A progress bar (rich), or lines where that is not installed."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.results import Row


class Progress:
    """Moves on with each `step`. It draws when it is told to and at no other time: a thread that draws would take
    processor time from a measurement."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._bar: Any = None
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar
        except ImportError:
            return
        columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, description: str) -> None:
        """What begins now."""
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=description)
            self._bar.refresh()
        elif sys.stderr.isatty():
            print(f"{self._done}/{self._total} {description}", file=sys.stderr)
        self._done += 1

    def show(self, row: Row) -> None:
        """A finished row that failed is worth a line at once."""
        if isinstance(row.errors, str):
            line = f"{row.workload} {row.size} {row.connections} {row.candidate}: {row.errors}"
            self._bar.console.print(line, highlight=False) if self._bar else print(line, file=sys.stderr)
