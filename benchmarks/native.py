"""The two C programs, compiled when they are first needed and after a change.

They are no part of the package: who installs vppaio needs no compiler for them, and who benchmarks needs one anyway.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
TABLES: Final = HERE.parent / "vppaio" / "vcl"
BUILD: Final = HERE / "build"  # git ignores it
_SHARED: Final = sorted(TABLES.glob("*.c"))


class Unavailable(Exception):
    """Cannot be had on this machine; the text is a row's explanation."""


@dataclass(frozen=True)
class Program:
    path: str
    tls: bool


def load_generator() -> Program:
    """Path of load, with TLS if OpenSSL's headers are installed.

    Raises:
        Unavailable: no compiler, or it refused.
    """
    try:
        return Program(_build("load", "load-tls", ["-DWITH_TLS"], ["-lssl", "-lcrypto"]), True)
    except Unavailable:
        return Program(_build("load", "load", [], []), False)


def echo_server() -> str:
    """Path of echo. Raises Unavailable."""
    return _build("echo", "echo", [], [])


def _build(source: str, name: str, flags: list[str], libraries: list[str]) -> str:
    target = BUILD / name
    sources = [HERE / f"{source}.c", *_SHARED]
    newest = max(path.stat().st_mtime for path in (*HERE.glob("*.[ch]"), *TABLES.glob("*.[ch]")))
    if target.exists() and target.stat().st_mtime > newest:
        return str(target)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("no C compiler (cc) for the load generator")
    BUILD.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-g", "-Wall", "-Wextra", *flags, f"-I{TABLES}", f"-I{HERE}", "-o", str(target)]
    done = subprocess.run(
        [*command, *map(str, sources), *libraries, "-ldl"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{source}.c does not compile: {done.stderr.strip().splitlines()[:1]}")
    return str(target)
