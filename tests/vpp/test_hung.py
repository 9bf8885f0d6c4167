"""VPP hangs: whoever asks it hears so in time, the host stack goes on, and the process ends when it is told to."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.vpp.programs import ECHO, Program, serves
from vppaio.testing.vppinstance import VppInstance

pytestmark = [pytest.mark.vpp, pytest.mark.timeout(120)]

ENDS_WITHIN_S = 5.0
ASKS_FOR_S = 10.0  # 3 s, and what a busy machine adds: each of them once hung for ever
# 0.05 is what a machine of one's own has to show; whoever waits for VPP is late by seconds.
LATE_S = float(os.environ.get("TESTS_LATE_S", "0.5"))

# A loop in the main thread that has 127.0.0.1 only, and says how late its timers were.
LOCAL = (
    ECHO
    + """
late = 0.0

async def keep_time():
    global late
    while True:
        begin = time.monotonic()
        await asyncio.sleep(0.01)
        late = max(late, time.monotonic() - begin - 0.01)

async def talk():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(20):
        writer.write(b"ping")
        await reader.readexactly(4)
        await asyncio.sleep(0.01)
    writer.close()
    server.close()

def ask(port):
    async def main():
        begin = time.monotonic()
        try:
            await asyncio.get_running_loop().create_server(Echo, address, port)
        except OSError as error:
            # In one piece: four threads speak at once.
            print(f"{time.monotonic() - begin:.2f} {type(error).__name__} {error}\\n", end="", flush=True)
        else:
            print("serving", flush=True)
    vppaio.run(main())

async def hear():
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
"""
)


@contextlib.contextmanager
def stopped(vpp: VppInstance) -> Iterator[None]:
    os.kill(vpp.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(vpp.pid, signal.SIGCONT)


def hears_that_it_hangs(program: Program) -> None:
    found = re.fullmatch(r"(\d\.\d\d) TimeoutError .*VPP hangs.*", line := program.hears())
    assert found, line
    assert float(found[1]) < ASKS_FOR_S


@pytest.mark.trap("beyond: asking a VPP that hangs", guard="vppaio/vcl/vpp_asking.c: vpp_socket")
@pytest.mark.trap("beyond: a worker that VPP did not give", guard="vppaio/vcl/vpp_worker.c: ask_for_worker")
@pytest.mark.parametrize("first", ["local", "vpp"])
def test_a_loop_on_loopback_goes_on_while_others_make_their_first(own_vpp: VppInstance, first: str) -> None:
    """Whether this process has asked VPP before or not."""
    code = (
        LOCAL
        + f"""
async def main():
    if {first == "vpp"}:
        await asyncio.to_thread(ask, 4000)
    else:
        print("local", flush=True)
    await hear()
    keeper = asyncio.ensure_future(keep_time())
    others = [threading.Thread(target=ask, args=(4001 + n,)) for n in range(4)]
    for other in others: other.start()
    while any(other.is_alive() for other in others):
        await talk()
    print(f"late {{late:.3f}}", flush=True)
vppaio.run(main())
"""
    )
    with Program(own_vpp, code) as program:
        assert program.hears() == ("serving" if first == "vpp" else "local")
        with stopped(own_vpp):
            program.say("go")
            for _ in range(4):
                hears_that_it_hangs(program)
            assert float(program.hears().removeprefix("late ")) < LATE_S
        program.ends()
    assert own_vpp.healthy()
    assert own_vpp.ctl("show app").splitlines()[1:] == [], "VPP keeps what nobody waits for"
    before = own_vpp.cpu_seconds()
    time.sleep(1)
    assert own_vpp.cpu_seconds() - before < 0.5, "VPP spins on what nobody waits for"


def test_a_loop_made_while_vpp_hangs_uses_loopback(own_vpp: VppInstance) -> None:
    code = (
        LOCAL
        + """
async def main():
    keeper = asyncio.ensure_future(keep_time())
    other = threading.Thread(target=ask, args=(4000,))
    other.start()
    await talk()
    print(f"late {late:.3f}", flush=True)
    await asyncio.to_thread(other.join)
vppaio.run(main())
"""
    )
    with stopped(own_vpp), Program(own_vpp, code) as program:
        begin = time.monotonic()
        assert float(program.hears().removeprefix("late ")) < LATE_S
        assert time.monotonic() - begin < 3, "it waited for VPP"
        hears_that_it_hangs(program)
        program.ends()


def test_a_loop_with_sessions_goes_on(own_vpp: VppInstance) -> None:
    """It writes to them, closes some, and opens others, whose answers have to wait."""
    code = (
        LOCAL
        + """
transports = []

class Kept(Echo):
    def connection_made(self, transport):
        super().connection_made(transport)
        transports.append(transport)

async def main():
    loop = asyncio.get_running_loop()
    await loop.create_server(Kept, address, 4000)
    print("serving", flush=True)
    await hear()
    keeper = asyncio.ensure_future(keep_time())
    for n, transport in enumerate(transports):
        transport.write(b"x" * 100000)
        (transport.close, transport.abort, transport.write_eof, transport.pause_reading)[n % 4]()
    connecting = asyncio.ensure_future(asyncio.open_connection("10.76.0.2", 9))
    for _ in range(3):
        await talk()
    connecting.cancel()
    print(f"late {late:.3f}", flush=True)
    await hear()
