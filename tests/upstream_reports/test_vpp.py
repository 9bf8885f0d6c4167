"""Complaints about VPP under other programs: what must not happen to ours.

Answered elsewhere:

- An attach that fails needs a diagnosis and no abort (envoy#26085): tests/unit/test_doctor.py, test_application.py.
- libvppcom and VPP of different builds crash (envoy#18727): the same, `test_library_of_another_release_...`.
- The event queue overflows with many connections (FDio/vpp#3189): `Config.event_queue_size` sizes it; and a second
  application on a port is told so: tests/behaviour/test_errors.py, `test_port_in_use`.
- The heap grows with each connection (FDio/vpp#3463): tests/behaviour/test_lifecycle.py, 2,000 connections either way.
- Nobody is told that VPP was restarted (vpp-dataplane#617): tests/behaviour/test_restart.py.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

from tests.support.connections import Accepted
from tests.support.protocols import Recorder
from tests.support.sites import Site, VppSite, eventually, in_thread, port_of, receive_all


def test_events_of_a_closed_session_do_not_reach_the_next_of_its_handle(stack: Site) -> None:
    """FDio/vpp#708 and #3343: handles are used again at once, and news for the old one may be under way."""
    chance = random.Random(3343)

    async def main() -> None:
        async with Accepted(stack) as accepted:
            for number in range(300):
                ours, theirs = await accepted.connect()
                mine = struct.pack("!I", number) * 100
                theirs.sendall(mine)
                if chance.random() < 0.5:
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if chance.random() < 0.5:
                    theirs.close()  # its end crosses ours
                ours.transport.abort()
                await ours.lost
                theirs.close()
            await asyncio.sleep(0.1)
            for number, ours in enumerate(accepted.protocols):
                assert ours.news in (["made", "lost"], ["made", "eof", "lost"])
                assert set(struct.iter_unpack("!I", ours.heard)) <= {(number,)}

    stack.run(main)


def test_vpp_does_not_take_what_belongs_to_the_kernel(vpp_site: VppSite) -> None:
    """vpp-dataplane#765: users want both, chosen by address; loopback stays the kernel's."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def opened(name: str) -> int:
            return int(loop.statistics()["stacks"].get(name, {"opened": 0})["opened"])

        async with Accepted(vpp_site) as on_vpp:
            ours: Any = Recorder()
            local = await loop.create_server(lambda: ours, "127.0.0.1", 0)
            before = opened("vpp")
            with socket.create_connection(("127.0.0.1", port_of(local))) as database:
                await eventually(lambda: ours.transport)
                ours.transport.write(b"from the kernel")
                ours.transport.close()
                assert await in_thread(receive_all, database) == b"from the kernel"
            local.close()
            assert opened("vpp") == before
            _, theirs = await on_vpp.connect()
            assert opened("vpp") == before + 1
            theirs.close()

    vpp_site.run(main)
