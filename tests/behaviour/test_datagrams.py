"""UDP endpoints on both stacks: bound and connected, and what an endpoint survives."""

from __future__ import annotations

import asyncio
import errno
import socket
import statistics
import sys
import threading
import time
from typing import Any

import pytest

import vppaio
from tests.support.sites import PATIENCE, HostSite, Site, VppSite, eventually, in_thread

VPP_LARGEST = 1472  # an MTU of 1500 less the headers; VPP would split what is larger


class Endpoint(asyncio.DatagramProtocol):
    """Keeps what it hears, and echoes if asked to."""

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self.heard: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.flow: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.heard.put_nowait((data, address))
        if self.echo:
            self.transport.sendto(data, address)

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def next(self) -> tuple[bytes, Any]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def error(self) -> Exception:
        return await asyncio.wait_for(self.errors.get(), PATIENCE)

    async def close(self) -> None:
        self.transport.close()
        assert await asyncio.wait_for(self.lost, PATIENCE) is None


async def bound(stack: Site, **options: Any) -> Endpoint:
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Endpoint(**options), local_addr=(stack.address, 0)
    )
    return protocol


async def connected(remote: Any, local: Any = None) -> Endpoint:
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Endpoint, local_addr=local, remote_addr=remote
    )
    return protocol


def kernel_socket(stack: Site) -> socket.socket:
    made = stack.datagrams()
    made.settimeout(PATIENCE)
    return made


def test_bound_endpoint_hears_and_answers_each_sender(stack: Site) -> None:
    async def main() -> None:
        endpoint = await bound(stack, echo=True)
        ours = endpoint.transport.get_extra_info("sockname")
        assert ours[0] == stack.address
        assert ours[1] != 0
        for text in (b"one", b"two"):
            with kernel_socket(stack) as peer:
                peer.sendto(text, ours)
                assert await in_thread(peer.recvfrom, 100) == (text, ours)
                assert await endpoint.next() == (text, peer.getsockname())
        assert endpoint.transport.get_extra_info("sockname") == ours
        await endpoint.close()

    stack.run(main)


def test_connected_endpoint_talks_to_its_peer_only(stack: Site) -> None:
    async def main() -> None:
        with kernel_socket(stack) as peer, kernel_socket(stack) as stranger:
            endpoint = await connected(peer.getsockname())
            assert endpoint.transport.get_extra_info("peername") == peer.getsockname()
            endpoint.transport.sendto(b"hello")
            data, ours = await in_thread(peer.recvfrom, 100)
            assert data == b"hello"
            assert ours[0] == stack.address
            stranger.sendto(b"not for you", ours)
            peer.sendto(b"welcome", ours)
            assert await endpoint.next() == (b"welcome", peer.getsockname())
            with pytest.raises(ValueError, match=stranger.getsockname()[0]):
                endpoint.transport.sendto(b"?", stranger.getsockname())
            await endpoint.close()
            assert endpoint.heard.empty()

    stack.run(main)


def test_connected_endpoint_with_an_address_of_its_own(stack: Site) -> None:
    async def main() -> None:
        with kernel_socket(stack) as peer:
            endpoint = await connected(peer.getsockname(), local=(stack.address, 0))
            endpoint.transport.sendto(b"from here")
            data, ours = await in_thread(peer.recvfrom, 100)
            assert (data, ours) == (b"from here", endpoint.transport.get_extra_info("sockname"))
            await endpoint.close()

    stack.run(main)


def test_refused_endpoint_hears_the_error_and_lives_on(stack: Site) -> None:
    """uvloop#109 and #601: errors of sending go to error_received."""

    async def main() -> None:
        peer = kernel_socket(stack)
        address = peer.getsockname()
        endpoint = await connected(address)
        for _ in range(3):
            peer.close()
            endpoint.transport.sendto(b"anybody?")
            assert isinstance(await endpoint.error(), ConnectionRefusedError)
            peer = stack.datagrams(address[1])
            peer.settimeout(PATIENCE)
            endpoint.transport.sendto(b"there you are")
            data, ours = await in_thread(peer.recvfrom, 100)
            assert data == b"there you are"
            peer.sendto(b"yes", ours)
            assert (await endpoint.next())[0] == b"yes"
        peer.close()
        await endpoint.close()

    stack.run(main)


