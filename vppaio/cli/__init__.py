"""The command line: `vppaio run`, `vppaio demo`, `vppaio doctor`, each in a module of its own.

Settings travel in the environment, where `Config` finds them: so they reach every loop of the program, and the programs
it starts.

Exit status: that of the program that was run; else 0, 1 for a failure, 2 for wrong usage. A failure is one line.
"""

from __future__ import annotations

from collections.abc import Sequence

import vppaio
from vppaio.cli import demo, doctor, run
from vppaio.cli.options import Parser, settings_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: those of the process by default.

    Raises:
        SystemExit: the command could not be run; what it says is on stderr.
    """
    parser = Parser(prog="vppaio", description="asyncio on FD.io VPP's host stack.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vppaio {vppaio.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    settings = settings_parser()
    for command in (run, demo, doctor):
        command.add_to(commands, settings)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.error("name a command: run, demo or doctor")
    status: int = options.function(options)
    return status
