"""Beginnings and ends: connections, servers, loops and processes come and go, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import threading
import time
from typing import Any

import pytest

import vppaio
from tests.support.connections import ask, echo_server
from tests.support.programs import Service
from tests.support.protocols import Echo
from tests.support.sites import (
    PATIENCE,
    Site,
    VppSite,
    descriptors,
    eventually,
    in_thread,
    no_sessions,
    port_of,
    receive_all,
    sessions,
)

CONNECTIONS = 2000


class Footprint:
    """What this process holds now: descriptors, and kilobytes of memory, its own and what it shares with VPP."""

    def __init__(self) -> None:
        gc.collect()
        self.descriptors = descriptors()
        with open("/proc/self/status") as status:
            sizes = dict(line.split(":") for line in status)
        self.own = int(sizes["RssAnon"].split()[0])
        self.shared = int(sizes["RssShmem"].split()[0])

    def check_same(self, *, shared: int) -> None:
        """Compare with now. The memory shared with VPP may have grown, by the pages of the event queues too, which are
        touched while these turn for the first time: about 1 kB a connection, over some 15,000 of them."""
        now = Footprint()
        assert now.descriptors == self.descriptors
        assert now.own - self.own < 512
        assert now.shared - self.shared < shared


def sessions_of_vpp(stack: Site) -> int:
    """What VPP itself has, whoever it belongs to; TIME_WAIT counts."""
    if not isinstance(stack, VppSite):
        return 0
    return sum(map(int, re.findall(r"Thread \d+: (\d+) sessions", stack.vpp.ctl("show session"))))


def wait_until_vpp_has_at_most(stack: Site, sessions: int) -> None:
    deadline = time.monotonic() + 25
    while sessions_of_vpp(stack) > sessions:
        assert time.monotonic() < deadline, sessions_of_vpp(stack)
        time.sleep(0.2)


# ---- connections -----------------------------------------------------------------------------------------------------


def test_2000_connections_to_a_server_leave_nothing_behind(stack: Site) -> None:
    async def main() -> None:
        server = await echo_server(stack)
        port = port_of(server)

        def clients(count: int) -> None:
            for _ in range(count):
                assert ask(stack, port) == b"hello"

        async with server:
            await in_thread(clients, CONNECTIONS // 4)  # warm-up
            await no_sessions(at_most=1)
            before = Footprint()
            await in_thread(clients, CONNECTIONS)
            await no_sessions(at_most=1)
            before.check_same(shared=3072)

    stack.run(main, timeout=50)


def test_2000_connections_from_a_client_leave_nothing_behind(stack: Site) -> None:
    def echo(peer: socket.socket) -> None:
        peer.sendall(receive_all(peer))

    async def client(address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        listener = stack.listen()

        def serve_one_by_one() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as peer:
                        echo(peer)

        server = threading.Thread(target=serve_one_by_one)
        server.start()

        async def clients() -> None:
            for _ in range(CONNECTIONS):
                await client(listener.getsockname())
            await no_sessions()

        try:
            others = sessions_of_vpp(stack)
            await clients()
            before = Footprint()
            # VPP closed first, so it keeps each connection for the 10 s of TIME_WAIT, with a page for either FIFO. Then
            # they are gone, and the next batch finds room in what the first one had: 2000 more pairs would be 16 MB.
            await in_thread(wait_until_vpp_has_at_most, stack, others)
            await clients()
            before.check_same(shared=3072)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
            listener.close()

    stack.run(main, timeout=50)


def test_200_connections_that_are_reset_leave_nothing_behind(stack: Site) -> None:
    async def main() -> None:
        server = await echo_server(stack)

        def resets() -> None:
            for n in range(200):
                peer = stack.connect(port_of(server))
                peer.sendall(b"x" * (n % 3))
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()

        async with server:
            await in_thread(resets)
            await no_sessions(at_most=1)

    stack.run(main)


@pytest.mark.trap("8: closing a session that connects", guard="vppaio/vcl/vpp_slots.c: vpp_collect_owed")
def test_200_connects_given_up_leave_nothing_behind(stack: Site) -> None:
    """Cancelled or timed out, in turns. On VPP the sessions wait for the answer, which comes when the peer refuses."""

    async def give_up(address: tuple[str, int], late: bool) -> None:
        connecting = asyncio.get_running_loop().create_connection(asyncio.Protocol, *address)
        if late:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connecting, 0.05)
        else:
            task = asyncio.ensure_future(connecting)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def main() -> None:
        before = Footprint()
        with stack.silence() as address:
            await asyncio.gather(*(give_up(address, late=n % 2 == 0) for n in range(200)))
            if stack.name == "host":
                assert sessions() == 0
            else:
                assert sessions() <= 200
        await no_sessions()
        assert Footprint().descriptors == before.descriptors

    stack.run(main)


# ---- servers ---------------------------------------------------------------------------------------------------------
@pytest.mark.trap("7: closing a listener with queued connections", guard="vppaio/vcl/vpp_slots.c: close_listener")
def test_closing_a_server_refuses_who_was_not_accepted(stack: Site) -> None:
    async def main() -> None:
        for _ in range(5):
            server = await echo_server(stack)
            port = port_of(server)
            # Here, not in a thread: the loop does not turn, so nobody is accepted.
            peers = [stack.connect(port) for _ in range(20)]
            stack.settle()
            server.close()
            await server.wait_closed()
            for peer in peers:
                with peer, contextlib.suppress(ConnectionResetError):
                    assert await in_thread(peer.recv, 1) == b""

    stack.run(main)


@pytest.mark.trap(
    "7: listening soon after closing a listener", guard="vppaio/vcl/vpp_worker.c: vpp_settle_closed_listeners"
)
def test_server_reopens_on_its_port_50_times_under_connects(stack: Site) -> None:
    async def main() -> None:
        server = await echo_server(stack)
        port = port_of(server)
        stop = threading.Event()
        served = [0]

        def connect() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    with stack.connect(port, timeout=0.5) as peer:
                        peer.sendall(b"x")
                        served[0] += peer.recv(1) == b"x"

        clients = [asyncio.create_task(in_thread(connect)) for _ in range(4)]
        try:
            for _ in range(50):
                before = served[0]
                await eventually(lambda: served[0] > before, "a served client")  # noqa: B023
                server.close()
                server.abort_clients()  # type: ignore[attr-defined]
                await server.wait_closed()
                server = await echo_server(stack, port)
        finally:
            stop.set()
            await asyncio.gather(*clients)
            server.close()
            server.abort_clients()  # type: ignore[attr-defined]

    stack.run(main)


# ---- loops -----------------------------------------------------------------------------------------------------------


async def _serve_once(stack: Site) -> None:
    server = await echo_server(stack)
    async with server:
        assert await in_thread(ask, stack, port_of(server)) == b"hello"


def test_20_loops_one_after_another(stack: Site) -> None:
    stack.run(lambda: _serve_once(stack))
    before = Footprint()
    for _ in range(20):
        stack.run(lambda: _serve_once(stack))
    after = Footprint()
    # VPP does not tell when the segment of a closed listener is gone (session: SEG_MANAGER_F_DETACHED_LISTENER), so VCL
    # keeps it mapped and open: one descriptor for each listener there ever was.
    listeners = 20 if stack.name == "vpp" else 0
    assert after.descriptors <= before.descriptors + listeners
    assert after.own - before.own < 512


def test_loops_in_4_threads_at_once(stack: Site) -> None:
    """zuvloop#113 and #132: loops in threads do not fight over what a process has once."""

    errors = []

    def one() -> None:
        try:
            for _ in range(5):
                stack.run(lambda: _serve_once(stack))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.trap("1: a worker belongs to one thread", guard="vppaio/vcl/vpp_worker.h: enter")
