"""VPP dies again and again: what it leaves in the process is taken away, and nothing follows a pointer to it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import pytest

from tests.support.sites import VppSite
from tests.vpp.programs import ECHO, PATIENCE, Program, serves
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp
# Each says how many answers it got since it was asked last, which descriptors it has, and which mappings.
SERVICES = (
    ECHO
    + """
what, peer, port = sys.argv[2], sys.argv[3], int(sys.argv[4])
answers = 0

class Asks(asyncio.DatagramProtocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        self.transport = transport
        transport.sendto(b"first") if isinstance(transport, asyncio.DatagramTransport) else transport.write(b"first")
    def _answered(self):
        global answers
        answers += 1
        asyncio.get_running_loop().call_later(0.02, self._again)
    def _again(self):
        if not self.transport.is_closing():
            self.transport.sendto(b"x") if hasattr(self.transport, "sendto") else self.transport.write(b"x")
    def datagram_received(self, data, address):
        self._answered()
    def data_received(self, data):
        self._answered()
    def connection_lost(self, exc):
        self.lost.set_result(None)

class Answers(Asks):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        global answers
        answers += 1
        self.transport.sendto(data, address)

async def keep(make):
    while True:
        with contextlib.suppress(OSError):
            _, protocol = await make()
            await protocol.lost
        await asyncio.sleep(0.1)

def about():
    global answers
    answered, answers = answers, 0
    fds = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            fds.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
    mappings = [line for line in open("/proc/self/maps") if "/memfd:seg-" in line]
    return json.dumps({"answers": answered, "fds": len(fds), "mappings": len(mappings)})

def fork():  # children have all that their parent had, and outlive any VPP
    parent = os.getpid()
    subprocess.Popen(["tail", f"--pid={parent}", "-f", "/dev/null"], close_fds=False)
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)

async def main():
    loop = asyncio.get_running_loop()
    if what == "tcp":
        await loop.create_server(Echo, address, 4000)
    elif what == "udp":
        asyncio.create_task(keep(lambda: loop.create_datagram_endpoint(Answers, local_addr=(address, 4000))))
        asyncio.create_task(keep(lambda: loop.create_datagram_endpoint(Asks, remote_addr=(peer, port))))
    elif what == "outgoing":
        for _ in range(10):
            asyncio.create_task(keep(lambda: loop.create_connection(Asks, peer, port)))
    elif what == "threads":
        await loop.create_server(Echo, address, 4001)
        async def other():
            await asyncio.get_running_loop().create_server(Echo, address, 4002)
            await asyncio.Event().wait()
        threading.Thread(target=lambda: vppaio.run(other()), daemon=True).start()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line == "fork\\n":
            fork()
        print(about(), flush=True)
vppaio.run(main())
"""
)


def reports(program: Program, wanted: int) -> dict[str, Any]:
    """What it says when it has had that many answers."""
    answers, deadline = 0, time.monotonic() + PATIENCE
    while True:
        program.say("?")
        report: dict[str, Any] = json.loads(program.hears())
        answers += report["answers"]
        if answers >= wanted:
            return report
        assert time.monotonic() < deadline, f"{answers} answers"
        time.sleep(0.1)


@pytest.mark.trap(
    "9: a child that has the app socket when VPP dies", guard="vppaio/vcl/vpp_remains.c: vpp_leave_to_parent"
)
@pytest.mark.trap("11: what VPP leaves when it dies", guard="vppaio/vcl/vpp_remains.c: vpp_drop_remains")
@pytest.mark.timeout(120)
def test_descriptors_and_mappings_stay_as_many_over_restarts(own_vpp: VppInstance) -> None:
    """Servers; datagrams, bound and connected; connections to others; two loops: a process each, all at once.
    Children make no difference, forked or executed."""
    vpp, site = own_vpp, VppSite(own_vpp)
    answering = threading.Event()

    def echo_datagrams() -> None:
        while not answering.is_set():
            with contextlib.suppress(TimeoutError):
                data, sender = datagrams.recvfrom(100)
                datagrams.sendto(data, sender)

    def echo(peer: Any) -> None:
        with contextlib.suppress(OSError):
            while data := peer.recv(100):
                peer.sendall(data)

    with contextlib.ExitStack() as closing:
        server = closing.enter_context(site.serve(echo))
        datagrams = closing.enter_context(site.datagrams())
        datagrams.settimeout(0.1)
        answerer = threading.Thread(target=echo_datagrams)
        answerer.start()
        closing.callback(answerer.join)
        closing.callback(answering.set)
        prober = closing.enter_context(site.datagrams())
        prober.settimeout(0.1)
        programs = {
            what: closing.enter_context(Program(vpp, SERVICES, what, *to))
            for what, to in {
                "tcp": (site.peer_address, 0),
                "udp": (site.peer_address, datagrams.getsockname()[1]),
                "outgoing": server.address,
                "threads": (site.peer_address, 0),
            }.items()
        }
        for program in programs.values():
            assert program.hears() == "ready"

        def all_serve() -> dict[str, dict[str, Any]]:
            assert all(serves(vpp, port) for port in (4000, 4001, 4002))
            deadline = time.monotonic() + PATIENCE
            while True:  # VPP drops datagrams until the service is bound again
                prober.sendto(b"ping", (vpp.address, 4000))
                with contextlib.suppress(TimeoutError):
                    assert prober.recv(100) == b"ping"
                    break
                assert time.monotonic() < deadline
            wanted = {"udp": 3, "outgoing": 30}
            found = {what: reports(program, wanted.get(what, 0)) for what, program in programs.items()}
            return {what: {key: report[key] for key in ("fds", "mappings")} for what, report in found.items()}

        all_serve()
        for what in ("tcp", "udp", "outgoing"):
            programs[what].say("fork")
            programs[what].hears()
        found = []
        for _ in range(4):
            vpp.kill()
            time.sleep(2.5)  # all have noticed: VCL takes a second for each worker
            vpp.start()
            found.append(all_serve())
        assert found[1:] == found[:1] * 3  # the first time VCL makes a pipe for each worker, which stays
        for what, program in programs.items():
            if what != "threads":  # its other loop runs in a daemon thread until the end
                program.ends()


TURNS_SELDOM = (
    ECHO
    + """
