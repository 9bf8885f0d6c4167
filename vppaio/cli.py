"""The command line: `vppaio run`, `vppaio demo`, `vppaio doctor`.

Settings travel in the environment, where `Config` finds them: so they reach every loop of the program, and the programs
it starts.

Exit status: that of the program that was run; else 0, 1 for a failure, 2 for wrong usage. A failure is one line.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.machinery
import importlib.util
import io
import ipaddress
import json
import os
import pkgutil
import re
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn

import vppaio
from vppaio import config as config_module
from vppaio import settings as settings_module
from vppaio.config import SETTINGS, Config
from vppaio.diagnosis import diagnose, python_path
from vppaio.loop import statistics
from vppaio.routes import RouteTable
from vppaio.vcl import application, probe, vclconf

_DEMO_START_LIMIT_S: Final = 30
_DEMO_STOP_LIMIT_S: Final = 10
_UNKNOWN: Final = "ADDRESS-OF-VPP"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _fail(text: object, status: int = 1) -> NoReturn:
    print(f"vppaio: {text}", file=sys.stderr)
    raise SystemExit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.error("name a command: run, demo or doctor")
    status: int = options.function(options)
    return status


def _parser() -> argparse.ArgumentParser:
    settings = _Parser(add_help=False)
    for own in SETTINGS.values():
        meaning = own.meaning.partition(". ")[0].replace("`", "")
        text = f"{meaning}: {own.values}; default: {own.default_spelled}"
        settings.add_argument(own.option, metavar=own.kind.placeholder, help=text)

    parser = _Parser(prog="vppaio", description="asyncio on FD.io VPP's host stack.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vppaio {vppaio.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser(
        "run",
        help="run a program unchanged on vppaio",
        description="Run a Python program as `python` would, with vppaio as its event loop.",
        usage="vppaio run [options] (script.py | -m module) [args ...]",
        parents=[settings],
        allow_abbrev=False,
    )
    run.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module to run, and its arguments")
    run.add_argument("program", nargs=argparse.REMAINDER, help="a script to run, and its arguments")
    run.add_argument("--stats", metavar="SECONDS", type=_interval, help="print statistics to stderr this often")
    run.add_argument("--metrics-port", metavar="PORT", type=int, help="statistics for Prometheus at 127.0.0.1:PORT")
    run.set_defaults(function=_run)

    demo = commands.add_parser("demo", help="serve a small aiohttp application", parents=[settings], allow_abbrev=False)
    demo.add_argument("--host", help="address to serve on; default: 127.0.0.1 on the host stack, 0.0.0.0 on VPP")
    demo.add_argument("--port", type=int, help="default: 8080; 0: any free one")
    demo.add_argument("--check", action="store_true", help="serve, let a client in another process check, and stop")
    demo.set_defaults(function=_demo)

    doctor = commands.add_parser(
        "doctor", help="say whether VPP can be used here, and if not, why", parents=[settings], allow_abbrev=False
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(function=_doctor)
    return parser


def _configure(options: argparse.Namespace) -> Config:
    """Make the settings of this command those of the process, and of the processes it starts."""
    texts = {name: text for name in SETTINGS if (text := getattr(options, name)) is not None}
    try:
        config = Config(**{name: SETTINGS[name].parsed(text) for name, text in texts.items()})
    except ValueError as error:
        _fail(error, 2)
    for name, text in texts.items():
        os.environ[SETTINGS[name].variable] = text
    return config


# ---- the program's surroundings --------------------------------------------------------------------------------------


def _install_loop() -> None:
    """Make vppaio's the loop of whatever this process runs next, and the process fit for it."""
    vppaio.install()
    sys.excepthook = _print_exception
    # SIGTERM, left alone, ends the process on the spot: VPP is not told, drops its connections late, and 26.06 may even
    # die of it (see vcl.application). Services under systemd get it whenever they are stopped.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends us at once
    if not application.is_attached():
        signal.raise_signal(number)
    application.end_by_signal(number)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise SystemExit(128 + number) from None
    # From a callback of its own, for a task that happens to run now would take it for a failure of its own.
    loop.call_soon_threadsafe(sys.exit, 128 + number)


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shorten tracebacks to what `python program.py` would show, and those of wrong settings to their text."""
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    if frames and frames[-1].f_globals.get("__name__") in _ABOUT_SETTINGS:
        print(f"vppaio: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return
    while trace and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


_ABOUT_SETTINGS: Final = (application.__name__, config_module.__name__, settings_module.__name__)
_OURS: Final = (__file__, str(Path(__file__).with_name("__main__.py")), "<frozen runpy>", runpy.__file__)


# ---- run -------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    words: list[str] = options.program if options.module is None else options.module
    if not words:
        _fail("run: name a script or -m MODULE", 2)
    if words[0].startswith("-") and options.module is None:
        _fail(f"run: unknown option {words[0]}", 2)
    _configure(options)
    _observe(options)
    sys.argv[:] = words
    name = words[0]
    if options.module is not None:
        _set_first_path(os.getcwd())
        _install_loop()
        _find_module(name)
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        if not os.path.exists(name):
            _fail(f"run: there is no {name}", 2)
        if not os.access(name, os.R_OK):
            _fail(f"run: no permission to read {name}", 2)
        _install_loop()
        if pkgutil.get_importer(name) is not None or name.endswith(".pyc"):  # a folder, an archive
            runpy.run_path(name, run_name="__main__")
        else:
            _set_first_path(os.path.dirname(os.path.realpath(name)))
            _run_script(os.path.abspath(name))
    return 0


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:
        raise ValueError
    return seconds


def _observe(options: argparse.Namespace) -> None:
    if options.stats is not None:
        statistics.Reporter(options.stats).start()
    if options.metrics_port is None:
        return
    if importlib.util.find_spec("prometheus_client") is None:
        _fail("run: prometheus-client is missing, pip install 'vppaio[prometheus]'")
    from vppaio import metrics

    try:
        port = metrics.serve(options.metrics_port)
    except (OSError, OverflowError) as error:
        _fail(f"run: --metrics-port {options.metrics_port}: {getattr(error, 'strerror', None) or error}")
    print(f"vppaio: metrics at http://127.0.0.1:{port}/metrics", file=sys.stderr, flush=True)


def _run_script(path: str) -> None:
    """As python does it. runpy.run_path would change sys.argv, and forget the module while its threads still run."""
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module = types.ModuleType("__main__")
    module.__file__, module.__loader__ = path, loader
    sys.modules["__main__"] = module
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)


def _set_first_path(folder: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _find_module(name: str) -> None:
    spec = None
    try:
        if not name.startswith("."):
            spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
            if spec is None:
                _fail(f"run: {name} is a package without __main__", 1)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # the module is there and imports one that is not
        spec = None
    except ValueError:
        spec = None
    if spec is None:
        _fail(f"run: there is no module {name}", 1)


# ---- demo ------------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("aiohttp") is None:
        _fail("demo: aiohttp is missing, pip install 'vppaio[demo]'")
    if options.port is not None and not 0 <= options.port <= 65535:
        _fail(f"demo: --port {options.port} is not allowed; use 0 to 65535", 2)
    config = _configure(options)
    try:
        return _check_demo(config, options) if options.check else _serve_demo(config, options)
    except (OSError, ValueError) as error:
        _fail(f"demo: {getattr(error, 'strerror', None) or error}")


def _serve_demo(config: Config, options: argparse.Namespace) -> int:
    from vppaio import demo

    on_vpp = config.stack == "vpp" or (config.stack == "auto" and application.is_configured(config))
    host = options.host or ("0.0.0.0" if on_vpp else "127.0.0.1")
    port = 8080 if options.port is None else options.port

    def announce(address: tuple[Any, ...]) -> None:
        attached = "vpp" in asyncio.get_running_loop().stacks  # type: ignore[attr-defined]
        stack = RouteTable(config.routes, attached).stack_for(address[0])
        hint = ""
        if stack == "vpp" and ipaddress.ip_address(address[0]).is_unspecified:
            address = (_address_of_vpp(6 if ":" in address[0] else 4), *address[1:])
            if address[0] == _UNKNOWN:
                hint = " (see `vppctl show interface address`, or choose one with --host)"
        url = demo.url_of(address)
        print(f"vppaio demo on the {'VPP' if stack == 'vpp' else 'host'} stack: {url}{hint}", flush=True)

    _install_loop()
    demo.main(["--host", host, "--port", str(port)], announce)
    return 0


def _address_of_vpp(version: int) -> str:
    """An address of VPP, if its command line is within reach."""
    command = ["vppctl", "-s", probe.beside(application.app_socket(), "cli.sock"), "show interface address"]
    try:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2).stdout
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    addresses = map(ipaddress.ip_address, re.findall(r"L3 ([0-9a-f.:]+)/", answer))
    usable = (str(found) for found in addresses if found.version == version and not found.is_link_local)
    return next(usable, _UNKNOWN)


def _check_demo(config: Config, options: argparse.Namespace) -> int:
    """Serve in another process, be its client in this one."""
    command = [sys.executable, "-m", "vppaio", "demo", "--port", str(options.port or 0)]
    if options.host:
        command += ["--host", options.host]
    environment = {**os.environ, **python_path()}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as server:
        late = threading.Timer(_DEMO_START_LIMIT_S, server.kill)
        late.start()
        try:
            line = server.stdout.readline() if server.stdout else ""
            late.cancel()
            print(line, end="", flush=True)
            good = bool(line) and _be_client(config, line)
        finally:
            late.cancel()
            server.terminate()
            status = server.wait(_DEMO_STOP_LIMIT_S)
    _report_check(status == 0, "the server stops when asked" + (f": exit status {status}" if status else ""))
    return 0 if good and status == 0 else 1


def _be_client(config: Config, line: str) -> bool:
    """Make the checks on the stack that the server's `line` names."""
    from vppaio.demo_check import check

    host, port = re.findall(r"http://(.*):(\d+)/", line)[0]
    if "VPP stack" not in line:
        return asyncio.run(check(f"http://{host}:{port}/", _report_check))
    # The kernel may have no way to VPP, but another application of the same VPP has one, through shared memory. A
    # wildcard listener is found there by any address; these two are reserved for documentation, so nobody's.
    if config.vcl_config is not None:
        app_socket = vclconf.read(config.vcl_config).app_socket
        config = dataclasses.replace(config, vcl_config=None, app_socket=app_socket)
    application.attach(config, cut_through=True)
    host = {_UNKNOWN: "192.0.2.1", f"[{_UNKNOWN}]": "[2001:db8::1]"}.get(host, host)
    return vppaio.run(check(f"http://{host}:{port}/", _report_check), config=config)


def _report_check(good: bool, text: str) -> None:
    print(f"{'ok  ' if good else 'FAIL'}  {text}", flush=True)


# ---- doctor ----------------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    diagnosis = diagnose(_configure(options))
    if options.json:
        print(json.dumps(dataclasses.asdict(diagnosis), indent=2))
    else:
        print(*diagnosis.lines(), sep="\n")
    return 0 if diagnosis.usable else 1
