"""Hours in minutes: everything at once, with every byte compared, and memory watched.

    python -m benchmarks.soak --stack vpp --seconds 600 --chart soak.png

One service on vppaio (echo, TLS, UDP, aiohttp; benchmarks.soak_service), and two clients: load.c with distinct messages
for the numbers, and benchmarks.soak_client on the kernel's side for the mix: TLS, HTTP, datagrams, connects,
half-finished transfers and aborts. Each second the service tells its memory. The run is good if no answer was wrong,
nobody died, and the memory after the warm-up (a fifth of the time) stays flat.

With `--trouble SEED` the service's limits (descriptors, address space) go down and up at random meanwhile, and VPP
stops, crawls, or is killed and started again (see vppaio.testing.trouble). Then connections may fail, at either end,
and what arrives must be right all the same. load.c is an application of VPP's itself and does not outlive it, so the
mix is all there is then.

That is the service's own memory and VCL's heap. What it shares with VPP grows for some minutes and then stays (85.1 MiB
after 170 s, 85.4 after 230): the ring of its control messages, 8 MiB, is touched once around, and a listener's segment
keeps the most that its connections had at once (224 to 391 in VPP, which has those that end, for 71 here), since freed
chunks of FIFOs wait for the next ones and no page goes back to the kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks import native
from benchmarks.run import Failed, Server, last_line
from benchmarks.scale import Place, place_of
from vppaio.config import Config
from vppaio.testing.trouble import Trouble, kinds_here
from vppaio.vcl import library, probe, vclconf

CONNECTIONS: Final = 64
MESSAGE: Final = 256  # bytes
LONGEST_S: Final = 4.0  # of a piece of trouble, and between two
SPARE_MIB: Final = 32  # for Python's own memory, when address space is short
# What the service's exception handler may hear in trouble.
OF_TROUBLE: Final = ("socket.accept() out of system resource", "Error on transport creation", "SSL handshake failed")
CHUNK_S: Final = 30.0  # of one run of load.c; it comes and goes as applications do
WARM_UP: Final = 0.2  # of the time
WATCHED: Final = {
    "rss_mib": "resident memory of the service",
    "shared_mib": "shared with VPP (FIFOs touched so far)",
    "heap_mib": "VCL heap in use",
    "vpp_mib": "VPP's memory",
}
FLAT: Final = 0.02  # of the memory
FLAT_MIB: Final = 2.0  # a page cache, a dictionary that grows once


class Load(threading.Thread):
    """Runs load.c again and again; not at all in trouble."""

    def __init__(self, place: Place, program: str, port: int, seconds: float, folder: Path) -> None:
        super().__init__(daemon=True)
        self.until = time.monotonic() + seconds
        self.operations = 0
        self.failure = ""
        self._command = [program, "--mode", "echo", "--address", place.address, "--port", str(port), "--verify"]
        self._command += ["--connections", str(CONNECTIONS), "--size", str(MESSAGE), "--warmup", "0.1"]
        self._command += ["--table", place.stack]
        self._environment = dict(os.environ)
        if place.vpp:
            found = library.load(probe.app_socket(place.vpp.app_socket).release)
            conf = folder / "load.conf"
            conf.write_text(vclconf.own(Config(stack="vpp", app_socket=place.vpp.app_socket), cut_through=True))
            self._command += ["--library", found.path]
            self._environment["VCL_CONFIG"] = str(conf)

    def run(self) -> None:
        while (left := self.until - time.monotonic()) > 1:
            seconds = min(CHUNK_S, left)
            command = [*self._command, "--seconds", f"{seconds:.1f}"]
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
            if done.returncode:
                self.failure = last_line(done.stderr) or f"load.c ended with {done.returncode}"
                return
            result = json.loads(done.stdout)
            self.operations += int(result["operations"])
            if result["errors"]:
                self.failure = f"load.c counted {result['errors']} errors"
                return


class Samples:
    """What the service said of itself, by second."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def take(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def after_warm_up(self, name: str) -> list[float]:
        return [row[name] for row in self.rows[int(len(self.rows) * WARM_UP) :]]

    def drift(self, name: str) -> tuple[float, float]:
        """Medians of the first and last quarter behind the warm-up."""
        values = self.after_warm_up(name)
        quarter = max(len(values) // 4, 1)
        return statistics.median(values[:quarter]), statistics.median(values[-quarter:])

    def is_flat(self, name: str) -> bool:
        first, last = self.drift(name)
        return abs(last - first) <= max(FLAT * first, FLAT_MIB)


def chart(samples: Samples, path: str, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds = [row["seconds"] for row in samples.rows]
    figure, (memory, rate) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6))
    for name, label in WATCHED.items():
        if any(row[name] for row in samples.rows):
            memory.plot(seconds, [row[name] for row in samples.rows], label=label)
    memory.set_ylabel("memory, MiB")
    memory.set_ylim(bottom=0)
    memory.legend()
    rate.plot(seconds, [row["rate"] / 1e3 for row in samples.rows])
    rate.set_ylabel("messages, k/s")
    rate.set_xlabel("seconds")
    rate.set_ylim(bottom=0)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def soak(o: argparse.Namespace, folder: Path) -> bool:
    """One run; prints as it goes. Returns whether it was good."""
    program = native.load_generator().path
    with place_of(o.stack, None) as place, contextlib.ExitStack() as last:
        ports = {name: str(7101 + i) for i, name in enumerate(("echo", "tls", "udp", "http"))}
        arguments = [word for name, port in ports.items() for word in (f"--{name}", port)]
        arguments += ["--address", place.address, "--certificate", str(folder / "certificate.pem")]
        make_certificate(folder / "certificate.pem")
        service = Server(
            [sys.executable, "-m", "benchmarks.soak_service", *arguments], place.environment, folder / "service.log"
        )
        last.callback(service.stop)
        mix = Server(
            place.client(
                [sys.executable, "-m", "benchmarks.soak_client", *arguments, *(["--trouble"] * (o.trouble is not None))]
            ),
            dict(os.environ),
            folder / "mix.log",
        )
        last.callback(mix.stop)
        load = Load(place, program, int(ports["echo"]), 0 if o.trouble is not None else o.seconds, folder)
        load.start()
        trouble = None
        if o.trouble is not None:
            trouble = Trouble(
                place.vpp, service.process.pid, o.trouble, kinds_here(), longest=LONGEST_S, spare=SPARE_MIB
            )
            last.enter_context(trouble)
        samples, began, latest = Samples(), time.monotonic(), {"mixed": 0, "wrong": []}
        before = (began, 0)
        failure = ""
        told: dict[str, Any] = {}
        while time.monotonic() - began < o.seconds and not failure:
            time.sleep(1.0)
            service.say("?")
            told = json.loads(service.next_line(60))
            mix.say("?")
            latest = json.loads(mix.next_line(60))
            now = time.monotonic()
            messages = told["messages"]
            row = {"seconds": now - began, "rate": (messages - before[1]) / (now - before[0])}
            before = (now, messages)
            row |= {"vpp_mib": 0.0} | {name: told[name] for name in ("rss_mib", "shared_mib", "heap_mib", "sessions")}
            with contextlib.suppress(OSError):  # it may be down
                row["vpp_mib"] = place.resident_mib() if place.vpp else 0.0
            samples.take(row)
            complaints = [text for text in told["errors"] if trouble is None or not text.startswith(OF_TROUBLE)]
            failure = load.failure or "; ".join(latest["wrong"][:3]) or "; ".join(complaints[:3])
            if len(samples.rows) % o.every == 0:
                print(
                    f"{row['seconds']:6.0f} s  {row['rate'] / 1e3:7.1f} k messages/s  service {row['rss_mib']:7.1f} MiB"
                    f"  VCL heap {row['heap_mib']:6.2f} MiB  VPP {row['vpp_mib']:7.1f} MiB"
                    f"  {row['sessions']:4.0f} sessions  {latest['mixed']} mixed",
                    flush=True,
                )
        load.join(CHUNK_S + 20)
        failure = failure or load.failure
        if trouble is not None:
            trouble.end()
            print(f"trouble: {dict(trouble.counts)}; the service reported {Counter(told['errors']).most_common(5)}")
        if place.vpp and place.vpp.crashed():
            failure = f"VPP crashed: {place.vpp.log_tail()}"
    verdict(samples, load.operations, latest, failure)
    if o.chart:
        chart(samples, o.chart, f"soak on {o.stack}: {before[1] / 1e6:.1f} million messages")
    return not failure and all(samples.is_flat(name) for name in ("rss_mib", "heap_mib"))


