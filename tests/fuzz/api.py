"""Sequences of random calls and faults, each from its seed; what must hold afterwards.

A sequence is one to three loops, one after the other, with some tens of calls on each (tests/fuzz/calls.py) and, where
the stack can die, its death and its return among them. Some leave in order, some leave all open. However it went:

- the process lives, and no sequence takes longer than its limit;
- what was closed in order leaves no session, and a loop that is closed has none;
- nothing failed inside in a way that is a mistake of ours, as an IndexError is;
- a new loop serves: an echo goes there and back (on VPP, once it is there again);
- the process ends by itself.

`run` plays sequences in this process. `fuzz` forks processes that do, and says which seed one died of.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import faulthandler
import gc
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import vppaio
from tests.fuzz.calls import Player
from tests.fuzz.places import Fake, HostPlace, OnVpp, Place
from vppaio.reactor.session import Session
from vppaio.testing.vppinstance import VppInstance

MISTAKES: Final = (
    SystemError, NameError, LookupError, AssertionError, ArithmeticError, RecursionError, AttributeError, BufferError,
    MemoryError, NotImplementedError,
)  # fmt: skip
ALLOWED: Final = ("of the protocol", "'TransportSocket' object")  # begins of what mistakes say that are none
DEATHS: Final = 0.06  # of sequences, about
PATIENCE_S: Final = 30.0  # of a step that must end
HANGS_S: Final = 90.0  # without a new seed: a restart of VPP and its patience are in it
PER_PROCESS: Final = {"fake": 500, "host": 1000, "vpp": 100}


class Finding(Exception):
    """What must hold did not."""


# ---- one sequence -----------------------------------------------------------------------------------------------


class Sequence:
    """One seed's.

    Args:
        old: what earlier sequences of this process have left, for this one to be tried with.
    """

    def __init__(self, place: Place, seed: str, outcome: collections.Counter[str]) -> None:
        self.place, self.seed, self.outcome = place, seed, outcome
        self.rng = random.Random(seed)
        self.old: list[Any] = []
        self.trace: list[str] = []
        self.mistakes: list[str] = []
        self.dies = place.can_die and self.rng.random() < DEATHS

    def failed(self, exc: Exception, is_odd: bool) -> None:
        self.outcome[type(exc).__name__] += 1
        frames = traceback.extract_tb(exc.__traceback__)
        last = frames[-1].filename if frames else ""
        ours = last.startswith((f"{Path(vppaio.__file__).parent}/", "vppaio/"))  # compiled modules say the latter
        tolerated = is_odd and isinstance(exc, (AttributeError, LookupError, MemoryError))
        named = isinstance(exc, NotImplementedError) and str(exc)
        tolerated = tolerated or isinstance(exc, OverflowError)  # as socket has it
        if ours and isinstance(exc, MISTAKES) and not tolerated and not named and not str(exc).startswith(ALLOWED):
            self.mistakes.append("".join(traceback.format_exception(exc)))

    def complained(self, _loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        self.outcome["complaints"] += 1
        if isinstance(exc, Exception):
            self.failed(exc, is_odd=False)

    def play(self) -> None:
        with self.place.sequence(self.seed, self.rng):
            for _ in range(self.rng.choice((1, 1, 2, 3))):
                self.one_loop()
            if self.dies:
                self.place.revive()
            self.serves()
        if self.mistakes:
            raise Finding(f"{len(self.mistakes)} mistakes\n{self.mistakes[0]}")

    def one_loop(self) -> None:
        loop: Any = vppaio.new_event_loop(self.rng.choice(self.place.configs()))
        loop.set_exception_handler(self.complained)
        loop._poller.retry_lost_ns = 5_000_000
        in_order = self.rng.random() < 0.5
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self.calls(loop, in_order))
        except TimeoutError:
            raise Finding(f"calls did not end in {PATIENCE_S} s") from None
        finally:
            with contextlib.suppress(Exception):
                if in_order:
                    loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            asyncio.set_event_loop(None)
        left = _sessions(loop)
        if left:
            raise Finding(f"{left} sessions of a loop that is closed")

    async def calls(self, loop: Any, in_order: bool) -> None:
        player = Player(self.rng, self.place, self.old, self.trace, self.failed)
        count = self.rng.choice((5, 20, 40, 60))
        deaths = {self.rng.randrange(count): self.rng.choice(("kill", "pause")) for _ in range(2)} if self.dies else {}
        away = 0
        try:
            for number in range(count):
                async with asyncio.timeout(PATIENCE_S):
                    await player.call()
                if (fault := deaths.get(number)) is not None:
                    self.trace.append(fault.upper())
                    self.outcome[fault] += 1
                    away = self.rng.choice((0, 3, 10))
                    self.place.kill() if fault == "kill" else self.place.pause(0.1)
                elif away:
                    away -= 1
                    if not away:
                        self.trace.append("REVIVE")
                        await asyncio.to_thread(self.place.revive)
            if in_order:
                await self.leave(loop, player)
        finally:
            for peer in player.peers:
                peer.close()
            self.old = [*player.sockets, *player.transports, *player.servers, *player.streams][:20]

    async def leave(self, loop: Any, player: Player) -> None:
        """Everything is closed, and then gone."""
        self.trace.append("LEAVE")
        await player.leave()
        await asyncio.to_thread(self.place.revive)
        for task in asyncio.all_tasks(loop) - {asyncio.current_task()}:
            task.cancel()
        until = time.monotonic() + PATIENCE_S / 2
        while _sessions(loop):
            await asyncio.sleep(0.001)
            if self.rng.random() < 0.05:
                await player.leave(at_once=True)  # of what came meanwhile, too
                gc.collect()  # what nobody has closes itself
            if time.monotonic() > until:
                raise Finding(f"not closed: {_owners()}, {loop.statistics()['stacks']}")

    # ---- afterwards ---------------------------------------------------------------------------------------------

    def serves(self) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            if self.place.name == "fake":
                loop._poller.retry_lost_ns = 1_000_000
            server = await loop.create_server(_Echo, self.place.address, 0)
            port = server.sockets[0].getsockname()[1]
            peer = self.place.peer()
            if peer is None:
                reader, writer = await asyncio.open_connection(self.place.address, port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                writer.close()
            else:
                await asyncio.get_running_loop().run_in_executor(None, _talks, peer, (self.place.address, port))
            server.close()

        # The stack may be lost, or back, and this loop the first that hears of it.
        for tries_left in reversed(range(10)):
            try:
                vppaio.run(asyncio.wait_for(main(), PATIENCE_S), config=self.place.configs()[0])
                return
            except (OSError, AssertionError, TimeoutError) as exc:
                if not tries_left or isinstance(exc, TimeoutError):
                    raise Finding(f"does not serve: {exc!r}") from exc
                time.sleep(0.05 * (10 - tries_left))


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def _talks(peer: socket.socket, address: tuple[str, int]) -> None:
    with peer:
        peer.settimeout(5)
        peer.connect(address)
        peer.sendall(b"hello")
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"


def _owners() -> list[Any]:
    return [thing.owner for thing in gc.get_objects() if isinstance(thing, Session) and not thing.closed]


def _sessions(loop: Any) -> int:
    return sum(int(stack["sessions"]) for stack in loop.statistics()["stacks"].values())


# ---- many -------------------------------------------------------------------------------------------------------


def run(place: Place, seed: int, first: int, count: int, at: Callable[[int], None], say: Callable[[str], None]) -> None:
    """Sequences `first` and on, in this process; `say` hears of findings, and at the end of what happened."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    outcome: collections.Counter[str] = collections.Counter()
    descriptors = 0
    for number in range(first, first + count):
        at(number)
        sequence = Sequence(place, f"{seed}:{number}", outcome)
        try:
            sequence.play()
        except Finding as finding:
            say(f"finding {number} {finding}\n  {' '.join(sequence.trace)}")
        except Exception:
            say(f"finding {number} {traceback.format_exc()}\n  {' '.join(sequence.trace)}")
        if number % 50 == 49:
            gc.collect()
            now = len(os.listdir("/proc/self/fd"))
            if descriptors and now > descriptors + 40:
                say(f"finding {number} descriptors grow: {descriptors} to {now}")
            descriptors = descriptors or now
    say("outcome " + ", ".join(f"{what}: {n}" for what, n in sorted(outcome.items())))


