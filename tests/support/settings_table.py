"""The documentation's table of settings, made from what `Config` knows of them.

`python -m tests.support.settings_table` prints it; tests/unit/test_settings.py compares it with docs/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vppaio.config import SETTINGS

HEADER: Final = ("| field | variable | values | default | meaning |", "| --- | --- | --- | --- | --- |")


def table() -> Iterator[str]:
    """Line by line."""
    yield from HEADER
    for setting in SETTINGS.values():
        variables = ", ".join(f"`{name}`" for name in (setting.variable, *setting.further_variables))
        default = setting.default_text or f"`{setting.default_spelled}`"
        yield f"| `{setting.name}` | {variables} | {setting.values} | {default} | {setting.meaning} |"


if __name__ == "__main__":
    print(*table(), sep="\n")
