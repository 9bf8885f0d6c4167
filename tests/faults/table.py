"""faults.c from Python: a table of operations around another one that makes trouble from a seed."""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("faults.c")
HEADERS: Final = Path(__file__).parents[2] / "vppaio" / "vcl"
# In the order of the enum in faults.c.
KINDS: Final = (
    "short read",
    "short write",
    "read again",
    "write again",
    "reset",
    "delay",
    "duplicate",
    "connect fails",
    "no memory",
    "no descriptor",
    "aborted",
    "in use",
)


@functools.cache
def library() -> ctypes.CDLL:
    """faults.c, compiled now. Called with the GIL, which is what serialises the calls on a worker."""
    folder = Path(tempfile.mkdtemp(prefix="vppaio-faults-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}"]
    subprocess.run([shutil.which("cc") or "gcc", *flags, "-o", str(path), str(SOURCE)], check=True)
    loaded = ctypes.PyDLL(str(path))
    loaded.faults_table.argtypes = [ctypes.c_size_t, ctypes.c_uint64, ctypes.POINTER(ctypes.c_double)]
    loaded.faults_table.restype = ctypes.c_size_t
    loaded.faults_count.restype = ctypes.c_uint64
    return loaded


class Faults:
    """Trouble around the table at address `inner`; the last one made is the one that counts.

    Args:
        rates: probability of each kind, per opportunity; a kind that is not named never happens.

    Attributes:
        address: of the table that makes the trouble.
    """

    def __init__(self, inner: int, seed: int, rates: dict[str, float]) -> None:
        assert rates.keys() <= set(KINDS), rates
        chances = (ctypes.c_double * len(KINDS))(*(rates.get(kind, 0.0) for kind in KINDS))
        self.address: int = library().faults_table(inner, seed, chances)

    def end(self) -> None:
        """No new trouble; what was held back still comes."""
        library().faults_end()

    def lose(self, polls: int) -> None:
        """The stack is lost, with all its sessions, and comes back after so many looks at it."""
        library().faults_lose(polls)

    @property
    def open_sessions(self) -> int:
        """Sessions of the stack that nobody has closed."""
        return int(library().faults_open())

    def counts(self) -> dict[str, int]:
        """What has happened so far."""
        return {kind: n for i, kind in enumerate(KINDS) if (n := library().faults_count(i))}
