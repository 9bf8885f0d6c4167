"""idle-memory: what a connection costs that nobody uses, both ends together.

Two processes of the same loop, a server and a client, before and after `connections` connections. Counted is what is
the processes' own (private pages). What a stack keeps for a connection is in nobody's figure: neither the kernel's
sockets nor VPP's sessions and FIFOs, which are memory shared with VPP.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import candidates, plan
from benchmarks.candidates import Candidate
from benchmarks.plan import Case
from benchmarks.results import Measurement

if TYPE_CHECKING:
    from benchmarks.run import Bench

SETTLE_S: Final = 0.3
WARM_UP: Final = 10  # connections made before the first look: imports, first buffers, first segments


def own_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def measure(bench: Bench, case: Case, candidate: Candidate) -> Measurement:
    """One pair of processes, one figure: `rate` is KiB per connection."""
    from benchmarks.run import Server

    tls = case.variant == plan.TLS
    workload = "echo-tls" if tls else "echo-protocol"
    server, port = bench.server(candidate, Case(workload))
    environment = bench.environment(candidate)
    if candidate.name == "vppaio-vpp":
        # Its vcl.conf asks for cut-through sessions, the only ones between two applications of one VPP.
        environment |= {"VPPAIO_VCL_CONFIG": str(bench.client_conf)}
        del environment["VPPAIO_APP_SOCKET"]
    command = candidates.server_command(
        candidate, "idle-memory", bench.address(candidate), port, bench.load_cpu, bench.library, ""
    )
    command = [*command, "--connections", str(case.connections), "--warm-up", str(WARM_UP), *(["--tls"] if tls else [])]
    client = Server(command, environment, bench.folder / f"{candidate.name}-client.log", "started")
    try:
        before = own_kib(server.process.pid) + own_kib(client.process.pid)
        client.say("go")
        client.wait_for("ready")
        time.sleep(SETTLE_S)
        after = own_kib(server.process.pid) + own_kib(client.process.pid)
    finally:
        client.stop()
    return {"operations": case.connections, "rate": (after - before) / case.connections, "errors": 0}
