"""Places where VPP should be, made for a test: a stub of libvppcom, and a process on an app socket."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("libvppcom.c")
ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def stub(release: str = "26.06", *defines: str) -> str:
    """Path of a stub that calls itself libvppcom of `release`; see libvppcom.c for what it does."""
    folder = Path(tempfile.mkdtemp(prefix="vppaio-stub-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / f"libvppcom.so.{release}"
    compiler = shutil.which("cc") or "gcc"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        *(f"-D{name}" for name in defines),
        "-o",
        str(path),
        str(SOURCE),
    ]
    subprocess.run(command, check=True)
    return str(path)


_LISTENER = """
import mmap, socket, sys
path, library, command_line = sys.argv[1:4]
if library:
    with open(library, "rb") as file:
        kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    cli = socket.socket(socket.AF_UNIX)
    cli.bind(command_line)
    cli.listen()
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(64)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def silent_vpp(path: Path, release: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that listens on app socket `path` and never answers; from outside it looks like VPP `release`."""
    library = ""
    if release:
        library = str(path.parent / f"libvnet.so.{release}")
        Path(library).write_bytes(b"\x7fELF")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-c", _LISTENER, str(path), library, str(path.parent.parent / "cli.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without settings of vppaio and VCL, and with the package within reach."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VPPAIO_", "VCL_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own: libvppcom is once per process."""
    environment = clean_environment(**variables)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
