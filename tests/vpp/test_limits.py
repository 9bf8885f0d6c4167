"""Descriptors and address space run out, and programs are started: some of `python -m tests.limits`, and more."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path

import pytest

from tests.limits.cases import Case, run
from tests.limits.execs import count_after
from tests.vpp.programs import ECHO, Program, serves
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp

NO_SEGMENT = "beyond: a new segment without a descriptor or memory"


def good(vpp: VppInstance, case: Case) -> list[str]:
    """What the service said; the case has gone as it must."""
    outcome = run(vpp, case)
    assert not outcome.faults, "\n".join([outcome.summary, *outcome.said[-20:]])
    return outcome.said


@pytest.mark.trap("beyond: attaching without descriptors or memory", guard="vppaio/vcl/room.py: require")
@pytest.mark.parametrize("free", [2, 5, 8, 11])
def test_attach_without_descriptors_says_so_and_can_be_tried_again(vpp_instance: VppInstance, free: int) -> None:
    """VCL: SIGSEGV with 5, 6 and 10 of them, and no connection ever with 7 and 8."""
    said = good(vpp_instance, Case("descriptors", "attach", free))
    assert any(f"[Errno {errno.EMFILE}]" in line for line in said), said
    if free >= 5:
        assert any("RLIMIT_NOFILE" in line and "ulimit -n" in line for line in said), said


@pytest.mark.parametrize("free", [100, 300, 800])
def test_attach_without_address_space_says_how_much_is_missing(vpp_instance: VppInstance, free: int) -> None:
    said = good(vpp_instance, Case("memory", "attach", free))
    assert any("MiB are missing of" in line and "RLIMIT_AS" in line for line in said), said


@pytest.mark.trap(NO_SEGMENT, guard="vppaio/vcl/vpp_shortage.c: vpp_look_at_socket")
@pytest.mark.parametrize("free", [0, -100])
def test_new_connections_without_descriptors(vpp_instance: VppInstance, free: int) -> None:
    """VCL: SIGSEGV at the first one. With less than there are, a reserve is of no use, and the worker waits."""
    said = good(vpp_instance, Case("descriptors", "serving", free))
    assert free == 0 or any(f"[Errno {errno.EMFILE}]" in line or "OSError(24" in line for line in said), said


@pytest.mark.parametrize("free", [0, 300, -64])
def test_new_connections_without_address_space_wait_and_open_ones_go_on(vpp_instance: VppInstance, free: int) -> None:
    said = good(vpp_instance, Case("memory", "serving", free))
    assert any("RLIMIT_AS" in line for line in said), said


@pytest.mark.trap("beyond: VPP dies without descriptors", guard="vppaio/vcl/vpp_descriptors.c: vpp_pipe")
@pytest.mark.trap("beyond: VPP is back, and there is no descriptor", guard="vppaio/vcl/vpp_shortage.c: vpp_can_attach")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["descriptors", "memory"])
@pytest.mark.parametrize("free", [0, 1, -5])
def test_vpp_restarts_and_there_is_none(own_vpp: VppInstance, kind: str, free: int) -> None:
    """VCL: exit(1), or descriptor 0 for the one that did not come."""
    good(own_vpp, Case(kind, "restart", free))


# ---- other calls -----------------------------------------------------------------------------------------------------

CALLS = """
import asyncio, errno, json, os, resource, sys, threading, time, vppaio
from vppaio.testing.trouble import mapped
from tests.limits.service import limit

async def connect():
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sys.argv[2], int(sys.argv[3]))
    transport.abort()

async def bind():
    endpoint = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(sys.argv[1], 0))
    endpoint[0].close()

async def listen():
    (await asyncio.get_running_loop().create_server(asyncio.Protocol, sys.argv[1], 0)).close()

async def answer(*calls):
    found = []
    for call in calls:
        try:
            await call()
        except OSError as error:
            found.append([error.errno, str(error)])
        else:
            found.append([0, ""])
    return found

def second_loop():
    found = []
    def run():
        try:
            with asyncio.Runner(loop_factory=vppaio.new_event_loop) as runner:
                runner.get_loop()
                runner.run(bind())
        except OSError as error:
            found.append([error.errno, str(error)])
        else:
            found.append([0, ""])
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found

async def main():
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit("descriptors", 0)
    print(json.dumps(await answer(connect)), flush=True)  # the first call, which attaches
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    await bind()
    # Less than there is already, so that the reserve is of no use.
    for which, low in ((resource.RLIMIT_NOFILE, 3), (resource.RLIMIT_AS, mapped(os.getpid()) - (9 << 20))):
        resource.setrlimit(which, (low, most if which == resource.RLIMIT_NOFILE else -1))
        found = await answer(connect, bind, listen)
        if which == resource.RLIMIT_NOFILE:
            found += second_loop()
        resource.setrlimit(which, (soft, most) if which == resource.RLIMIT_NOFILE else (-1, -1))
        print(json.dumps([found, await answer(connect, bind, listen)]), flush=True)
    print(json.dumps(second_loop()), flush=True)

