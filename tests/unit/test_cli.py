"""The command line: programs run as under `python`, and every failure is one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fakes.libvppcom import clean_environment, silent_vpp, stub

PROGRAM = """
import asyncio, sys
def kind(loop):
    return f"{type(loop).__module__}.{type(loop).__name__}"
async def main():
    return kind(asyncio.get_running_loop())
"""


def vppaio(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vppaio", *arguments]
    environment = clean_environment(**{"VPPAIO_STACK": "host", **variables})
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=40)


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def script(tmp_path):
    def write(text: str, name: str = "script.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


# ---- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "run, demo or doctor"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "name a script or -m MODULE"),
        (["run", "-m"], "name a script or -m MODULE"),
        (["run", "--speed", "x.py"], "--speed"),
        (["run", "--stack", "kernel", "x.py"], "'kernel'"),
        (["run", "--routes", "10.0.0.1/8=host", "x.py"], "routes: '10.0.0.1/8=host'"),
        (["run", "--busy-poll-us", "-1", "x.py"], "busy_poll_us: -1"),
        (["run", "--busy-poll-us", "fast", "x.py"], "'fast'"),
        (["run", "--app-socket", "/a b", "x.py"], "app_socket: '/a b'"),
        (["run", "/none/x.py"], "there is no /none/x.py"),
        (["demo", "--port", "65536"], "--port 65536"),
        (["demo", "--port", "http"], "'http'"),
        (["doctor", "--quick"], "--quick"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, said):
    assert_one_line(vppaio(*arguments), 2, said)


def test_wrong_variable_is_one_line_that_names_it():
    assert_one_line(vppaio("run", __file__, VPPAIO_SEGMENT_SIZE="lots"), 2, "VPPAIO_SEGMENT_SIZE", "'lots'")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no_such_module", "there is no module no_such_module"),
        ("json.no_such", "there is no module json.no_such"),
        ("os.path.x", "there is no module os.path.x"),
        ("xml", "xml is a package without __main__"),
        (".", "there is no module ."),
    ],
)
def test_missing_module(module, said):
    assert_one_line(vppaio("run", "-m", module), 1, said)


def test_help_and_version():
    assert "run a program unchanged" in vppaio("--help").stdout
    assert "--busy-poll-us" in vppaio("run", "--help").stdout
    assert vppaio("--version").stdout.startswith("vppaio ")


# ---- run: as python does ---------------------------------------------------------------------------------------------

SURROUNDINGS = """
import json, sys, __main__
print(json.dumps({
    "argv": sys.argv, "path0": sys.path[0], "name": __name__, "file": __file__, "main": __main__.__dict__ is globals(),
}))
"""


@pytest.mark.parametrize("arguments", [[], ["--stack", "vpp", "-m", "x"], ["-h"], ["--", "a b"]])
def test_script_sees_what_python_would_show_it(script, tmp_path, arguments):
    path = script(SURROUNDINGS, "folder/script.py")
    for name in (path, "folder/script.py"):
        ours = vppaio("run", "--stack", "host", name, *arguments, cwd=tmp_path)
        theirs = subprocess.run([sys.executable, name, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert ours.stderr == ""
        assert json.loads(ours.stdout) == json.loads(theirs.stdout)


@pytest.mark.parametrize("module", ["package.module", "package"])
def test_module_sees_what_python_would_show_it(script, tmp_path, module):
    for name in ("package/__init__.py", "package/__main__.py", "package/module.py"):
        script("" if name.endswith("__init__.py") else SURROUNDINGS, name)
    arguments = ["-m", module, "-m", "x", "--stack"]
    ours = vppaio("run", *arguments, cwd=tmp_path)
    theirs = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert ours.stderr == ""
    assert json.loads(ours.stdout) == json.loads(theirs.stdout)


def test_folder_with_main(script, tmp_path):
    script("print('main of a folder', __name__)", "app/__main__.py")
    assert vppaio("run", str(tmp_path / "app")).stdout == "main of a folder __main__\n"


def test_script_imports_its_neighbours(script):
    script("value = 5", "neighbour.py")
    assert vppaio("run", script("import neighbour; print(neighbour.value)")).stdout == "5\n"


@pytest.mark.parametrize(
    ("statement", "status", "stderr"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("os._exit(9)", 9, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, None),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_exit_status(script, statement, status, stderr):
    done = vppaio("run", script(f"import os, sys\n{statement}\n"))
    assert done.returncode == status
    if stderr is not None:
        assert done.stderr == stderr


def test_traceback_is_the_programs_own(script):
    path = script("import asyncio\nasync def main():\n    return 1 / 0\nasyncio.run(main())\n")
    done = vppaio("run", path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{path}", line 4')
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "vppaio/cli" not in done.stderr


def test_syntax_error_is_the_programs_own(script):
    done = vppaio("run", script("def f(:\n"))
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "vppaio/cli" not in done.stderr


def test_missing_import_is_the_programs_own(script):
    done = vppaio("run", script("import no_such_module\n"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


# ---- run: on our loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        "print(asyncio.run(main()))",
        "with asyncio.Runner() as runner: print(runner.run(main()))",
        "loop = asyncio.new_event_loop(); print(kind(loop)); loop.close()",
        # deprecated since 3.14
        "import warnings; warnings.simplefilter('ignore')\n"
        "loop = asyncio.get_event_loop_policy().new_event_loop(); print(kind(loop)); loop.close()",
        pytest.param(
            # deprecated since 3.12
            "import warnings; warnings.simplefilter('ignore')\n"
            "loop = asyncio.get_event_loop(); print(kind(loop)); loop.close()",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 makes no loop there"),
        ),
    ],
)
def test_every_way_to_a_loop_leads_to_ours(script, how):
    done = vppaio("run", script(PROGRAM + how), PYTHONWARNINGS="error")
    assert done.stdout == "vppaio.loop.eventloop.EventLoop\n"
    assert done.stderr == ""


def test_options_reach_the_loop_and_child_programs(script):
    path = script(
        PROGRAM
        + """
