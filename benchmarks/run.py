"""Measure: servers on one core, load and VPP on another, candidates taking turns.

A `Bench` holds what lives as long as a run: VPP, the load generator, a certificate. The servers of a workload live as
long as its cases: all of them are there all the time, idle but for the one whose turn it is, so a round costs no starts
and every round meets the same processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import candidates, memory, native, plan
from benchmarks.candidates import HTTP, SCHEDULING, Candidate
from benchmarks.native import Unavailable
from benchmarks.plan import Case
from benchmarks.results import Measurement, Row, row_of

START_LIMIT_S: Final = 20.0
CONNECT_LIMIT_S: Final = 20.0
DISTURBED: Final = 0.06  # processors; the kernel's own housekeeping stays below


class Failed(Exception):
    """A server or the load generator gave up; says why in one line."""


def free_port() -> int:
    """A port that nobody has, on the kernel's stack; VPP, which is ours alone, has it too."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A process under test, from start to its end."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        log: Path,
        ready: str = "ready",
        limit_s: float = START_LIMIT_S,
    ) -> None:
        self.port = 0
        self._log = log
        self._python = command[0] == sys.executable  # the C programs end with their stdin
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.wait_for(ready, limit_s)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def wait_for(self, word: str, limit_s: float = START_LIMIT_S) -> None:
        """Read lines until `word`; a process that ends instead has failed."""
        while self.next_line(limit_s, f"did not say {word!r}") != word:
            pass

    def next_line(self, limit_s: float, complaint: str = "said nothing") -> str:
        """What it says next; a process that ends instead has failed."""
        assert self.process.stdout is not None
        limit = time.monotonic() + limit_s
        os.set_blocking(self.process.stdout.fileno(), False)
        while time.monotonic() < limit:
            if line := self.process.stdout.readline().strip():
                return line
            if self.process.poll() is not None:
                raise Failed(f"server ended with status {self.process.returncode}: {self.last_words()}")
            time.sleep(0.005)
        self.stop()
        raise Failed(f"server {complaint} within {limit_s:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        return last_line(self._log.read_text(errors="replace"))

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        if self._python:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


class Bench:
    """A run's surroundings; a context manager.

    Args:
        seconds: measured interval of each round.
        warmup: before it, not measured.
        with_vpp: start a VPP; without one, candidates on VPP are rows that say why.
        patience: seconds to repeat a round in which other processes kept a processor busy.
    """

    def __init__(self, *, seconds: float, warmup: float, with_vpp: bool, patience: float = 0) -> None:
        self.patience = patience
        self.seconds = seconds
        self.warmup = warmup
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu = cpus[0] if len(cpus) > 1 else None
        self.load_cpu = cpus[1] if len(cpus) > 1 else None
        self.vpp: Any = None
        self.no_vpp = "not asked for"
        self.library = self.release = self.server_conf_text = ""
        self._with_vpp = with_vpp
        self._stack = contextlib.ExitStack()
        self._servers: dict[tuple[str, str, str], Server] = {}

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vppaio-bench-")))
            if self.load_cpu is not None:
                # The harness itself stays away from the server's core.
                os.sched_setaffinity(0, {self.load_cpu})
            self.load = native.load_generator()
            if self._with_vpp:
                self._start_vpp(stack)
            stack.callback(self.stop_servers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_vpp(self, stack: contextlib.ExitStack) -> None:
        from vppaio.config import Config
        from vppaio.testing.vppinstance import VppInstance
        from vppaio.vcl import library, probe, vclconf
        from vppaio.vcl.errors import Unusable

        if reason := VppInstance.unavailable():
            self.no_vpp = reason
            return
        try:
            self.vpp = stack.enter_context(VppInstance(main_core=self.load_cpu))
            config = Config(stack="vpp", app_socket=self.vpp.app_socket)
            found = library.load(probe.app_socket(self.vpp.app_socket).release)
        except (RuntimeError, Unusable) as error:
            self.vpp = None
            self.no_vpp = last_line(str(error))
            return
        self.library = found.path
        self.release = found.release
        # The client asks for cut-through sessions; a server needs no more than to be found.
        self.client_conf = self.folder / "client.conf"
        self.server_conf = self.folder / "server.conf"
        self.client_conf.write_text(vclconf.own(config, cut_through=True))
        self.server_conf_text = vclconf.own(config)
        self.server_conf.write_text(self.server_conf_text)

    # ---- servers -----------------------------------------------------------------------------------------------

    def certificate(self) -> str:
        """A PEM file with key and certificate. Raises Unavailable."""
        path = self.folder / "certificate.pem"
        if not path.exists():
            try:
                import trustme
            except ImportError:
                raise Unavailable("not installed: pip install trustme (for the certificate)") from None
            trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def require(self, candidate: Candidate) -> None:
        candidate.require()
        if candidate.vpp and self.vpp is None:
            raise Unavailable(self.no_vpp)

    def address(self, candidate: Candidate) -> str:
        return str(self.vpp.address) if candidate.vpp else "127.0.0.1"

    def server(self, candidate: Candidate, case: Case) -> tuple[Server, int]:
        """The running server for a case and its port, started at first use."""
        variant = case.variant if case.variant == plan.BUSY_POLL else ""
        key = (candidate.name, case.workload, variant)
        if key not in self._servers:
            self.require(candidate)
            port = free_port()
            tls = self.certificate() if case.workload == "echo-tls" else ""
            command = candidates.server_command(
                candidate, case.workload, self.address(candidate), port, self.server_cpu, self.library, tls
            )
            server = Server(
                command,
                self.environment(candidate, plan.BUSY_POLL_US if variant else 0),
                self.folder / f"{candidate.name}-{case.workload}-{port}.log",
            )
            server.port = port
            self._servers[key] = server
        server = self._servers[key]
        return server, server.port

    def environment(self, candidate: Candidate, busy_poll_us: int = 0) -> dict[str, str]:
        return candidates.server_environment(
            candidate,
            self.vpp.app_socket if self.vpp else "",
            self.server_conf if self.vpp else Path(),
            busy_poll_us=busy_poll_us,
        )

    def stop_servers(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()

    # ---- one measurement ---------------------------------------------------------------------------------------

    def measure(self, case: Case, candidate: Candidate) -> Measurement:
        """One round of one row: the first one that nobody disturbed, or, out of patience, the least disturbed.

        Raises:
            Unavailable, Failed
        """
        self.require(candidate)
        limit = time.monotonic() + self.patience
        best = self._measure(case, candidate)
        while best.get("others", 0) > DISTURBED and time.monotonic() < limit:
            time.sleep(0.2)
            best = min(best, self._measure(case, candidate), key=lambda m: m["others"])
        return best

    def _measure(self, case: Case, candidate: Candidate) -> Measurement:
        if case.workload in SCHEDULING:
            return self._scheduling(case, candidate)
        if case.workload == "idle-memory":
            return memory.measure(self, case, candidate)
        server, port = self.server(candidate, case)
        return self._load(case, candidate, server, port)

    def _scheduling(self, case: Case, candidate: Candidate) -> Measurement:
        cpu = [] if self.server_cpu is None else ["--cpu", str(self.server_cpu)]
        chosen = ["--loop", candidate.name, "--workload", case.workload]
        timing = ["--seconds", str(self.seconds), "--warmup", str(self.warmup)]
        command = [sys.executable, "-m", "benchmarks.scheduling", *chosen, *timing, *cpu]
        return self._run(command, self.environment(candidate))

    def _load(self, case: Case, candidate: Candidate, server: Server, port: int) -> Measurement:
        if case.workload == "echo-tls" and not self.load.tls:
            raise Unavailable("the load generator was built without TLS: OpenSSL's headers are missing")
        through_veth = candidate.vpp and case.workload == "echo-udp"
        table = "vpp" if candidate.vpp and not through_veth else "host"
        command = [self.load.path, "--table", table, "--mode", _mode(case)]
        command += ["--address", self.address(candidate), "--port", str(port)]
        command += ["--connections", str(case.connections), "--size", str(case.size)]
        command += ["--warmup", str(self.warmup), "--seconds", str(self.seconds)]
        command += ["--server-pid", str(server.process.pid)]
        if self.load_cpu is not None:
            command += ["--cpu", str(self.load_cpu)]
        if case.workload == "echo-tls":
            command += ["--tls"]
        environment = dict(os.environ)
        if candidate.vpp:
            command += ["--vpp-pid", str(self.vpp.pid), "--library", self.library]
            environment["VCL_CONFIG"] = str(self.client_conf)
        try:
            return self._run(command, environment, inside=through_veth)
        except Failed:
            if server.process.poll() is not None:
                raise Failed(f"server ended with status {server.process.returncode}: {server.last_words()}") from None
            raise

    def _run(self, command: Sequence[str], environment: dict[str, str], *, inside: bool = False) -> Measurement:
        run: Callable[..., Any] = self.vpp.run if inside else subprocess.run
        limit = self.warmup + self.seconds + CONNECT_LIMIT_S
        try:
            done = run(command, env=environment, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"no result within {limit:.0f} s") from None
        if done.returncode:
            raise Failed(f"{Path(command[0]).name}: {last_line(done.stderr) or done.returncode}")
        result: Measurement = json.loads(done.stdout)
        if not result["operations"]:
            raise Failed("no operation was completed")
        return result


def _mode(case: Case) -> str:
    if case.workload in HTTP:
        return "http-close" if case.variant == plan.NEW_CONNECTION else "http"
    return {"connect": "connect", "echo-udp": "udp"}.get(case.workload, "echo")


def take_turns(
    bench: Bench,
    cases: Sequence[Case],
    chosen: Sequence[Candidate],
    rounds: int,
    step: Callable[[str], None],
    limit_s: float | None = None,
    wanted: Callable[[Case], Container[str]] | None = None,
) -> Iterator[Row]:
    """Measure every case; rows come as soon as their case is complete.

    Args:
        step: called before each measurement with its description.
        limit_s: leave out later rounds where this much time would not suffice for all cases.
        wanted: names of the candidates to measure in a case; None: all that suit it.
    """
    began = time.monotonic()
    workload = ""
    for number, case in enumerate(cases):
        if case.workload != workload:
            bench.stop_servers()
            workload = case.workload
        fitting = [c for c in chosen if case.suits(c) and (wanted is None or c.name in wanted(case))]
        measured: dict[str, list[Measurement]] = {candidate.name: [] for candidate in fitting}
        failures: dict[str, str] = {}
        for turn in range(rounds):
            late = limit_s is not None and time.monotonic() - began > limit_s * (number + 0.7) / len(cases)
            # There and back, so that nobody always comes after the same one.
            for candidate in fitting if turn % 2 == 0 else fitting[::-1]:
                step(f"{case.label}: {candidate.name}")
                if candidate.name in failures or (turn and late):
                    continue
                try:
                    measured[candidate.name].append(bench.measure(case, candidate))
                except (Unavailable, Failed) as reason:
                    failures[candidate.name] = str(reason)
        for candidate in fitting:
            yield row_of(case, candidate, measured[candidate.name], failures.get(candidate.name, ""))
    bench.stop_servers()
