"""gunicorn, unchanged: its arbiter binds a kernel socket and forks, and the worker's loop serves it, on VPP as well."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest

from tests.support.programs import free_port, running
from tests.support.sites import Site

APPLICATION = """
import asyncio
from aiohttp import web

def text(client):
    return f"{type(asyncio.get_running_loop()).__module__} for {client}"

async def answer(request):
    return web.Response(text=text(request.remote))

for_aiohttp = web.Application()
for_aiohttp.router.add_get("/", answer)

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text(scope["client"][0]).encode()})

from uvicorn.workers import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "vppaio:new_event_loop", "lifespan": "off"}
"""
# Those that ask asyncio for their loop are run by vppaio; uvicorn's worker takes uvloop unless it is told otherwise.
POLICY = ("-m", "vppaio", "run", "-m", "gunicorn")
WORKERS = {
    "aiohttp": (*POLICY, "-k", "aiohttp.GunicornWebWorker", "application:for_aiohttp"),
    "gunicorn": (*POLICY, "-k", "asgi", "--asgi-loop", "asyncio", "application:asgi"),
    "uvicorn": ("-m", "gunicorn", "-k", "application.Worker", "application:asgi"),
}


@pytest.mark.parametrize("worker", WORKERS)
def test_one_worker(stack: Site, tmp_path: Path, worker: str) -> None:
    (tmp_path / "application.py").write_text(textwrap.dedent(APPLICATION))
    port = free_port()
    # The arbiter binds with the kernel, which has no address of VPP's.
    command = (*WORKERS[worker], "-w", "1", "-b", f"0.0.0.0:{port}", "--no-control-socket", "--log-level", "warning")
    with running(stack, port, *command, cwd=tmp_path, end=signal.SIGTERM):
        done = stack.command(["curl", "-sS", "-m", "20", f"http://{stack.address}:{port}/"])
        assert done.stdout == f"vppaio.loop.eventloop for {stack.peer_address}", done.stderr