import os, subprocess, vppaio
print(vppaio.Config().busy_poll_us, vppaio.Config().routes)
subprocess.run([sys.executable, "-c", "import vppaio; print(vppaio.Config().busy_poll_us)"])
"""
    )
    done = vppaio("run", "--busy-poll-us", "7", "--routes", "10.0.0.0/8=host", path)
    assert done.stdout.splitlines() == ["7 (('10.0.0.0/8', 'host'),)", "7"]


def test_options_beat_the_environment(script):
    path = script("import vppaio; print(vppaio.Config().stack)")
    assert vppaio("run", "--stack", "host", path, VPPAIO_STACK="nonsense").stdout == "host\n"


def test_vpp_that_cannot_be_used_is_one_line(script, tmp_path):
    path = script(
        PROGRAM + "async def main():\n    await asyncio.start_server(print, '10.0.0.1', 0)\nasyncio.run(main())"
    )
    done = vppaio("run", "--stack", "vpp", "--app-socket", str(tmp_path / "none"), path, VPPAIO_LIBVPPCOM=stub())
    assert_one_line(done, 1, "there is no app socket", str(tmp_path / "none"))


# ---- run: SIGTERM ----------------------------------------------------------------------------------------------------

WAITER = """
import asyncio, atexit
atexit.register(print, "exit functions run")
async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(30)
    finally:
        print("cleaned up")