vppaio.run(main())
"""


def test_connect_bind_listen_and_a_second_loop_say_what_is_missing(vpp_instance: VppInstance) -> None:
    with vpp_instance.kernel_listen() as peer:
        with Program(vpp_instance, CALLS, vpp_instance.kernel_address, peer.getsockname()[1]) as program:
            ((code, text),) = json.loads(program.hears())
            assert (code, "RLIMIT_NOFILE" in text) == (errno.EMFILE, True), text
            refused, then = json.loads(program.hears())
            assert [code for code, _ in refused] == [errno.EMFILE] * 4, refused
            assert [code for code, _ in then] == [0, 0, 0], then
            refused, then = json.loads(program.hears())
            assert [code for code, _ in refused] == [errno.ENOMEM] * 3, refused
            assert all("RLIMIT_AS" in text for _, text in refused), refused
            assert [code for code, _ in then] == [0, 0, 0], then
            assert json.loads(program.hears())[0][0] == 0
            program.ends()


# ---- others that take what there is ----------------------------------------------------------------------------------

THIEVES = (
    ECHO
    + """
# Two threads that take every descriptor there is, and give them back, all the while.
import resource
from vppaio.vcl import library

def take():
    while not stop.is_set():
        taken = []
        try:
            while True:
                taken.append(os.dup(2))
        except OSError:
            pass
        for number in taken:
            os.close(number)

stop = threading.Event()
threads = [threading.Thread(target=take) for _ in range(2)]

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    servers = [await loop.create_server(Echo, address, 4000 + number, backlog=100) for number in range(12)]
    guarded = library.unguarded() == ""
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for thread in threads:
        thread.start()
    print(json.dumps(guarded), flush=True)
    while not os.path.exists(sys.argv[2]):
        await asyncio.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    print("over", flush=True)
    await asyncio.sleep(3600)
vppaio.run(main())
"""
)


@pytest.mark.trap("beyond: another thread takes the descriptor", guard="vppaio/vcl/vpp_segments.c: peek")
def test_threads_that_take_all_descriptors_lose_no_segment(vpp_instance: VppInstance, tmp_path: Path) -> None:
    """What was free when VCL asked may be another's when the kernel looks. Each port's first peer brings a segment."""
    with Program(vpp_instance, THIEVES, tmp_path / "over") as program:
        assert json.loads(program.hears()) is True  # all functions have their stand-ins
        with contextlib.ExitStack() as peers:
            waiting = []
            for number in range(12):
                peer = peers.enter_context(vpp_instance.kernel_connect(vpp_instance.address, 4000 + number))
                peer.sendall(b"%06d" % number)
                waiting.append(peer)
            (tmp_path / "over").touch()
            assert program.hears() == "over"
            for number, peer in enumerate(waiting):
                assert peer.recv(6) == b"%06d" % number
        program.process.terminate()


TWO_LOOPS = (
    ECHO
    + """
import resource
from tests.limits.service import limit

def serve(port):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, address, port)
        ready.set()
        await asyncio.sleep(3600)
    vppaio.run(main())

for port in (4000, 4001):
    ready = threading.Event()
    threading.Thread(target=serve, args=(port,), daemon=True).start()
    ready.wait()
limit("files", 0)
print("limited", flush=True)
sys.stdin.readline()
os._exit(0)
"""
)


@pytest.mark.timeout(60)
def test_two_loops_attach_again_without_a_free_descriptor(own_vpp: VppInstance) -> None:
    """VCL goes on to listen with a worker that VPP did not give back: SIGSEGV."""
    with Program(own_vpp, TWO_LOOPS) as program:
        assert program.hears() == "limited"
        for _ in range(2):
            own_vpp.kill()
            own_vpp.start()
            assert serves(own_vpp, 4000)
            assert serves(own_vpp, 4001)
        program.say("enough")
        assert program.process.wait(10) == 0


# ---- programs --------------------------------------------------------------------------------------------------------

CHILDREN = (
    ECHO
    + """
# Others start programs all the while, which are to get nothing, at no moment.
LIST = '''
import os
there = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
print(*(os.readlink(path) for path in there if os.path.lexists(path)))
'''
stop, found, children = threading.Event(), set(), 0

def start():
    global children
    while not stop.is_set():
        done = subprocess.run([sys.executable, "-I", "-S", "-c", LIST], close_fds=False, capture_output=True, text=True)
        found.update(done.stdout.split())
        children += 1

threads = [threading.Thread(target=start) for _ in range(3)]
for thread in threads:
    thread.start()

async def main():
    server = await asyncio.get_running_loop().create_server(Echo, address, 4000)
    print("serving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    print(json.dumps([children, sorted(found)]), flush=True)
time.sleep(0.2)
vppaio.run(main())
"""
)


@pytest.mark.trap("beyond: programs get VCL's descriptors", guard="vppaio/vcl/vpp_segments.c: peek")
def test_programs_that_are_started_get_nothing_of_vcl(vpp_instance: VppInstance) -> None:
    """With close_fds=False, from other threads, while this one attaches, and while segments come."""
    with Program(vpp_instance, CHILDREN) as program:
        assert program.hears() == "serving"
        for _ in range(3):
            with vpp_instance.kernel_connect(vpp_instance.address, 4000) as peer:
                peer.sendall(b"hello")
                assert peer.recv(5) == b"hello"
        program.say("enough")
        children, found = json.loads(program.hears())
        assert children > 3
        assert not [path for path in found if "memfd" in path or "event" in path], found
        program.ends()


def test_exec_again_and_again_leaves_no_descriptors(vpp_instance: VppInstance) -> None:
    """VCL: four more each time. `python -m tests.limits --execs 100` does it a hundred times."""
    counts = count_after(vpp_instance, 6)
    assert len(set(counts)) == 1, counts
