"""`vppaio demo`: serve a small aiohttp application, or let a client in another process check it."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import ipaddress
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import vppaio
from vppaio.cli.options import Parser, configure, fail, reason
from vppaio.cli.process import install_loop
from vppaio.config import Config
from vppaio.diagnosis import python_path
from vppaio.routes import RouteTable
from vppaio.vcl import application, probe, vclconf

if TYPE_CHECKING:
    from vppaio.cli.options import Commands

_START_LIMIT_S: Final = 30
_STOP_LIMIT_S: Final = 10
_UNKNOWN: Final = "ADDRESS-OF-VPP"


def add_to(commands: Commands, settings: Parser) -> None:
    demo = commands.add_parser("demo", help="serve a small aiohttp application", parents=[settings], allow_abbrev=False)
    demo.add_argument("--host", help="address to serve on; default: 127.0.0.1 on the host stack, 0.0.0.0 on VPP")
    demo.add_argument("--port", type=int, help="default: 8080; 0: any free one")
    demo.add_argument("--check", action="store_true", help="serve, let a client in another process check, and stop")
    demo.set_defaults(function=_demo)


def _demo(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("aiohttp") is None:
        fail("demo: aiohttp is missing, pip install 'vppaio[demo]'")
    if options.port is not None and not 0 <= options.port <= 65535:
        fail(f"demo: --port {options.port} is not allowed; use 0 to 65535", 2)
    config = configure(options)
    try:
        return _check_demo(config, options) if options.check else _serve_demo(config, options)
    except (OSError, ValueError) as error:
        fail(f"demo: {reason(error)}")


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

    install_loop()
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
        late = threading.Timer(_START_LIMIT_S, server.kill)
        late.start()
        try:
            line = server.stdout.readline() if server.stdout else ""
            late.cancel()
            print(line, end="", flush=True)
            good = bool(line) and _be_client(config, line)
        finally:
            late.cancel()
            server.terminate()
            status = server.wait(_STOP_LIMIT_S)
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
