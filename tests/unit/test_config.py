"""Config: where values come from, and what wrong ones are told."""

from __future__ import annotations

import dataclasses
import decimal
import ipaddress
import os
from pathlib import Path

import pytest

import vppaio
from vppaio.config import APP_SOCKET, SETTINGS, Config


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [*os.environ]:
        if key.startswith(("VPPAIO_", "VCL_")):
            monkeypatch.delenv(key)


def test_defaults():
    config = Config()
    assert dataclasses.asdict(config) == {
        "stack": "auto",
        "app_socket": APP_SOCKET,
        "vcl_config": None,
        "app_name": f"vppaio-{os.getpid()}",
        "routes": (),
        "rx_fifo_size": 1 << 20,
        "tx_fifo_size": 1 << 20,
        "segment_size": 256 << 20,
        "heap_size": 256 << 20,
        "event_queue_size": 65536,
        "busy_poll_us": 0,
        "adopt_sockets": True,
        "on_stack_loss": "restore",
    }


def test_is_frozen_comparable_and_hashable():
    config = Config(stack="host")
    assert config == Config(stack="host")
    assert hash(config) == hash(Config(stack="host"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.stack = "vpp"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("stack", "host", "host"),
        ("app_socket", "/tmp/app", "/tmp/app"),
        ("vcl_config", "/tmp/vcl.conf", "/tmp/vcl.conf"),
        ("app_name", "web", "web"),
        ("routes", "10.0.0.0/8=host, ::/0=vpp", (("10.0.0.0/8", "host"), ("::/0", "vpp"))),
        ("rx_fifo_size", "64K", 65536),
        ("tx_fifo_size", "131072", 131072),
        ("segment_size", "1g", 1 << 30),
        ("heap_size", "512M", 512 << 20),
        ("event_queue_size", "4096", 4096),
        ("busy_poll_us", "50", 50),
        ("adopt_sockets", "no", False),
        ("on_stack_loss", "fail", "fail"),
    ],
)
def test_every_field_has_a_variable(monkeypatch, name, text, value):
    monkeypatch.setenv(SETTINGS[name].variable, text)
    assert getattr(Config(), name) == value


def test_every_field_has_a_variable_is_complete():
    marks = test_every_field_has_a_variable.pytestmark
    assert {case[0] for case in marks[0].args[1]} == {field.name for field in dataclasses.fields(Config)}


def test_argument_beats_environment_even_a_wrong_one(monkeypatch):
    monkeypatch.setenv("VPPAIO_STACK", "nonsense")
    assert Config(stack="host").stack == "host"


def test_environment_is_read_when_the_config_is_made(monkeypatch):
    monkeypatch.setenv("VPPAIO_STACK", "host")
    config = Config()
    monkeypatch.setenv("VPPAIO_STACK", "vpp")
    assert config.stack == "host"
    assert Config().stack == "vpp"


def test_empty_variable_is_unset(monkeypatch):
    monkeypatch.setenv("VPPAIO_STACK", "")
    monkeypatch.setenv("VPPAIO_BUSY_POLL_US", "")
    assert Config() == Config(stack="auto", busy_poll_us=0)


def test_vcl_config_variable_of_other_programs_counts(monkeypatch):
    monkeypatch.setenv("VCL_CONFIG", "/tmp/theirs.conf")
    assert Config().vcl_config == "/tmp/theirs.conf"
    monkeypatch.setenv("VPPAIO_VCL_CONFIG", "/tmp/ours.conf")
    assert Config().vcl_config == "/tmp/ours.conf"