vppaio.run(main())
"""
    )
    with Program(own_vpp, code) as program, contextlib.ExitStack() as peers:
        assert program.hears() == "serving"
        for _ in range(20):
            peer = peers.enter_context(own_vpp.kernel_connect(own_vpp.address, 4000))
            peer.sendall(b"?")
            assert peer.recv(1) == b"?"
        with stopped(own_vpp):
            program.say("go")
            assert float(program.hears().removeprefix("late ")) < LATE_S
        assert serves(own_vpp, 4000)
        program.ends()
    assert own_vpp.healthy()


@pytest.mark.trap("beyond: the next VPP hangs", guard="vppaio/vcl/vpp_asking.c: vpp_is_answered")
@pytest.mark.trap("beyond: VCL sleeps when VPP dies", guard="vppaio/vcl/vpp_loss.c: vpp_sleep")
def test_a_loop_goes_on_when_vpp_dies_and_the_next_one_hangs(own_vpp: VppInstance) -> None:
    code = (
        LOCAL
        + """
async def main():
    loop = asyncio.get_running_loop()
    loop.add_stack_listener(lambda event: print(event.state, flush=True))
    await loop.create_server(Echo, address, 4000)
    print("serving", flush=True)
    keeper = asyncio.ensure_future(keep_time())
    while await hear():
        print(f"late {late:.3f}", flush=True)
vppaio.run(main())
"""
    )

    def late(program: Program) -> float:
        program.say("late?")
        return float(program.hears().removeprefix("late "))

    with Program(own_vpp, code) as program:
        assert program.hears() == "serving"
        own_vpp.kill()
        assert program.hears() == "lost"
        assert late(program) < LATE_S

        def hang() -> None:
            with stopped(own_vpp):
                time.sleep(2)  # it tries to attach four times a second
                assert late(program) < LATE_S

        own_vpp.start(before_addresses=hang)
        assert program.hears() == "restored"
        assert serves(own_vpp, 4000)
        assert late(program) < LATE_S
        program.ends()


WAITING = {
    "nothing": "await asyncio.sleep(60)",
    "attach": "await loop.create_server(Echo, address, 4009)",
    "attach at once": "loop.stacks",
    "a worker": "threading.Thread(target=ask, args=(4009,), daemon=True).start(); await asyncio.sleep(60)",
    "a worker at once": "vppaio.run(asyncio.sleep(60))",
    "listen": "await loop.create_server(Echo, address, 4009)",
    "a datagram endpoint": "await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (address, 4009))",
    "connect": 'await asyncio.open_connection("10.76.0.2", 9)',
    "its sessions": "[transport.write(bytes(1 << 20)) for transport in transports]; await asyncio.sleep(60)",
}
ATTACHES_FIRST = set(WAITING) - {"attach", "attach at once"}
ENDING = """
transports = []

class Kept(Echo):
    def connection_made(self, transport):
        super().connection_made(transport)
        transports.append(transport)

async def main():
    loop = asyncio.get_running_loop()
    if {attaches}:
        await loop.create_server(Kept, address, 4000)
    print("ready", flush=True)
    await hear()
    print("waiting", flush=True)
    {waiting}
"""


@pytest.mark.trap("beyond: exit while a thread asks a VPP that hangs", guard="vppaio/vcl/vpp_process.c: at_exit")
@pytest.mark.parametrize("waiting", WAITING)
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "vppaio run", "sys.exit"])
def test_the_process_ends_while_vpp_hangs(own_vpp: VppInstance, tmp_path, waiting: str, how: str) -> None:
    code = LOCAL + ENDING.format(attaches=waiting in ATTACHES_FIRST, waiting=WAITING[waiting])
    if waiting == "a worker at once":
        code = code.replace("vppaio.run(asyncio.sleep(60))", "await asyncio.to_thread(ask, 4009)")
    if how in ("SIGTERM", "sys.exit"):
        code += "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    code += "vppaio.install(); asyncio.run(main())\n"
    file = tmp_path / "program.py"
    file.write_text(code)
    if how == "vppaio run":
        code = (
            "import sys; from vppaio.cli import main\n"
            f"sys.argv[1:] = ['run', {str(file)!r}, {own_vpp.address!r}]; sys.exit(main())"
        )
    with Program(own_vpp, code) as program, contextlib.ExitStack() as peers:
        assert program.hears() == "ready"
        if waiting == "its sessions":
            peer = peers.enter_context(own_vpp.kernel_connect(own_vpp.address, 4000))
            peer.sendall(b"?")
            assert peer.recv(1) == b"?"
        with stopped(own_vpp):
            program.say("go")
            assert program.hears() == "waiting"
            time.sleep(0.5)
            begin = time.monotonic()
            program.process.send_signal(signal.SIGINT if how == "SIGINT" else signal.SIGTERM)
            status = program.process.wait(20)
            assert time.monotonic() - begin < ENDS_WITHIN_S
            assert status != 0
    assert own_vpp.alive(), own_vpp.log_tail()
    assert own_vpp.ctl("show version", timeout=20)
