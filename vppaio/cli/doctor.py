"""`vppaio doctor`: say whether VPP can be used here, and if not, why."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from vppaio.cli.options import Parser, configure
from vppaio.diagnosis import diagnose

if TYPE_CHECKING:
    from vppaio.cli.options import Commands


def add_to(commands: Commands, settings: Parser) -> None:
    doctor = commands.add_parser(
        "doctor", help="say whether VPP can be used here, and if not, why", parents=[settings], allow_abbrev=False
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(function=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    diagnosis = diagnose(configure(options))
    if options.json:
        print(json.dumps(dataclasses.asdict(diagnosis), indent=2))
    else:
        print(*diagnosis.lines(), sep="\n")
    return 0 if diagnosis.usable else 1