def test_relative_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = Config(app_socket="app.sock")
    assert config.app_socket == str(tmp_path / "app.sock")  # VCL takes anything else for a host name


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("stack", "kernel", "auto, vpp or host"),
        ("stack", None, "auto, vpp or host"),
        ("app_socket", "/tmp/a b", "white space"),
        ("app_socket", "", "path"),
        ("app_socket", "/" + "x" * 107, "107 bytes"),
        ("app_socket", None, "path"),
        ("vcl_config", "", "path"),
        ("vcl_config", 5, "path"),
        ("app_name", "", "1 to 63 bytes"),
        ("app_name", "x" * 64, "1 to 63 bytes"),
        ("app_name", "ä" * 32, "1 to 63 bytes"),
        ("app_name", "a\nb", "1 to 63 bytes"),
        ("rx_fifo_size", 4095, "4K to 1G"),
        ("rx_fifo_size", (1 << 30) + 1, "4K to 1G"),
        ("tx_fifo_size", "64K", "whole number"),
        ("segment_size", 1 << 20, "4M to 64G"),
        ("event_queue_size", 255, "256 to 1048576"),
        ("busy_poll_us", -1, "0 to 1000000"),
        ("busy_poll_us", 1.5, "whole number"),
        ("busy_poll_us", True, "whole number"),
        ("adopt_sockets", "no", "True or False"),
        ("routes", "10.0.0.0/8", "NETWORK=STACK"),
        ("routes", "10.0.0.0/8=kernel", "host or vpp"),
        ("routes", "10.1.0.0/8=host", "host bits set"),
        ("routes", "example.org=host", "networks such as"),
        ("routes", "10.0.0.0/8=host,10.0.0.0/8=vpp", "only once"),
        ("routes", [("10.0.0.0/8",)], "pairs"),
        ("routes", 7, "pairs"),
    ],
)
def test_bad_value_names_field_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        Config(**{name: value})
    text = str(caught.value)
    assert repr(value) in text
    assert allowed in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stack", "x"),
        ("rx_fifo_size", "64Q"),
        ("segment_size", "K"),
        ("busy_poll_us", "fast"),
        ("adopt_sockets", "maybe"),
    ],
)
def test_bad_variable_is_named(monkeypatch, name, text):
    monkeypatch.setenv(SETTINGS[name].variable, text)
    with pytest.raises(ValueError, match=rf"^{name} \(from the environment, {SETTINGS[name].variable}\): '{text}'"):
        Config()


def test_segment_has_to_hold_some_connections():
    with pytest.raises(ValueError, match=r"segment_size: .* at least 8M"):
        Config(segment_size=4 << 20)
    assert Config(segment_size=4 << 20, rx_fifo_size=4096, tx_fifo_size=4096).segment_size == 4 << 20


def test_settings_without_effect_beside_a_vcl_conf_are_refused():
    with pytest.raises(ValueError, match=r"rx_fifo_size: 4096 has no effect beside vcl_config, set it in /x\.conf"):
        Config(vcl_config="/x.conf", rx_fifo_size=4096)


def test_first_segment_has_room_for_the_event_queue():
    Config(segment_size=64 << 20, event_queue_size=1 << 20)
    with pytest.raises(ValueError, match=r"segment_size: 33554432 .*at least 64M.*event_queue_size \(1048576\)"):
        Config(segment_size=32 << 20, event_queue_size=1 << 20)


# ---- odd values ------------------------------------------------------------------------------------------------------


class _Fails:
    """An object whose every answer is an exception."""

    def __fspath__(self) -> str:
        raise RuntimeError("fspath")

    def __iter__(self):
        raise RuntimeError("iter")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class _FailingWord(str):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = str.__hash__


class _PathOf:
    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return self._path


def _failing_pairs():
    yield ("10.0.0.0/8", "host")
    raise RuntimeError("pairs")


_ODD = (
    *(None, 0, 1, -1, 1 << 100, 1.5, float("nan"), float("inf"), True, False, 1j, decimal.Decimal(3), range(3)),
    *(b"", b"x", bytearray(b"x"), memoryview(b"x"), _PathOf(b"/x"), _PathOf(3), _Fails(), _FailingWord("auto")),
    *("", " ", "\0", "a\0b", "\n", "a\nb", "a b", "x" * 64, "x" * 5000, "\udcff", "é" * 40, "\u200b", "true", "1"),
    *(object(), object, len, ..., NotImplemented, Exception("x"), iter(()), _failing_pairs(), Path("x"), Path("/a b")),
    *([], {}, set(), (), [1], ["a"], {"a": 1}, ("a", "b"), (("a",),), [(None, "host")], [({}, {})], {"::/0": "host"}),
    *([("10.0.0.0/8", ["host"])], [("10.0.0.0/8", "HOST")], (("10.0.0.0/8", "host", "x"),), "=host", "::/0=", "::/0"),
    *("999.0.0.0/8=host", "10.0.0.1/8=host", "::/0=vpp,::/0=host", ipaddress.ip_network("10.0.0.0/8"), "64K"),
)


@pytest.mark.parametrize("name", SETTINGS)
def test_odd_values_are_taken_or_refused_with_the_name_of_the_field(name):
    for value in _ODD:
        said = ""
        try:
            config = Config(**{name: value})
        except ValueError as error:
            said = str(error)
        assert said.startswith(f"{name}: ") or Config(**{name: getattr(config, name)}) == config


@pytest.mark.parametrize("value", [0, "auto", {}, Config, _PathOf("x")])
def test_what_is_no_config_is_refused(value):
    with pytest.raises(TypeError, match=r"^config: "):
        vppaio.new_event_loop(value)