def test_loop_moves_to_another_thread(stack: Site) -> None:
    loop = vppaio.new_event_loop(stack.config)
    server = loop.run_until_complete(echo_server(stack))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert ask(stack, port_of(server)) == b"hello"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
    server.close()
    loop.run_until_complete(server.wait_closed())
    loop.close()


def test_loop_closed_with_everything_open(stack: Site) -> None:
    """Not nice, but what a crashed program does. What it leaves to the garbage collector closes nobody else's files."""
    for _ in range(5):
        loop = vppaio.new_event_loop(stack.config)
        server: Any = loop.run_until_complete(echo_server(stack))
        with stack.connect(port_of(server)) as peer, stack.listen() as listener:
            client: Any = loop.run_until_complete(loop.create_connection(Echo, *listener.getsockname()))[0]
            assert client.get_extra_info("socket").family == socket.AF_INET
            peer.sendall(b"x")
            loop.run_until_complete(in_thread(peer.recv, 1))
            loop.close()
        reused = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
        # As asyncio does, for the accepted transport and the client's, and for sockets that nobody closed.
        with pytest.warns(ResourceWarning, match="unclosed") as warned:  # noqa: PT031
            del server, client, loop
            gc.collect()
        assert sum("unclosed transport <StreamTransport" in str(one.message) for one in warned) == 2
        for fd in reused:
            os.close(fd)  # EBADF if it has been closed already
    stack.run(lambda: _serve_once(stack))