@pytest.mark.trap("5: a datagram above the MSS is split", guard="vppaio/transports/mss.pxd: would_be_split")
@pytest.mark.parametrize("connect", [False, True])
def test_datagram_that_is_too_large_is_an_error_and_nothing_is_sent(stack: Site, connect: bool) -> None:
    largest = VPP_LARGEST if stack.name == "vpp" else 65507

    async def main() -> None:
        with kernel_socket(stack) as peer:
            endpoint = await (connected(peer.getsockname()) if connect else bound(stack))
            to = None if connect else peer.getsockname()
            endpoint.transport.sendto(bytes(largest + 1), to)
            error = await endpoint.error()
            assert isinstance(error, OSError)
            assert error.errno == errno.EMSGSIZE
            assert peer.getsockname()[0] in str(error) or stack.name == "host"
            endpoint.transport.sendto(b"x" * largest, to)
            assert (await in_thread(peer.recvfrom, 1 << 16))[0] == b"x" * largest
            await endpoint.close()

    stack.run(main)


@pytest.mark.trap("5: an empty datagram silences the session", guard="vppaio/transports/datagram.pyx: _look_again")
def test_empty_datagrams_do_not_silence_the_endpoint(stack: Site) -> None:
    """On VPP an empty datagram leaves the session marked as announced, and nothing is announced any more."""

    async def main() -> None:
        endpoint = await bound(stack, echo=True)
        ours = endpoint.transport.get_extra_info("sockname")

        def ask(peer: socket.socket, round: int) -> float:
            for _ in range(round):
                peer.sendto(b"", ours)
            started = time.monotonic()
            peer.sendto(b"still there?", ours)
            while peer.recvfrom(100)[0] != b"still there?":  # a kernel endpoint may echo the empty ones
                pass
            return time.monotonic() - started

        with kernel_socket(stack) as peer:
            times = [await in_thread(ask, peer, round) for round in (1, 2, 1, 20, 1, 1)]
        assert sorted(times)[len(times) // 2] < 0.1, times
        await endpoint.close()

    stack.run(main)


@pytest.mark.trap("5: UDP gets no EPOLLOUT after EAGAIN", guard="vppaio/transports/datagram.pyx: _look_again")
def test_pausing_a_flood_and_resuming_it(stack: Site) -> None:
    """More than the buffers take: the protocol is paused, resumed, and what the peer reads in time is all there."""
    count = 4000

    async def main() -> None:
        with kernel_socket(stack) as peer:
            peer.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE, so that the kernel drops nothing
            endpoint = await connected(peer.getsockname())
            for n in range(count):
                endpoint.transport.sendto(n.to_bytes(4, "big") + bytes(1000))
            if stack.name == "vpp":
                assert endpoint.flow == ["pause"]

            def read() -> list[int]:
                peer.settimeout(1)
                numbers = []
                try:
                    while len(numbers) < count:
                        numbers.append(int.from_bytes(peer.recv(2000)[:4], "big"))
                except TimeoutError:
                    pass
                return numbers

            numbers = await in_thread(read)
            assert numbers == sorted(numbers)
            assert len(numbers) > count * 0.9  # datagrams may be lost on the way, but not in rows
            await eventually(lambda: endpoint.transport.get_write_buffer_size() == 0)
            assert endpoint.flow in ([], ["pause", "resume"])
            await endpoint.close()

    stack.run(main)


def test_flood_from_the_peer_leaves_room_for_timers(stack: Site) -> None:
    async def main() -> None:
        endpoint = await bound(stack)
        ours = endpoint.transport.get_extra_info("sockname")
        stop = threading.Event()

        def flood() -> None:
            with kernel_socket(stack) as peer:
                while not stop.is_set():
                    peer.sendto(bytes(100), ours)

        flooding = asyncio.create_task(in_thread(flood))
        try:
            await endpoint.next()
            late = []
            for _ in range(20):
                started = time.monotonic()
                await asyncio.sleep(0.01)
                late.append(time.monotonic() - started)
            # One may meet a stall of the machine; a loop that only reads datagrams would miss all of them.
            assert statistics.median(late) < 0.5
        finally:
            stop.set()
            await flooding
        await endpoint.close()

    stack.run(main)


def test_port_in_use(stack: Site) -> None:
    async def main() -> None:
        endpoint = await bound(stack)
        address = endpoint.transport.get_extra_info("sockname")
        with pytest.raises(OSError, match=str(address[1])) as caught:
            await asyncio.get_running_loop().create_datagram_endpoint(Endpoint, local_addr=address)
        assert caught.value.errno == errno.EADDRINUSE
        await endpoint.close()

    stack.run(main)


def test_address_that_is_not_the_stacks_own(stack: Site) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=stack.foreign_address) as caught:
            await asyncio.get_running_loop().create_datagram_endpoint(
                Endpoint, local_addr=(stack.foreign_address, 4000)
            )
        assert caught.value.errno == errno.EADDRNOTAVAIL

    stack.run(main)