def verdict(samples: Samples, operations: int, latest: dict[str, Any], failure: str) -> None:
    print(f"load.c: {operations} echoes with distinct content, compared")
    print(f"mixed: {latest['mixed']} {latest.get('kinds', '')}")
    for name, what in WATCHED.items():
        first, last = samples.drift(name)
        if last:
            word = "flat" if samples.is_flat(name) else "NOT FLAT"
            print(f"{what}: {first:.2f} MiB after the warm-up, {last:.2f} MiB at the end: {word}")
    print(f"FAILED: {failure}" if failure else "no content error")


def make_certificate(path: Path) -> None:
    import trustme

    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Everything at once, for long.")
    parser.add_argument("--stack", choices=("host", "vpp"), default="vpp")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=int, default=10, help="seconds between two lines")
    parser.add_argument("--trouble", type=int, metavar="SEED", help="limits, stops and deaths of VPP, on VPP only")
    parser.add_argument("--chart", help="PNG file for memory and rate; needs matplotlib")
    o = parser.parse_args()
    if o.trouble is not None and o.stack != "vpp":
        parser.error("--trouble: on VPP only")
    try:
        with tempfile.TemporaryDirectory(prefix="vppaio-soak-") as folder:
            return 0 if soak(o, Path(folder)) else 1
    except (Failed, native.Unavailable, RuntimeError) as reason:
        print(f"soak: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
