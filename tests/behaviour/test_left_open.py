"""Whatever a program leaves open when Python exits: a ResourceWarning at most, as asyncio's, and no failure."""

from __future__ import annotations

import subprocess
import threading

import pytest

from tests.support.sites import Site

KINDS = {
    "stream": "keep.append(await asyncio.open_connection(peer, port))",
    "protocol": "keep.append(await loop.create_connection(asyncio.Protocol, peer, port))",
    "server": "keep.append(await loop.create_server(asyncio.Protocol, address, 4700))",
    "idle server": "keep.append(await loop.create_server(asyncio.Protocol, address, 4701, start_serving=False))",
    "endpoint": "keep.append(await loop.create_datagram_endpoint(Datagrams, (address, 4702)))",
    "connected endpoint": "keep.append(await loop.create_datagram_endpoint(Datagrams, remote_addr=(peer, port)))",
    "socket": "s = vppaio.socket(); await loop.sock_connect(s, (peer, port)); keep.append(s)",
    "unused socket": "keep.append(vppaio.socket())",
    "listening socket": "s = vppaio.socket(); s.bind((address, 4703)); s.listen(); keep.append(s)",
    "accepting": "s = vppaio.socket(); s.bind((address, 4704)); s.listen(); keep.append(soon(loop.sock_accept(s)))",
    "datagram socket": "s = vppaio.socket(type=socket.SOCK_DGRAM); s.bind((address, 4705)); keep.append(s)",
    "connecting": "keep.append(soon(asyncio.open_connection(*silent)))",
    "paused": "t, p = await loop.create_connection(asyncio.Protocol, peer, port); t.pause_reading(); keep.append(t)",
    "full": "t, p = await loop.create_connection(asyncio.Protocol, peer, port); t.write(bytes(9**8)); keep.append(t)",
    "adopted": "s = socket.socket(); s.setblocking(False); await loop.sock_connect(s, (peer, port)); keep.append(s)",
    "handshake": "keep.append(soon(asyncio.open_connection(peer, port, ssl=tls)))",
    "duplicate": "s = vppaio.socket(); await loop.sock_connect(s, (peer, port)); keep.append((s, s.dup()))",
}
HOWS = {
    "runner": "vppaio.run(main())",
    "left": "loop = vppaio.new_event_loop(); asyncio.set_event_loop(loop); loop.run_until_complete(main())",
    "closed": "loop = vppaio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "exit": "vppaio.run(main(True))",
    "cycle": "loop = vppaio.new_event_loop(); loop.run_until_complete(main()); keep.append(keep)",
}
CODE = """
import asyncio, socket, ssl, sys, vppaio
keep = []
tls = ssl.create_default_context()
address, peer, port, silent = sys.argv[1], sys.argv[2], int(sys.argv[3]), (sys.argv[4], int(sys.argv[5]))

class Datagrams(asyncio.DatagramProtocol):
    pass

def soon(coroutine):
    return asyncio.get_running_loop().create_task(coroutine)

async def main(leave=False):
    loop = asyncio.get_running_loop()
    {kinds}
    await asyncio.sleep(0.05)
    if leave:
        sys.exit(0)
{how}
"""


def _run(stack: Site, kinds: list[str], how: str, warnings: str) -> None:
    code = CODE.format(kinds="\n    ".join(KINDS[kind] for kind in kinds), how=HOWS[how])
    ended = threading.Event()
    with stack.silence() as silent, stack.serve(lambda connection: ended.wait(30) and None) as server:
        arguments = (stack.address, stack.peer_address, str(server.port), silent[0], str(silent[1]))
        with stack.python("-W", warnings, "-c", code, *arguments, stderr=subprocess.PIPE) as process:
            _, said = process.communicate(timeout=30)
        ended.set()
    assert process.returncode == 0, said
    assert "Error in sys" not in said
    assert not [line for line in said.splitlines() if "Error" in line or "was never" in line], said


@pytest.mark.parametrize("warnings", ["default", "error"])
@pytest.mark.parametrize("how", HOWS)
def test_all_left_open_at_once(stack: Site, how: str, warnings: str) -> None:
    _run(stack, list(KINDS), how, warnings)


@pytest.mark.parametrize("kind", KINDS)
def test_left_open_alone(stack: Site, kind: str) -> None:
    _run(stack, [kind], "left", "default")
