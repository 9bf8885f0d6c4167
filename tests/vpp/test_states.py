"""What VCL does not compare with the session's state, and what VPP answers when nobody waits any more.

In processes of their own, since each of these ended one.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from tests.vpp.programs import ECHO, Program, serves
from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


ODD_CALLS = (
    ECHO
    + """
import errno

def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

async def main():
    loop = asyncio.get_running_loop()
    listener = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 4000))
    assert refused(listener.bind, (address, 4009)) == "EINVAL"
    listener.listen()
    listener.listen()
    assert refused(listener.bind, (address, 4009)) == "EINVAL"
    for number in range(12):
        print("serving", flush=True)
        connection, _ = await loop.sock_accept(listener)
        if number % 3:
            print("reset it" if number % 3 == 1 else "close it", flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)
            for _ in range(20):
                await asyncio.sleep(0.01)
        before = refused(connection.getpeername)
        for _ in range(3):
            assert refused(connection.listen) == "EINVAL"
            assert refused(connection.bind, (address, 4009)) == "EINVAL"
            assert refused(connection.accept) == "EINVAL"
            try:
                await loop.sock_connect(connection, (address, 4000))
            except OSError as error:
                assert errno.errorcode[error.errno] == "EISCONN", error
        connection.close()
        again = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM)
        again.bind((address, 4001))
        again.listen()
        again.close()
    listener.close()
    print("done", flush=True)
vppaio.run(main())
"""
)


@pytest.mark.trap("beyond: listening on a connection that was reset", guard="vppaio/vcl/vcl_states.c: vcl_refusal")
def test_connection_cannot_be_made_a_listener(vpp_instance: VppInstance) -> None:
    """VCL sent the listen, took the connection's old error for the answer, and crashed at VPP's."""
    with Program(vpp_instance, ODD_CALLS) as program, contextlib.ExitStack() as peers:
        while (said := program.hears()) != "done":
            if said == "serving":
                peer = peers.enter_context(vpp_instance.kernel_connect(vpp_instance.address, 4000))
            else:
                reset(peer) if said == "reset it" else peer.close()
                program.say("done")
        program.ends()


UNUSED = (
    ECHO
    + """
async def use(loop, sock):
    '''Watched, and neither bound nor connected.'''
    for call in (loop.sock_recv(sock, 1), loop.sock_accept(sock)):
        try:
            await asyncio.wait_for(call, 0.01)
        except (OSError, TimeoutError):
            pass