served = asyncio.Event()

class Wakes(Echo):
    def data_received(self, data):
        super().data_received(data)
        served.set()

def serve_too():
    async def main():
        await asyncio.get_running_loop().create_server(Echo, address, 4001)
        await asyncio.Event().wait()
    vppaio.run(main())

async def main():
    await asyncio.get_running_loop().create_server(Wakes, address, 4000)
    threading.Thread(target=serve_too, daemon=True).start()
    while True:
        await served.wait()
        served.clear()
        print("in a callback", flush=True)
        if not sys.stdin.readline():  # the loop does not turn
            break
vppaio.run(main())
"""
)


@pytest.mark.trap("11: a worker that does not turn while VPP is restarted", guard="vppaio/vcl/vpp_loss.c: look_for")
@pytest.mark.timeout(120)
def test_loop_that_did_not_turn_comes_along_and_harms_no_other(own_vpp: VppInstance) -> None:
    """It has VCL's first worker: when that heard of the loss too late, it took away the queues of the one that had not
    waited; when it did not hear before the next loss, VCL ended the process."""
    vpp = own_vpp
    with Program(vpp, TURNS_SELDOM) as program, contextlib.ExitStack() as peers:
        for restarts in (1, 2):
            assert serves(vpp, 4000)
            assert program.hears() == "in a callback"
            assert serves(vpp, 4001)  # its loop may have come later
            for port in (4000, 4001):  # sessions that are open when VPP dies
                peers.enter_context(vpp.kernel_connect(vpp.address, port))
            for _ in range(restarts):
                assert serves(vpp, 4001)
                vpp.kill()
                vpp.start()
            assert serves(vpp, 4001)
            program.say("go on")
        assert serves(vpp, 4000)
        assert serves(vpp, 4001)
        assert program.hears() == "in a callback"
        program.ends()


BUSY_THEN = (
    ECHO
    + """
import asyncio
count = int(sys.argv[2])
made = 0

class Counted(Echo):
    def connection_made(self, transport):
        global made
        super().connection_made(transport)
        made += 1

