"""What of the VPP for tests can be seen without a VPP."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vppaio.testing.netns import NetworkNamespace, maker_is_dead
from vppaio.testing.vppinstance import VppInstance


def test_unavailable_names_the_missing_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = VppInstance.unavailable()
    assert reason is not None
    assert "no program vpp," in reason
    assert "\n" not in reason


def test_names_differ_and_carry_the_pid():
    first, second = NetworkNamespace("vppaio"), NetworkNamespace("vppaio")
    assert first.name != second.name
    assert first.name.split("-")[1] == str(os.getpid())


def test_only_own_names_of_dead_processes_are_stale():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert maker_is_dead(f"vppaio-{dead.pid}-1", "vppaio")
    assert not maker_is_dead(f"vppaio-{os.getpid()}-1", "vppaio")
    for foreign in (f"other-{dead.pid}-1", "vppaio-blue-1", "vppaio", f"vppaio-{dead.pid}-1-x"):
        assert not maker_is_dead(foreign, "vppaio")


@pytest.mark.parametrize(
    ("options", "stanza"),
    [
        ({"tcp": "closewait-time 30"}, "tcp { closewait-time 30 }"),
        ({"offload": True}, "tcp {  tso }"),
        ({"main_core": 0}, "cpu { main-core 0 }"),
        ({"session": "enable"}, "session { enable }"),
        ({"extra": "udp { mtu 1400 }"}, "udp { mtu 1400 }"),
        ({"plugins": ["http"]}, "plugin http_plugin.so { enable }"),
    ],
)
def test_options_reach_the_configuration(options, stanza):
    assert stanza in VppInstance(**options)._configuration()


def test_stanzas_without_options_are_left_out():
    configuration = VppInstance()._configuration()
    assert "tcp {" not in configuration  # VPP refuses an empty one
    assert "cpu {" not in configuration
