"""Many connections: how busy ones fare beside thousands of idle ones, and whether the idle ones stay alive.

    python -m benchmarks.scale --stack host|vpp|both --idle 20000 --busy 100

The server is benchmarks.servers' echo protocol on vppaio, the clients are the kernel's: on loopback for the host stack,
over a veth pair for VPP, so these are TCP connections there. Measured are the busy ones alone, then beside the idle
ones, then alone again; an idle connection is alive if it echoes after all that. The settings are `Config`'s defaults,
unless VPPAIO_... variables say otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import native
from benchmarks.memory import own_kib
from benchmarks.run import Failed, Server, free_port, last_line

SPARE_DESCRIPTORS: Final = 64  # what a server has open besides its connections
PER_HOLDER: Final = 10000  # idle connections of one client process
WARMUP_S: Final = 0.5
CONNECT_LIMIT_S: Final = 120.0


def allow_descriptors(connections: int) -> None:
    """Raise the limit of this process and of those it starts. Raises Failed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = connections + SPARE_DESCRIPTORS
    if soft < number:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(hard, number)))
        except (ValueError, OSError):
            raise Failed(
                f"{number} descriptors are needed and {hard} allowed (`ulimit -Hn`): that is enough for "
                f"{hard - SPARE_DESCRIPTORS} connections"
            ) from None


class Place:
    """Where the server is and how its clients reach it."""

    def __init__(self, stack: str, vpp: Any) -> None:
        self.stack = stack
        self.vpp = vpp
        self.address = vpp.address if vpp else "127.0.0.1"
        self.environment = dict(os.environ) | {"VPPAIO_STACK": stack}
        if vpp:
            self.environment |= {"VPPAIO_APP_SOCKET": vpp.app_socket}

    def client(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.vpp.namespace, *command] if self.vpp else command

    def resident_mib(self) -> float:
        """VPP's own memory, FIFOs included."""
        pages = int(Path(f"/proc/{self.vpp.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / (1 << 20)


@contextlib.contextmanager
def place_of(stack: str, cpu: int | None) -> Iterator[Place]:
    if stack == "host":
        yield Place(stack, None)
        return
    from vppaio.testing.vppinstance import VppInstance

    with VppInstance(main_core=cpu) as vpp:
        yield Place(stack, vpp)


def load(place: Place, program: str, port: int, o: argparse.Namespace, cpu: int | None) -> dict[str, float]:
    """The busy ones, for one round."""
    command = [program, "--table", "host", "--mode", "echo", "--address", place.address, "--port", str(port)]
    command += ["--connections", str(o.busy), "--warmup", str(WARMUP_S), "--seconds", str(o.seconds)]
    command += ["--cpu", str(cpu)] if cpu is not None else []
    done = subprocess.run(place.client(command), capture_output=True, text=True, timeout=o.seconds + CONNECT_LIMIT_S)
    if done.returncode:
        raise Failed(f"load: {last_line(done.stderr)}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(when: str, rounds: list[dict[str, float]]) -> None:
    def median(name: str) -> float:
        return statistics.median(r[name] for r in rounds)

    spread = " ".join(f"{r['p99_us']:.0f}" for r in rounds)
    print(
        f"  {when:<28} p50 {median('p50_us'):7.0f} us  p99 {median('p99_us'):7.0f} us (rounds: {spread})"
        f"  {median('rate') / 1e3:6.1f} k/s  errors {sum(r['errors'] for r in rounds):.0f}",
        flush=True,
    )


def measure(stack: str, o: argparse.Namespace, folder: Path, program: str) -> bool:
    """One stack; prints as it goes. Returns whether every idle connection was alive at the end."""
    cpus = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    with place_of(stack, client_cpu) as place, contextlib.ExitStack() as last:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.servers", "--loop", f"vppaio-{stack}"]
        command += ["--workload", "echo-protocol", "--address", place.address, "--port", str(port)]
        command += ["--cpu", str(server_cpu)] if server_cpu is not None else []
        server = Server(command, place.environment, folder / f"{stack}-server.log")
        last.callback(server.stop)

        print(f"{stack}: {o.busy} busy connections, 64-byte echo, {o.rounds} rounds of {o.seconds:g} s", flush=True)
        alone = [load(place, program, port, o, client_cpu) for _ in range(o.rounds)]
        report("alone", alone)
        server_before, vpp_before = own_kib(server.process.pid), place.resident_mib() if place.vpp else 0.0

        began = time.monotonic()
        holders = []
        for first in range(0, o.idle, PER_HOLDER):
            command = [sys.executable, "-m", "benchmarks.hold", "--address", place.address, "--port", str(port)]
            holder = Server(
                place.client([*command, "--connections", str(min(PER_HOLDER, o.idle - first))]),
                dict(os.environ),
                folder / f"{stack}-holder-{first}.log",
                limit_s=CONNECT_LIMIT_S,
            )
            last.callback(holder.stop)
            holders.append(holder)
        print(f"  {o.idle} idle ones stand after {time.monotonic() - began:.1f} s", end="", flush=True)
        print(f"; server +{(own_kib(server.process.pid) - server_before) / o.idle:.2f} KiB each", end="")
        print(f", VPP +{(place.resident_mib() - vpp_before) * 1024 / o.idle:.2f} KiB each" if place.vpp else "")
        beside = [load(place, program, port, o, client_cpu) for _ in range(o.rounds)]
        report(f"beside {o.idle} idle ones", beside)

        alive = 0
        for holder in holders:
            holder.say("echo")
            alive += int(holder.next_line(CONNECT_LIMIT_S))
            holder.stop()
        print(f"  alive at the end: {alive} of {o.idle} idle ones", flush=True)
        time.sleep(1.0)
        report("alone again", [load(place, program, port, o, client_cpu) for _ in range(o.rounds)])
        return alive == o.idle and not any(r["errors"] for r in beside)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Many connections.")
    parser.add_argument("--stack", choices=("host", "vpp", "both"), default="both")
    parser.add_argument("--idle", type=int, default=20000)
    parser.add_argument("--busy", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    try:
        if o.stack != "vpp":
            allow_descriptors(o.idle + o.busy)
        program = native.load_generator().path
        with tempfile.TemporaryDirectory(prefix="vppaio-scale-") as folder:
            stacks = ("host", "vpp") if o.stack == "both" else (o.stack,)
            good = [measure(stack, o, Path(folder), program) for stack in stacks]
    except (Failed, native.Unavailable, RuntimeError) as reason:
        print(f"scale: {reason}", file=sys.stderr)
        return 1
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
