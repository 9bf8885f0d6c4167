"""What the commands share: a parser whose errors are one line, an option for each setting, and how a command fails."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from vppaio.config import SETTINGS, Config

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def fail(text: object, status: int = 1) -> NoReturn:
    """End the process with a line on stderr."""
    print(f"vppaio: {text}", file=sys.stderr)
    raise SystemExit(status)


def reason(error: BaseException) -> object:
    """What an error says, without its number."""
    return getattr(error, "strerror", None) or error


def settings_parser() -> Parser:
    """A parent of the commands' parsers, with an option for each setting."""
    parser = Parser(add_help=False)
    for setting in SETTINGS.values():
        meaning = setting.meaning.partition(". ")[0].replace("`", "")
        text = f"{meaning}: {setting.values}; default: {setting.default_spelled}"
        parser.add_argument(setting.option, metavar=setting.kind.placeholder, help=text)
    return parser


def configure(options: argparse.Namespace) -> Config:
    """Make the settings of this command those of the process, and of the processes it starts."""
    texts = {name: text for name in SETTINGS if (text := getattr(options, name)) is not None}
    try:
        config = Config(**{name: SETTINGS[name].parsed(text) for name, text in texts.items()})
    except ValueError as error:
        fail(error, 2)
    for name, text in texts.items():
        os.environ[SETTINGS[name].variable] = text
    return config
