"""Why VPP cannot be used here: what `vppaio doctor` finds out.

Everything that touches libvppcom happens in a process of its own with a time limit: a VPP that hangs, or a libvppcom
that crashes on it, ends that process and not the diagnosis. It writes what it has found line by line, so that the last
line before a crash is still known.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vppaio.config import SETTINGS, Config
from vppaio.vcl import application, startup
from vppaio.vcl.errors import Unusable
from vppaio.vcl.library import unguarded

_LIMIT_S: Final = 12.0  # connecting may take 2 s and attaching 5 s before they give up by themselves


@dataclass
class Diagnosis:
    """What was found, in the order in which it was looked for; empty where nobody got that far."""

    usable: bool = False
    app_socket: str = ""
    vcl_config: str = ""
    libvppcom: str = ""
    libvppcom_release: str = ""
    vpp_pid: int = 0
    vpp_release: str = ""
    problem: str = ""
    cause: str = ""
    cure: str = ""
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The same for people; the last line is the verdict."""
        library = f"{self.libvppcom_release or 'unknown release'}, {self.libvppcom}"
        vpp = f"{self.vpp_release or 'unknown release'}, pid {self.vpp_pid or 'unknown'}"
        yield f"vcl.conf    {self.vcl_config or 'written by vppaio'}"
        yield f"libvppcom   {library if self.libvppcom else 'not loaded'}"
        yield f"app socket  {self.app_socket or 'none named'}"
        yield f"VPP         {vpp if self.vpp_pid or self.vpp_release else 'not reached'}"
        for remark in self.remarks:
            yield f"remark      {remark}"
        yield "VPP is usable: attached" if self.usable else f"VPP is not usable: {self.cause}; {self.cure}"


def diagnose(config: Config) -> Diagnosis:
    """Try to attach as a loop would, in another process; takes at most `_LIMIT_S`."""
    environment = {**os.environ, **python_path(), SETTINGS["app_socket"].variable: config.app_socket}
    if config.vcl_config is not None:
        environment[SETTINGS["vcl_config"].variable] = config.vcl_config
        del environment[SETTINGS["app_socket"].variable]
    command = [sys.executable, "-c", "from vppaio import diagnosis; diagnosis.trial()"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    try:
        found, said = child.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        found, said = child.communicate()
        ending = ("vpp-hung", f"VPP hangs: no answer for {_LIMIT_S:.0f} s", "look at what it is doing, or restart it")
    else:
        ending = (
            "crashed",
            f"libvppcom ended its process while attaching ({_ending(child.returncode)})",
            "use the libvppcom of the very build that runs as VPP",
        )
    return _compose(found, said, ending)


def python_path() -> dict[str, str]:
    """The variable that lets a child find this very package, wherever it is started."""
    here = str(Path(__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}


def _compose(found: str, said: str, ending: tuple[str, str, str]) -> Diagnosis:
    result = Diagnosis()
    for line in found.splitlines():
        facts = json.loads(line)
        result.remarks += facts.pop("further_remarks", [])
        for name, value in facts.items():
            setattr(result, name, value)
    if not result.usable and not result.problem:
        result.problem, result.cause, result.cure = ending
    if result.vpp_pid:
        result.remarks += startup.remarks(result.vpp_pid)
    if not result.usable:
        result.remarks += [f"libvppcom said: {line.strip()}" for line in said.splitlines()[-3:] if line.strip()]
    return result


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def trial() -> None:
    """The part that may hang or crash; runs in the other process, with the settings from the environment."""

    def report(**facts: Any) -> None:
        print(json.dumps(facts), flush=True)

    try:
        application.attach_or_explain(Config(), report)
    except Unusable as reason:
        report(problem=reason.name, cause=reason.cause, cure=reason.cure)
    else:
        report(usable=True, further_remarks=[*filter(None, [unguarded()])])