# ---- processes -------------------------------------------------------------------------------------------------------

SERVICE = """
import asyncio, os, signal, sys, threading, vppaio
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        MADE
    def data_received(self, data):
        self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, sys.argv[1], int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    BODY
    await asyncio.Event().wait()
vppaio.run(main())
"""


class EchoService(Service):
    """An echo server in a process of its own.

    Args:
        made: a statement for each new connection.
        body: a statement once it serves.
    """

    def __init__(self, stack: Site, made: str = "pass", body: str = "pass", port: int = 0, **options: Any) -> None:
        super().__init__(stack, SERVICE.replace("MADE", made).replace("BODY", body), str(port), **options)

    def ask(self) -> bytes:
        return ask(self.stack, self.port)


@pytest.mark.trap("12: leaving before VPP has digested an accept", guard="vppaio/vcl/application.py: detach")
@pytest.mark.parametrize("way", ["sys.exit(3)", "os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_exit_right_after_accept_leaves_the_stack_whole(stack: Site, way: str) -> None:
    """VPP 26.06 may crash on it (docs/vpp.md 9.6); the fixture fails this test if it did."""
    rounds = 50 if way == "sys.exit(3)" and stack.name == "vpp" else 3
    if way != "sys.exit(3)" and stack.name == "vpp":
        pytest.skip("an application that ends without exit handlers may take VPP 26.06 down: see vcl.application")

    # Several at a time: most of each second goes into starting Python.
    def one(errors: list[BaseException]) -> None:
        try:
            with EchoService(stack, made=way) as service:
                with contextlib.ExitStack() as peers:
                    with contextlib.suppress(ConnectionRefusedError):  # the first may have ended it already
                        for _ in range(3):
                            peers.enter_context(stack.connect(service.port))
                assert service.process.wait(PATIENCE) == (3 if "exit" in way else -signal.SIGKILL)
        except BaseException as error:
            errors.append(error)

    errors: list[BaseException] = []
    started = 0
    while started < rounds and not errors:
        threads = [threading.Thread(target=one, args=(errors,)) for _ in range(min(5, rounds - started))]
        started += len(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors, errors[0]
    stack.run(lambda: _serve_once(stack))


def test_exit_does_not_wait_for_the_end_of_new_connections(stack: Site) -> None:
    """A daemon thread's server is asked again and again while the process ends."""
    program = SERVICE.replace(
        "vppaio.run(main())", "threading.Thread(target=lambda: vppaio.run(main()), daemon=True).start()"
    )
    program = program.replace("MADE", "pass").replace("BODY", "pass") + "sys.stdin.readline()\n"
    command = ("-c", program, stack.address, "0")
    with stack.python(*command, stdin=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        assert ask(stack, port) == b"hello"
        process.stdin.close()
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                stack.connect(port, timeout=0.2).close()
            time.sleep(0.05)
        assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_service_ended_by_a_signal_frees_its_port(stack: Site, number: signal.Signals) -> None:
    with EchoService(stack) as service:
        assert service.ask() == b"hello"
        service.process.send_signal(number)
        assert service.process.wait(PATIENCE) != 0
        with EchoService(stack, port=service.port) as successor:
            assert successor.ask() == b"hello"


SPIN = """
    async def spin():
        while True:
            await asyncio.sleep(0)
    spinning = asyncio.create_task(spin())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_busy_service_ended_by_a_signal_ends_its_connections_and_frees_its_port(
    stack: Site, number: signal.Signals
) -> None:
    with EchoService(stack, body=SPIN) as service, contextlib.ExitStack() as closing:
        peers = [closing.enter_context(stack.connect(service.port)) for _ in range(20)]
        stop = threading.Event()
        echoed = [0] * len(peers)

        def talk(which: int) -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    peers[which].sendall(b"x" * 1000)
                    if not peers[which].recv(1000):
                        return
                    echoed[which] += 1

        threads = [threading.Thread(target=talk, args=(which,)) for which in range(len(peers))]
        closing.callback(stop.set)
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # VPP 26.06 may not survive a SIGKILL sooner after an accept
        assert min(echoed) > 0
        service.process.send_signal(number)
        assert service.process.wait(PATIENCE) != 0
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()  # each was told
        with EchoService(stack, port=service.port) as successor:
            assert successor.ask() == b"hello"


FORKS_FIRST = """
import asyncio, os, sys, vppaio
from tests.support.protocols import Echo
async def main(who):
    server = await asyncio.get_running_loop().create_server(Echo, sys.argv[1], 0)
    os.write(1, f"{who} {server.sockets[0].getsockname()[1]}\\n".encode())
    await asyncio.to_thread(sys.stdin.read)
config = vppaio.Config()
child = os.fork()
vppaio.run(main("child" if child == 0 else "parent"), config=config)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_parent_and_child_of_a_fork_before_the_first_network_call_both_serve(stack: Site) -> None:
    """uvloop#39: a child that hangs in create_server because its parent had a loop."""

    with stack.python("-c", FORKS_FIRST, stack.address, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        ports = dict(program.stdout.readline().split() for _ in range(2))
        assert ports.keys() == {"parent", "child"}
        for port in ports.values():
            assert ask(stack, int(port)) == b"hello"
        program.communicate("", timeout=PATIENCE)
        assert program.returncode == 0


@pytest.mark.trap("9: a forked child deletes its parent's worker", guard="vppaio/vcl/vpp_process.c: vppaio_vpp_forked")
def test_forked_child_gets_a_clear_error_and_does_no_harm(stack: Site) -> None:
    """uvloop#206: what runs in a child after a fork that is not ours."""

    # From a callback: from 3.14 on no task can end after its process has run another loop.
    body = """
    def fork():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.events._set_running_loop(None)
                async def other():
                    await asyncio.get_running_loop().create_server(Echo, sys.argv[1], 0)
                vppaio.run(other())
                status = 0
            except OSError as error:
                print(error, flush=True)
                status = 4
            finally:
                sys.stdout.flush()
                EXIT(status)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    asyncio.get_running_loop().call_soon(fork)
    """
    for leave in ("os._exit", "sys.exit"):
        with EchoService(stack, body=body.replace("EXIT", leave)) as service:
            assert service.process.stdout is not None
            said = [service.process.stdout.readline()]
            while not said[-1].startswith("child"):
                assert said[-1], "the service ended"
                said.append(service.process.stdout.readline())
            if stack.name == "vpp":
                assert "forked from" in said[0]
                assert said[-1] == "child 4\n"
            else:
                assert said[-1] == "child 0\n"
            assert service.ask() == b"hello"


def test_multiprocessing_children_do_no_harm(stack: Site) -> None:
    """Forked by a thread beside the loop's: the deadlocks of uvloop#118 and #268 were in hooks that wanted the GIL."""

    body = """
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(await asyncio.to_thread(pool.map, abs, range(-5, 0)), flush=True)
    """
    with EchoService(stack, body=body) as service:
        assert service.process.stdout is not None
        assert service.process.stdout.readline() == "[5, 4, 3, 2, 1]\n"
        assert service.ask() == b"hello"


def test_pid_of_a_client_that_dies_is_no_news_to_others(stack: Site) -> None:
    with EchoService(stack) as dies, EchoService(stack) as lives:
        with stack.connect(lives.port) as peer:
            dies.process.send_signal(signal.SIGKILL)
            dies.process.wait(PATIENCE)
            time.sleep(0.2)
            peer.sendall(b"still there?")
            assert peer.recv(100) == b"still there?"
