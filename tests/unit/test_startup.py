"""What doctor says of a VPP's startup configuration."""

from __future__ import annotations

import os

import pytest

from vppaio.testing.vppinstance import VppInstance
from vppaio.vcl import startup


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("session { enable use-app-socket-api use-private-rx-mqs }", []),
        ("session{use-private-rx-mqs}", []),
        ("unix { nodaemon }\nsession {\n  enable\n  # use-private-rx-mqs\n}\n", ["use-private-rx-mqs"]),
        ("session { use-private-rx-mqs preallocated-sessions 1000 }", ["preallocated-sessions"]),
        ("tcp { preallocated-sessions 1 } session { use-private-rx-mqs evt_qs_memfd_seg { x } }", []),
        ("", ["use-private-rx-mqs"]),
    ],
)
def test_remarks_on_a_configuration(text: str, words: list[str]) -> None:
    found = startup.remarks_on(text)
    assert len(found) == len(words)
    assert all(word in remark for word, remark in zip(words, found, strict=True))


def test_a_process_that_cannot_be_read_has_none() -> None:
    assert startup.remarks(0x7FFFFFFF) == []
    assert len(startup.remarks(os.getpid())) == 1  # its arguments are no configuration with private queues


@pytest.mark.vpp
def test_remarks_on_a_running_vpp(own_vpp: VppInstance) -> None:
    assert startup.remarks(own_vpp.pid) == []
