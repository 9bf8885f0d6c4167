"""uvicorn, unchanged: its command line in a process of its own, with httptools and websockets."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import free_port, running
from tests.support.sites import PATIENCE, Site

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
    elif scope["type"] == "http":
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(b"x-client", scope["client"][0].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d bytes" % len(body)})
"""

CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], proxy=None) as connection:
    for number in range(50):
        connection.send(f"message {number}")
        assert connection.recv(timeout=10) == f"MESSAGE {number}"
print("done")
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uvicorn")
    (path / "application.py").write_text(textwrap.dedent(APPLICATION))
    return path


def command(stack: Site, directory: Path, port: int, *options: str) -> tuple[str, ...]:
    return (
        *("-m", "uvicorn", "application:app", "--app-dir", str(directory), "--log-level", "warning"),
        *("--loop", "vppaio:new_event_loop", "--host", stack.address, "--port", str(port), *options),
    )


@contextlib.contextmanager
def uvicorn(stack: Site, directory: Path, *options: str) -> Iterator[int]:
    """A running uvicorn on our loop."""
    port = free_port()
    with running(stack, port, *command(stack, directory, port, *options)):
        yield port


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_requests(stack: Site, directory: Path, tmp_path: Path, http: str) -> None:
    (tmp_path / "upload").write_bytes(bytes(1_000_000))
    with uvicorn(stack, directory, "--http", http) as port:
        url = f"http://{stack.address}:{port}/"
        for options, answer in (((), "0 bytes"), (("--data-binary", f"@{tmp_path / 'upload'}"), "1000000 bytes")):
            done = stack.command(["curl", "-sS", "-m", "20", "-i", *options, url])
            assert done.stdout.endswith(answer), done.stderr
            assert f"x-client: {stack.peer_address}" in done.stdout


def test_web_sockets(stack: Site, directory: Path) -> None:
    with uvicorn(stack, directory, "--ws", "auto") as port:
        done = stack.command([sys.executable, "-c", CLIENT, f"ws://{stack.address}:{port}/"])
        assert done.stdout == "done\n", done.stderr


def test_second_process_on_the_same_address_is_told_so(stack: Site, directory: Path) -> None:
    """As with `--workers 2` on VPP, where an address belongs to one application."""
    with uvicorn(stack, directory) as port:
        with stack.python(*command(stack, directory, port), stderr=subprocess.STDOUT) as second:
            try:
                said, _ = second.communicate(timeout=PATIENCE * 2)
            finally:
                second.kill()
        assert second.returncode not in (0, -signal.SIGKILL)
        assert "address already in use" in said.lower()
        assert f"'{stack.address}', {port}" in said
        done = stack.command(["curl", "-sS", "-m", "20", f"http://{stack.address}:{port}/"])
        assert done.stdout == "0 bytes", done.stderr
