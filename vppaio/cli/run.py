"""`vppaio run`: a program unchanged on vppaio, as `python` would run it."""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import runpy
import sys
import types
from typing import TYPE_CHECKING

from vppaio.cli.options import Parser, configure, fail, reason
from vppaio.cli.process import install_loop
from vppaio.cli.reporter import Reporter

if TYPE_CHECKING:
    from vppaio.cli.options import Commands


def add_to(commands: Commands, settings: Parser) -> None:
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


def _run(options: argparse.Namespace) -> int:
    words: list[str] = options.program if options.module is None else options.module
    if not words:
        fail("run: name a script or -m MODULE", 2)
    if words[0].startswith("-") and options.module is None:
        fail(f"run: unknown option {words[0]}", 2)
    configure(options)
    _observe(options)
    sys.argv[:] = words
    name = words[0]
    if options.module is not None:
        _set_first_path(os.getcwd())
        install_loop()
        _find_module(name)
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        if not os.path.exists(name):
            fail(f"run: there is no {name}", 2)
        if not os.access(name, os.R_OK):
            fail(f"run: no permission to read {name}", 2)
        install_loop()
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
        Reporter(options.stats).start()
    if options.metrics_port is None:
        return
    if importlib.util.find_spec("prometheus_client") is None:
        fail("run: prometheus-client is missing, pip install 'vppaio[prometheus]'")
    from vppaio import metrics

    try:
        port = metrics.serve(options.metrics_port)
    except (OSError, OverflowError) as error:
        fail(f"run: --metrics-port {options.metrics_port}: {reason(error)}")
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
                fail(f"run: {name} is a package without __main__", 1)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # the module is there and imports one that is not
        spec = None
    except ValueError:
        spec = None
    if spec is None:
        fail(f"run: there is no module {name}", 1)
