"""A sub-interpreter, as mod_wsgi has one for an application: a loop runs there, and a second one is refused."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
if sys.version_info < (3, 13):
    import _xxsubinterpreters as interpreters
    legacy = {"isolated": False}
else:
    import _interpreters as interpreters
    legacy = {"config": "legacy"}
CODE = f'''
import sys
sys.path[:0] = {sys.path!r}
import asyncio, vppaio

async def main():
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
    try:
        asyncio.get_running_loop().add_signal_handler(10, print)
    except RuntimeError as exc:
        print(exc, flush=True)

vppaio.run(main(), config=vppaio.Config(stack="host"))
print("served", flush=True)
'''
for _ in range(2):
    try:
        failed = interpreters.run_string(interpreters.create(**legacy), CODE)
    except Exception as exc:  # up to 3.12
        failed = exc
    if failed:
        print("one interpreter per process" in str(failed), flush=True)
"""


def test_loop_in_a_sub_interpreter_does_not_raise_for_signals_it_may_not_have() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    refused, served, second = done.stdout.splitlines()
    assert "main thread of the main interpreter" in refused  # as asyncio says it
    assert (served, second) == ("served", "True"), done.stderr