class Parent:
    """Forks processes that play; each has `PER_PROCESS` sequences, or fewer if it dies."""

    def __init__(self, stack: str, seed: int, vpp: VppInstance | None) -> None:
        self.stack, self.seed, self.vpp = stack, seed, vpp
        self.findings: list[str] = []
        self.deaths = 0
        self.played = 0

    def fork(self, first: int, count: int, closing: contextlib.ExitStack) -> int:
        """Play in a child; returns the number of the next sequence."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            closing.pop_all()  # the VPP is the parent's
            ours.close()
            self._child(theirs, first, count)
        theirs.close()
        with ours:
            return self._watch(pid, ours, first, count)

    def _child(self, parent: socket.socket, first: int, count: int) -> None:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        lock = threading.Lock()

        def send(word: str) -> None:
            parent.send(word.encode()[:60000])

        def ask(word: str) -> None:
            with lock:
                send(word)
                if parent.recv(100) != b"done":
                    os._exit(3)

        place: Place
        if self.stack == "vpp":
            assert self.vpp is not None
            place = OnVpp(self.vpp, ask)
        else:
            place = HostPlace() if self.stack == "host" else Fake()
        run(place, self.seed, first, count, lambda number: send(f"at {number}"), send)
        send("end")
        raise SystemExit(0)  # with all exit handlers

    def _watch(self, pid: int, child: socket.socket, first: int, count: int) -> int:
        number, ended = first, False
        heard = time.monotonic()
        while True:
            readable, _, _ = select.select([child], [], [], 1)
            if readable:
                word = child.recv(65536).decode()
                if not word:
                    break
                if word.startswith("at "):
                    number, heard = int(word[3:]), time.monotonic()
                    self.played += 1
                elif word.startswith("finding "):
                    _, which, what = word.split(" ", 2)
                    self.report(int(which), what)
                elif word.startswith("outcome "):
                    print(f"  {word[8:]}", flush=True)
                elif word == "end":
                    ended, heard = True, time.monotonic()
                else:
                    self._serve(word)
                    child.send(b"done")
            if time.monotonic() - heard > (15 if ended else HANGS_S):
                self.report(number, "the process does not end" if ended else "hangs", pid)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return number + 1
        _, status = os.waitpid(pid, 0)
        if status:
            self.report(
                number, f"the process ended with {os.waitstatus_to_exitcode(status)} {'at exit' if ended else ''}"
            )
        self._serve("revive")
        return first + count if ended else number + 1

    def _serve(self, word: str) -> None:
        """What a child may ask of VPP's keeper."""
        if self.vpp is None:
            return
        if word == "kill":
            self.deaths += 1
            self.vpp.kill()
        elif word == "revive":
            if self.vpp.crashed():
                self.report(-1, f"VPP died: {self.vpp.log_tail()}")
            if not self.vpp.alive():
                self.vpp.start()
        elif word.startswith("continue "):
            _, pid, seconds = word.split()
            threading.Timer(float(seconds), _continue, (int(pid),)).start()

    def report(self, number: int, what: str, pid: int = 0) -> None:
        repeat = f"python -m tests.fuzz api --stack {self.stack} --seed {self.seed} --first {number} --seeds 1"
        text = f"FINDING {self.stack}, sequence {number}: {what}\n  {repeat}"
        if pid:
            os.kill(pid, signal.SIGUSR1)
            command = ["gdb", "-p", str(pid), "-batch", "-ex", "bt 30"]
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run(command, capture_output=True, text=True, timeout=30)
                text += "\n" + "\n".join(line for line in done.stdout.splitlines() if line.startswith("#"))
        self.findings.append(text)
        print(text, flush=True)


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def fuzz(stack: str, seed: int, first: int, seeds: int | None, seconds: float) -> int:
    """Returns how many findings there were."""
    began = time.monotonic()
    with contextlib.ExitStack() as closing:
        vpp = closing.enter_context(VppInstance()) if stack == "vpp" else None
        parent = Parent(stack, seed, vpp)
        number, said = first, began
        while parent.played < seeds if seeds is not None else time.monotonic() - began < seconds:
            count = PER_PROCESS[stack] if seeds is None else min(PER_PROCESS[stack], first + seeds - number)
            if count <= 0:
                break
            number = parent.fork(number, count, closing)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(
                    f"api: {parent.played} sequences, {parent.deaths} deaths, {len(parent.findings)} findings",
                    flush=True,
                )
    print(
        f"api on {stack}, seed {seed}: {parent.played} sequences from {first}, {parent.deaths} deaths of VPP, "
        f"{time.monotonic() - began:.0f} s, findings: {len(parent.findings) or 'none'}"
    )
    return len(parent.findings)