async def main():
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    loop.add_stack_listener(lambda event: lost.set() if event.state == "lost" else None)
    await loop.create_server(Counted, address, 4000, backlog=2000)
    print("serving", flush=True)
    while made < count:
        await asyncio.sleep(0.01)
    print("in a callback", flush=True)
    sys.stdin.readline()
    await lost.wait()
    print("lost", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
vppaio.run(main())
"""
)


@pytest.mark.trap("11: more events than one look takes when VPP is gone", guard="vppaio/vcl/vpp_worker.c: look")
@pytest.mark.trap("7: queued connections when VPP dies", guard="vppaio/vcl/vpp_slots.c: bind_nowhere")
@pytest.mark.timeout(60)
def test_data_and_connections_that_a_busy_loop_finds_together_with_the_loss(own_vpp: VppInstance) -> None:
    """VCL unmapped the FIFOs, and then looked into them for the events beyond the 1024th. And the listener with queued
    connections, which cannot be closed, kept its address when VCL attached again."""
    vpp, count = own_vpp, 1300
    with Program(vpp, BUSY_THEN, count) as program, contextlib.ExitStack() as peers:
        assert program.hears() == "serving"
        connected = [peers.enter_context(vpp.kernel_connect(vpp.address, 4000)) for _ in range(count)]
        assert program.hears() == "in a callback"
        for peer in connected:
            peer.sendall(b"x")
        for _ in range(5):
            peers.enter_context(vpp.kernel_connect(vpp.address, 4000))
        VppSite(vpp).settle()
        vpp.kill()
        program.say("go on")
        assert program.hears() == "lost"
        vpp.start()
        assert serves(vpp, 4000)
        program.ends()


USED_AFTERWARDS = (
    ECHO
    + """
class Asks(Echo):
    def connection_lost(self, exc):
        try:
            self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        except ConnectionResetError:
            print("no size", flush=True)

async def main():
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    loop.add_stack_listener(lambda event: lost.set())
    listener = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 4001))
    listener.listen()
    await loop.create_server(Asks, address, 4000)
    print("serving", flush=True)
    connection, _ = await loop.sock_accept(listener)
    print("accepted", flush=True)
    await lost.wait()
    try:
        await loop.sock_recv(connection, 100)
    except ConnectionResetError:
        print("not watched", flush=True)
    connection.close()
    listener.close()
vppaio.run(main())
"""
)


@pytest.mark.trap("11: joining the epoll set after VPP died", guard="vppaio/vcl/vpp_worker.c: vpp_epoll_ctl")
@pytest.mark.trap("11: asking for a FIFO's size after VPP died", guard="vppaio/vcl/vpp_names.c: vpp_session_get_option")
def test_sessions_that_are_first_used_when_vpp_is_gone(own_vpp: VppInstance) -> None:
    """VCL looked for flags and sizes in FIFOs that it had unmapped."""
    with Program(own_vpp, USED_AFTERWARDS) as program, contextlib.ExitStack() as peers:
        assert program.hears() == "serving"
        for port in (4000, 4001):
            peers.enter_context(own_vpp.kernel_connect(own_vpp.address, port))
        assert program.hears() == "accepted"
        time.sleep(0.1)
        own_vpp.kill()
        assert {program.hears(), program.hears()} == {"no size", "not watched"}
        program.ends()


STARTS_LOOPS = (
    ECHO
    + """
def run():
    async def main():
        await asyncio.get_running_loop().create_server(Echo, address, int(sys.argv[2]) + len(threads))
        await asyncio.Event().wait()
    try:
        vppaio.run(main())
    except OSError as error:
        print(type(error).__name__, flush=True)

threads = []
print("ready", flush=True)
while sys.stdin.readline():
    threads.append(threading.Thread(target=run, daemon=True))
    threads[-1].start()
"""
)


@pytest.mark.trap("9: a worker asked for in the name of a dead application", guard="vppaio/vcl/vpp_loss.c: vpp_is_lost")
@pytest.mark.timeout(120)
def test_loop_that_starts_while_vpp_is_away_or_just_back(own_vpp: VppInstance) -> None:
    """VCL keeps the worker that it did not get: at the second restart after that it ended the process."""
    vpp = own_vpp
    with Program(vpp, STARTS_LOOPS, 4000) as program:
        assert program.hears() == "ready"
        program.say("a loop")
        assert serves(vpp, 4001)
        vpp.kill()
        program.say("a loop, which cannot be")
        assert program.hears() == "ConnectionRefusedError"
        vpp.start()
        program.say("a loop, which may be too early for the first one")
        assert serves(vpp, 4003)
        for _ in range(2):
            vpp.kill()
            vpp.start()
            assert serves(vpp, 4001)
            assert serves(vpp, 4003)


IDLE_LOOP = (
    ECHO
    + """
idle = vppaio.new_event_loop()
idle.run_until_complete(idle.create_server(Echo, address, 4000))

def serve(port):
    async def main():
        await asyncio.get_running_loop().create_server(Echo, address, port)
        print("serving", flush=True)
        await asyncio.Event().wait()
    try:
        vppaio.run(main())
    except OSError as error:
        print(error, flush=True)

for port in (4001, 4002):  # the idle loop has not been told of the restart before the second
    threading.Thread(target=serve, args=[port], daemon=True).start()
    sys.stdin.readline()
"""
)


def test_loop_that_is_not_running_does_not_keep_others_from_a_vpp_that_is_back(own_vpp: VppInstance) -> None:
    """What makes its descriptor readable looked like the end of VPP to who asked for another worker."""
    with Program(own_vpp, IDLE_LOOP) as program:
        assert program.hears() == "serving"
        own_vpp.kill()
        own_vpp.start()
        assert serves(own_vpp, 4001)
        program.say("the other one")
        assert program.hears() == "serving"
        assert serves(own_vpp, 4002)
        program.ends()
