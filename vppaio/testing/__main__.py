"""`python -m vppaio.testing -- COMMAND`: run a command beside a private VPP."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from vppaio.testing.vppinstance import VppInstance


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vppaio.testing", description="Run a command beside a VPP.")
    parser.add_argument("--tcp", default="", metavar="OPTIONS", help="for the tcp stanza, such as 'closewait-time 30'")
    parser.add_argument("--extra", default="", metavar="STANZAS", help="more of startup.conf, verbatim")
    parser.add_argument("--plugin", action="append", default=[], metavar="NAME", help="such as http; may be repeated")
    parser.add_argument("--main-core", type=int, metavar="CPU", help="pin VPP to this CPU")
    parser.add_argument("--offload", action="store_true", help="TSO and checksum offload between VPP and the kernel")
    parser.add_argument("command", nargs="*", help="default: $SHELL; runs in the root namespace")
    options = parser.parse_args(arguments)
    if reason := VppInstance.unavailable():
        parser.exit(2, f"{reason}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the context is left
    command = options.command or [os.environ.get("SHELL", "/bin/sh")]
    with VppInstance(
        tcp=options.tcp,
        extra=options.extra,
        plugins=options.plugin,
        main_core=options.main_core,
        offload=options.offload,
    ) as vpp:
        # Ctrl-C is for the command, which would inherit SIG_IGN.
        signal.signal(signal.SIGINT, lambda *_: None)
        with subprocess.Popen(command, env=os.environ | vpp.environment()) as process:
            try:
                return process.wait()
            finally:
                process.terminate()


if __name__ == "__main__":
    sys.exit(main())
