"""A thousand loops, one after the other: descriptors, sessions, memory and references stay what they were."""

from __future__ import annotations

import asyncio
import collections
import gc
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

import vppaio
from tests.support.protocols import BufferedEcho, Echo
from tests.support.sites import Site, descriptors, reset

LOOPS = {"host": 1000, "vpp": 200}
WARM_UP = 0.2  # of the loops
ROUNDS = 100  # well above what sys.getallocatedblocks varies by: 40, and more rounds do not make it more


async def serve(stack: Site) -> None:
    """A server, a connection that is reset, and a datagram endpoint."""
    loop: Any = asyncio.get_running_loop()
    server = await loop.create_server(BufferedEcho, stack.address, 0)
    port = server.sockets[0].getsockname()[1]
    endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(stack.address, 0))
    peer = await asyncio.to_thread(stack.connect, port)
    peer.sendall(b"hello")
    assert await asyncio.to_thread(peer.recv, 5) == b"hello"
    reset(peer)
    endpoint.close()
    server.close()
    await asyncio.sleep(0)


async def connect(stack: Site) -> None:
    """A connection whose peer closes, and one that is aborted, and still has to end when the loop does."""
    with stack.listen() as listener:
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        accepted, _ = await asyncio.to_thread(listener.accept)
        with accepted:
            writer.write(b"hello")
            assert await asyncio.to_thread(accepted.recv, 5) == b"hello"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        transport, _ = await asyncio.get_running_loop().create_connection(Echo, *listener.getsockname()[:2])
        transport.abort()


async def use(stack: Site) -> None:
    await connect(stack)
    # On VPP each closed listener leaves a descriptor and a mapping behind in the process, and so does a bound datagram
    # session (README, what no application can mend); in thousands of loops that would be all that is seen.
    if stack.name == "host":
        await serve(stack)


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.timeout(300)
def test_loops_leave_nothing_behind(stack: Site) -> None:
    loops = LOOPS[stack.name]
    samples = []
    for number in range(loops):
        vppaio.run(use(stack), config=stack.config)
        if number + 1 in (int(loops * WARM_UP), loops):
            gc.collect()
            samples.append((descriptors(), resident_kib()))
    (fds, memory), (fds_after, memory_after) = samples
    assert fds_after == fds
    assert memory_after - memory <= 2048


def objects() -> collections.Counter[str]:
    gc.collect()
    return collections.Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects())


def test_connections_leave_no_object_and_no_reference(stack: Site) -> None:
    """Objects by type, references of what every connection touches, and allocated blocks, before and after."""

    async def rounds() -> None:
        await serve(stack)
        await connect(stack)

    async def grown(shared: tuple[Any, ...]) -> dict[str, int]:
        """What there is more of after ROUNDS rounds, if it could be one for each."""
        before, references = objects(), [sys.getrefcount(o) for o in shared]
        blocks = sys.getallocatedblocks()
        for _ in range(ROUNDS):
            await rounds()
        found = {name: n for name, n in (objects() - before).items() if n >= ROUNDS}
        after = [sys.getrefcount(o) for o in shared]
        found |= {
            f"references of {o!r}": m - n for o, n, m in zip(shared, references, after, strict=True) if m - n >= ROUNDS
        }
        more = sys.getallocatedblocks() - blocks
        return found | ({"blocks": more} if more >= ROUNDS else {})

    async def main() -> None:
        shared = (stack.address, Echo, BufferedEcho, asyncio.get_running_loop(), None, True)
        # A leak grows every time; a cache that is filled, a thread that is started, only once.
        seen = [await grown(shared) for _ in range(4)]
        assert set.intersection(*map(set, seen)) == set(), seen

    vppaio.run(main(), config=stack.config)
