"""What the startup configuration of a running VPP says that a service will regret.

Used by `vppaio doctor`. Reads the command line of VPP's process and the file that it names, as far as this user may.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_COMMENT: Final = re.compile(r"#.*")


def remarks(pid: int) -> list[str]:
    """Of the VPP with this pid, one line each; none if its configuration cannot be read."""
    text = _configuration(Path("/proc") / str(pid))
    return [] if text is None else remarks_on(text)


def _configuration(process: Path) -> str | None:
    """Arguments of VPP are configuration, or `-c` and the file that has it."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
        if "-c" not in words[:-1]:
            return " ".join(words)
        name = words[words.index("-c") + 1]
        folder = process / "root" if name.startswith("/") else process / "cwd"
        return (folder / name.lstrip("/")).read_text(errors="replace")
    except OSError:
        return None


def remarks_on(text: str) -> list[str]:
    """The same for the text of a configuration."""
    words = _stanza(text, "session")
    found = []
    if "preallocated-sessions" in words:
        found.append(
            "startup.conf: session { preallocated-sessions }: VPP aborts when that many sessions exist, those in "
            "TIME_WAIT included; remove it"
        )
    if "use-private-rx-mqs" not in words:
        found.append(
            "startup.conf: without session { use-private-rx-mqs } an idle VPP uses most of a core, and applications "
            "share a queue that the death of one can block; add it"
        )
    return found


def _stanza(text: str, name: str) -> list[str]:
    """The words of the stanzas called `name`."""
    words = re.sub(r"([{}])", r" \1 ", _COMMENT.sub("", text)).split()
    found: list[str] = []
    depth, inside = 0, False
    for before, word in zip(["", *words], words, strict=False):
        if word == "{":
            depth += 1
            inside = inside or (depth == 1 and before == name)
        elif word == "}":
            depth -= 1
            inside = inside and depth > 0
        elif inside:
            found.append(word)
    return found
