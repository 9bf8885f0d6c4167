"""Who takes part: loops and floors, what each needs, and how its server is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import native
from benchmarks.native import Unavailable

STREAMS: Final = ("echo-protocol", "echo-buffered", "echo-streams", "echo-sock", "echo-tls")
HTTP: Final = ("http-aiohttp", "http-uvicorn")
SCHEDULING: Final = ("call-soon", "timer")
WORKLOADS: Final = (*STREAMS, "echo-udp", *HTTP, "connect", "idle-memory", *SCHEDULING)


@dataclass(frozen=True)
class Candidate:
    """One way to serve.

    Attributes:
        vpp: its sockets are VPP's.
        module: what has to be installed.
        workloads: what it can do at all; the others are no rows.
    """

    name: str
    vpp: bool = False
    module: str = ""
    workloads: tuple[str, ...] = WORKLOADS

    @property
    def compiled(self) -> bool:
        return self.name.startswith("c-")

    def require(self) -> None:
        """Raise Unavailable if this machine lacks something, apart from VPP itself."""
        if self.module and importlib.util.find_spec(self.module) is None:
            raise Unavailable(f"not installed: pip install {self.module}")
        if self.compiled:
            native.echo_server()
        if self.name == "asyncio-ldp":
            preload_library()

    def version(self) -> str:
        """What the report says about it."""
        if self.module and self.module != "vppaio":
            return importlib.metadata.version(self.module)
        return ""


_FLOOR: Final = ("echo-protocol", "echo-udp", "connect")
# Over the LD_PRELOAD shim the loop is stock asyncio, so only what concerns the network is measured again.
_SHIM: Final = (*STREAMS, *HTTP, "connect")

CANDIDATES: Final = (
    Candidate("asyncio"),
    Candidate("uvloop", module="uvloop"),
    Candidate("rloop", module="rloop"),
    Candidate("aiofastnet", module="aiofastnet"),
    Candidate("vppaio-host", module="vppaio"),
    Candidate("c-host", workloads=_FLOOR),
    Candidate("asyncio-ldp", vpp=True, workloads=_SHIM),
    Candidate("vppaio-vpp", vpp=True, module="vppaio"),
    Candidate("c-vpp", vpp=True, workloads=("echo-protocol", "connect")),
)
NAMES: Final = tuple(candidate.name for candidate in CANDIDATES)


def preload_library() -> str:
    """VPP's LD_PRELOAD shim. Raises Unavailable."""
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        known = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        known = ""
    for line in known.splitlines():
        if line.strip().startswith("libvcl_ldpreload.so"):
            return line.rpartition(" => ")[2]
    raise Unavailable("libvcl_ldpreload.so is not installed (VPP's package vpp)")


def server_command(
    candidate: Candidate, workload: str, address: str, port: int, cpu: int | None, library: str, certificate: str
) -> Sequence[str]:
    """The command line of a server."""
    place = ["--address", address, "--port", str(port), *([] if cpu is None else ["--cpu", str(cpu)])]
    if candidate.compiled:
        table = ["--table", "vpp", "--library", library] if candidate.vpp else ["--table", "host"]
        return [native.echo_server(), *table, *place, *(["--udp"] if workload == "echo-udp" else [])]
    chosen = ["--loop", candidate.name, "--workload", workload]
    tls = ["--certificate", certificate] if workload == "echo-tls" else []
    return [sys.executable, "-m", "benchmarks.servers", *chosen, *place, *tls]


def server_environment(
    candidate: Candidate, app_socket: str, vcl_conf: Path, *, busy_poll_us: int = 0
) -> dict[str, str]:
    """What a server finds in its environment: nothing of VPP unless it is meant for it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("VPPAIO_", "VCL_", "LDP_"))}
    environment["PYTHONPATH"] = str(native.HERE.parent)
    if candidate.name == "vppaio-host":
        environment["VPPAIO_STACK"] = "host"
    if candidate.name == "vppaio-vpp":
        environment |= {"VPPAIO_STACK": "vpp", "VPPAIO_APP_SOCKET": app_socket}
    elif candidate.vpp:
        environment["VCL_CONFIG"] = str(vcl_conf)
    if candidate.name == "asyncio-ldp":
        environment["LD_PRELOAD"] = preload_library()
    if busy_poll_us:
        environment["VPPAIO_BUSY_POLL_US"] = str(busy_poll_us)
    return environment