def test_many_endpoints_leave_nothing_behind(stack: Site) -> None:
    async def main() -> None:
        with kernel_socket(stack) as peer:
            for _ in range(50):
                endpoint = await connected(peer.getsockname())
                endpoint.transport.sendto(b"hello")
                assert (await in_thread(peer.recvfrom, 100))[0] == b"hello"
                endpoint.transport.abort()
                assert await asyncio.wait_for(endpoint.lost, PATIENCE) is None

    stack.run(main)


@pytest.mark.trap("5: a datagram from the wildcard address is lost", guard="vppaio/vcl/vpp_data.c: has_source")
def test_endpoint_on_the_wildcard_address_says_that_it_cannot_send_yet(vpp_site: VppSite) -> None:
    """VPP would send from 0.0.0.0; with the first datagram from outside VCL learns where the session is."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        _, endpoint = await loop.create_datagram_endpoint(Endpoint, local_addr=("0.0.0.0", 0))
        ours = (vpp_site.address, endpoint.transport.get_extra_info("sockname")[1])
        with kernel_socket(vpp_site) as peer, kernel_socket(vpp_site) as other:
            for _ in range(2):
                endpoint.transport.sendto(b"lost?", peer.getsockname())
                error = await endpoint.error()
                assert isinstance(error, OSError)
                assert error.errno == errno.EADDRNOTAVAIL
                assert "bind it to an address of VPP's" in str(error)
            peer.sendto(b"hello", ours)
            assert await endpoint.next() == (b"hello", peer.getsockname())
            for receiver in (peer, other):
                endpoint.transport.sendto(b"found", receiver.getsockname())
                assert await in_thread(receiver.recvfrom, 100) == (b"found", ours)
        await endpoint.close()

    vpp_site.run(main)


@pytest.mark.trap(
    "5: a datagram from an unbound session destroys it", guard="vppaio/transports/pseudosocket.py: sendto"
)
@pytest.mark.parametrize("bind", [False, True])
def test_sock_sendto_from_the_wildcard_address_is_an_error(vpp_site: VppSite, bind: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock, kernel_socket(vpp_site) as peer:
            if bind:
                sock.bind(("0.0.0.0", 0))
            for _ in range(2):
                with pytest.raises(OSError, match="bind it to an address of VPP's") as caught:
                    await loop.sock_sendto(sock, b"lost?", peer.getsockname())
                assert caught.value.errno == errno.EADDRNOTAVAIL
            ours = (vpp_site.address, sock.getsockname()[1])
            peer.sendto(b"hello", ours)
            assert await loop.sock_recvfrom(sock, 100) == (b"hello", peer.getsockname())
            await loop.sock_sendto(sock, b"found", peer.getsockname())
            assert await in_thread(peer.recvfrom, 100) == (b"found", ours)

    vpp_site.run(main)


@pytest.mark.trap("5: a datagram above the MSS is split", guard="vppaio/transports/mss.pxd: would_be_split")
@pytest.mark.parametrize("connect", [False, True])
def test_sock_sendto_of_what_is_too_large_is_an_error(stack: Site, connect: bool) -> None:
    largest = VPP_LARGEST if stack.name == "vpp" else 65507

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock, kernel_socket(stack) as peer:
            if connect:
                await loop.sock_connect(sock, peer.getsockname())
            else:
                sock.bind((stack.address, 0))
            for size in (largest + 1, largest):
                sending = (
                    loop.sock_sendall(sock, bytes(size))
                    if connect
                    else loop.sock_sendto(sock, bytes(size), peer.getsockname())
                )
                if size > largest:
                    with pytest.raises(OSError, match="too long") as caught:
                        await sending
                    assert caught.value.errno == errno.EMSGSIZE
                else:
                    await sending
            assert await in_thread(peer.recv, 1 << 16) == bytes(largest)

    stack.run(main)


def test_unbound_socket_of_the_host_stack_sends(stack: Site) -> None:
    """The kernel finds an address for it."""

    async def main() -> None:
        with vppaio.socket(type=socket.SOCK_DGRAM, stack="host") as sock, HostSite().datagrams() as peer:
            await asyncio.get_running_loop().sock_sendto(sock, b"x", peer.getsockname())
            assert await in_thread(peer.recv, 100) == b"x"
        with vppaio.socket(type=socket.SOCK_DGRAM) as sock, kernel_socket(stack) as peer:
            await asyncio.get_running_loop().sock_connect(sock, peer.getsockname())
            sock.send(b"y")
            assert await in_thread(peer.recv, 100) == b"y"

    stack.run(main)


def test_empty_datagram_is_an_error_where_vpp_would_not_send_it(vpp_site: VppSite) -> None:
    """Before Python 3.13 asyncio's endpoints did not send it either, and said nothing."""

    async def main() -> None:
        with kernel_socket(vpp_site) as peer:
            endpoint = await connected(peer.getsockname())
            endpoint.transport.sendto(b"")
            if sys.version_info >= (3, 13):
                error = await endpoint.error()
                assert isinstance(error, OSError)
                assert error.errno == errno.EOPNOTSUPP
                assert "empty" in str(error)
            assert endpoint.errors.empty()
            await endpoint.close()
            with vppaio.socket(type=socket.SOCK_DGRAM) as sock:
                await asyncio.get_running_loop().sock_connect(sock, peer.getsockname())
                for send in (sock.send, lambda data: sock.sendto(data, None)):
                    with pytest.raises(OSError, match="empty") as caught:
                        send(b"")
                    assert caught.value.errno == errno.EOPNOTSUPP

    vpp_site.run(main)