asyncio.run(main())
"""


def terminate(path: str, **variables: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "vppaio", "run", path]
    environment = clean_environment(**variables)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.terminate()
        output, errors = program.communicate(timeout=20)
        return program.returncode, output, errors


def test_sigterm_ends_a_program_on_the_host_stack_as_python_does(script):
    assert terminate(script(WAITER), VPPAIO_STACK="host") == (-signal.SIGTERM, "", "")


def test_sigterm_ends_a_program_on_vpp_in_order(script, tmp_path):
    (tmp_path / "app_ns_sockets").mkdir()
    app_socket = tmp_path / "app_ns_sockets" / "default"
    attach = "from vppaio.config import Config\nfrom vppaio.vcl import application\napplication.attach(Config())\n"
    with silent_vpp(app_socket, "26.06"):
        status, output, errors = terminate(
            script(attach + WAITER), VPPAIO_STACK="host", VPPAIO_APP_SOCKET=str(app_socket), VPPAIO_LIBVPPCOM=stub()
        )
    assert status == -signal.SIGTERM
    assert output == "cleaned up\nexit functions run\n"
    assert "Traceback" not in errors


def test_programs_own_sigterm_handler_stays(script):
    path = script(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)  # signal.pause() sleeps on if the signal comes just before it\n"
    )
    assert terminate(path, VPPAIO_STACK="host")[0] == 5


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_demo_serves_says_where_and_stops():
    command = [sys.executable, "-m", "vppaio", "demo", "--stack", "host", "--port", "0"]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        try:
            assert line.startswith("vppaio demo on the host stack: http://127.0.0.1:")
            url = line.split()[-1]
            got = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())",
                ],
                capture_output=True,
                text=True,
                timeout=20,
            )
            assert json.loads(got.stdout) == {"hello": "world", "loop": "vppaio.loop.eventloop.EventLoop"}
        finally:
            server.terminate()
        assert server.wait(10) == 0


def test_demo_check_proves_itself():
    done = vppaio("demo", "--check")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("vppaio demo on the host stack: http://127.0.0.1:")
    assert len(lines) == 9
    assert all(line.startswith("ok ") for line in lines[1:]), done.stdout
    assert done.returncode == 0


def test_demo_check_fails_where_the_server_does():
    done = vppaio("demo", "--check", "--host", "203.0.113.1")
    assert done.returncode == 1
    assert "203.0.113.1" in done.stderr


def test_demo_on_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(vppaio("demo", "--port", str(port)), 1, "127.0.0.1", str(port))


def test_demo_without_aiohttp_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['aiohttp'] = None")
    path = os.pathsep.join((str(tmp_path), clean_environment()["PYTHONPATH"]))
    assert_one_line(vppaio("demo", PYTHONPATH=path), 1, "pip install 'vppaio[demo]'")


def test_demo_file_runs_on_stock_asyncio():
    import vppaio.demo as demo

    command = [sys.executable, demo.__file__, "--port", "0"]
    with subprocess.Popen(command, env=clean_environment(PYTHONPATH=""), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline().startswith("demo on _UnixSelectorEventLoop: http://127.0.0.1:")
        server.terminate()
        assert server.wait(10) == 0


@pytest.mark.vpp
def test_demo_check_on_vpp(vpp_instance):
    done = vppaio("demo", "--check", VPPAIO_STACK="vpp", VPPAIO_APP_SOCKET=vpp_instance.app_socket)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"vppaio demo on the VPP stack: http://{vpp_instance.address}:")
    assert all(line.startswith("ok ") for line in lines[1:]), done.stdout + done.stderr
    assert (done.returncode, len(lines)) == (0, 9)
    assert vpp_instance.healthy()


@pytest.mark.vpp
def test_run_on_vpp_serves_a_kernel_client(vpp_instance, script):
    path = script(
        f"""
        import asyncio
        async def echo(reader, writer):
            writer.write(await reader.readexactly(5))
            await writer.drain()
            writer.close()
        async def main():
            server = await asyncio.start_server(echo, {vpp_instance.address!r}, 7010)
            print("ready", flush=True)
            await server.serve_forever()
        asyncio.run(main())
        """
    )
    command = [sys.executable, "-m", "vppaio", "run", "--stack", "vpp", path]
    environment = clean_environment(VPPAIO_APP_SOCKET=vpp_instance.app_socket)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as program:
        assert program.stdout.readline() == "ready\n"
        with vpp_instance.kernel_connect(vpp_instance.address, 7010) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        program.terminate()
        _, errors = program.communicate(timeout=20)
    assert (program.returncode, errors) == (-signal.SIGTERM, "")
    assert vpp_instance.healthy()