async def main():
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    loop.add_stack_listener(lambda event: lost.set() if event.state == "lost" else None)
    server = await loop.create_server(Echo, address, 4000)
    for _ in range(2):
        kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] * 5
        socks = [vppaio.socket(socket.AF_INET, kind) for kind in kinds]
        for sock in socks:
            await use(loop, sock)
        socks[0].bind((address, 4002))
        datagrams = vppaio.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((address, 4003))
        connecting = [
            asyncio.create_task(loop.create_connection(asyncio.Protocol, "10.76.0.99", 9)) for _ in range(5)
        ]
        await asyncio.sleep(0.05)
        connecting[0].cancel()
        print("serving", flush=True)
        await lost.wait()
        lost.clear()
        await asyncio.gather(*connecting, return_exceptions=True)
        try:
            datagrams.recv(1)
        except ConnectionResetError:
            print("lost", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        while True:
            try:
                socks[0].listen()  # as before, when VPP is back
                break
            except OSError:
                await asyncio.sleep(0.05)
        for sock in (*socks, datagrams):
            sock.close()
    server.close()
    await asyncio.sleep(0.2)
    assert not loop.statistics()["stacks"]["vpp"]["sessions"], loop.statistics()

for _ in range(2):
    vppaio.run(main())
print("done", flush=True)
"""
)


@pytest.mark.trap(
    "11: VCL frees an unused session that is in the epoll set", guard="vppaio/vcl/vpp_slots.c: vpp_make_session"
)
@pytest.mark.trap("11: what VCL would let listen again by itself", guard="vppaio/vcl/vpp_slots.c: vpp_lose_sessions")
@pytest.mark.timeout(120)
def test_sockets_in_every_early_state_when_vpp_dies(own_vpp: VppInstance) -> None:
    """VCL freed those that were not connected, and the epoll set was broken: EBADF for every new endpoint, and the end
    of the loop never came."""
    with Program(own_vpp, UNUSED) as program:
        for _ in range(4):
            assert program.hears() == "serving"
            assert serves(own_vpp, 4000)
            own_vpp.kill()
            assert program.hears() == "lost"
            own_vpp.start()
            program.say("go on")
        assert program.hears() == "done"
        program.ends()


LATE = (
    ECHO
    + """
import os, signal, errno
pid = int(sys.argv[2])

async def main():
    loop = asyncio.get_running_loop()
    await loop.create_server(Echo, address, 4000)
    os.kill(pid, signal.SIGSTOP)
    print("stopped", flush=True)
    sock = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((address, 4001))
    datagrams = vppaio.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for call in (sock.listen, lambda: datagrams.bind((address, 4002))):
        try:
            call()
        except OSError as error:
            print(errno.errorcode[error.errno], flush=True)
    sock.close()
    datagrams.close()
    os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(0.5)
    for port in (4001, 4002):  # nobody has them
        again = await loop.create_server(Echo, address, port)
        again.close()
    print("done", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
vppaio.run(main())
"""
)


@pytest.mark.trap("beyond: VPP answers a listen that was given up", guard="vppaio/vcl/vpp_slots.c: vpp_collect_owed")
@pytest.mark.timeout(90)
def test_answer_to_a_listen_that_was_given_up(own_vpp: VppInstance) -> None:
    """VCL looked for the session, and there was none, or another one, which then listened. The port is free again."""
    with Program(own_vpp, LATE, own_vpp.pid) as program:
        said = [program.hears() for _ in range(4)]
        assert said[0] == "stopped"
        assert set(said[1:3]) <= {"ETIMEDOUT", "ENETDOWN"}, said
        assert said[3] == "done"
        assert serves(own_vpp, 4000)
        program.ends()


OTHER_LOOP = (
    ECHO
    + """
async def connected():
    sock = vppaio.socket(socket.AF_INET, socket.SOCK_STREAM)
    await asyncio.get_running_loop().sock_connect(sock, (sys.argv[2], int(sys.argv[3])))
    return sock

async def refuses(sock, kind, what):
    loop = asyncio.get_running_loop()
    calls = (
        lambda: loop.create_connection(asyncio.Protocol, sock=sock),
        lambda: loop.connect_accepted_socket(asyncio.Protocol, sock),
        lambda: loop.create_server(asyncio.Protocol, sock=sock),
        lambda: asyncio.start_server(lambda reader, writer: None, sock=sock),
        lambda: asyncio.open_connection(sock=sock),
        lambda: loop.sock_recv(sock, 1),
        lambda: loop.sock_recv_into(sock, bytearray(1)),
        lambda: loop.sock_sendall(sock, b"x"),
        lambda: loop.sock_accept(sock),
        lambda: loop.sock_connect(sock, (sys.argv[2], int(sys.argv[3]))),
    )
    for number, call in enumerate(calls):
        try:
            await call()
        except kind as error:
            assert what in str(error) and "socket in the loop" in str(error), error
        else:
            raise AssertionError(number)

one, other = vppaio.new_event_loop(), vppaio.new_event_loop()
sock = one.run_until_complete(connected())
other.run_until_complete(refuses(sock, ValueError, "another event loop"))
one.run_until_complete(one.sock_sendall(sock, b"still mine"))
assert one.run_until_complete(one.sock_recv(sock, 10)) == b"still mine"
one.close()
other.run_until_complete(refuses(sock, OSError, "closed"))
other.close()
print("done", flush=True)
"""
)


def test_socket_of_another_loop_is_refused(vpp_instance: VppInstance) -> None:
    """Its data never came."""
    listener = vpp_instance.kernel_listen()
    with Program(vpp_instance, OTHER_LOOP, *listener.getsockname()[:2]) as program, listener:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(peer.recv(10, socket.MSG_WAITALL))
            assert program.hears() == "done"
        program.ends()