def test_empty_datagrams_do_not_reach_the_protocol_on_vpp(vpp_site: VppSite) -> None:
    """VCL hands none out. What the README says is what happens."""

    async def main() -> None:
        endpoint = await bound(vpp_site)
        with kernel_socket(vpp_site) as peer:
            for text in (b"", b"one", b"", b"two"):
                peer.sendto(text, endpoint.transport.get_extra_info("sockname"))
            assert [(await endpoint.next())[0] for _ in range(2)] == [b"one", b"two"]
        assert endpoint.heard.empty()
        await endpoint.close()

    vpp_site.run(main)


@pytest.mark.vpp
def test_broadcast_is_refused_by_name(vpp_site: VppSite) -> None:
    """uvloop#540 and #592 want it; VPP's session layer has none, and does not look as if."""

    async def main() -> None:
        with pytest.raises(OSError, match="allow_broadcast"):
            await asyncio.get_running_loop().create_datagram_endpoint(
                Endpoint, local_addr=(vpp_site.address, 0), allow_broadcast=True
            )

    vpp_site.run(main)


def test_endpoint_for_broadcasts_sends_to_its_remote_address_unconnected() -> None:
    """On the host stack, with an address of one machine in the place of many."""
    stack = HostSite()

    async def main() -> None:
        with stack.datagrams() as peer:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=peer.getsockname(), allow_broadcast=True
            )
            assert transport.get_extra_info("peername") is None
            transport.sendto(b"to all")
            transport.sendto(b"to the same", peer.getsockname())
            with pytest.raises(ValueError, match="Invalid address"):
                transport.sendto(b"to another", ("127.0.0.1", 9))
            assert [peer.recv(100) for _ in range(2)] == [b"to all", b"to the same"]
            transport.close()

    stack.run(main)
