"""idle-memory: what a connection costs that nobody uses, both ends together.

Two processes of the same loop, a server and a client, before and after `connections` connections. Counted is the
proportional set size (Pss), which divides memory shared with others, such as VPP's FIFOs, among those who have touched
it. What the kernel keeps for its sockets, and VPP for its sessions, is in neither.
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


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


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
        before = pss_kib(server.process.pid) + pss_kib(client.process.pid)
        client.say("go")
        client.wait_for("ready")
        time.sleep(SETTLE_S)
        after = pss_kib(server.process.pid) + pss_kib(client.process.pid)
    finally:
        client.stop()
    return {"operations": case.connections, "rate": (after - before) / case.connections, "errors": 0}
