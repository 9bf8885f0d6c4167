"""What is made from the settings: the documentation's table, vcl.conf, Config's docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from tests.support.settings_table import HEADER, table
from vppaio.config import SETTINGS, Config
from vppaio.vcl import vclconf

DOCS = Path(__file__).parents[2] / "docs"


def test_documentation_has_the_table_as_it_is_made():
    lines = (DOCS / "configuration.md").read_text().splitlines()
    begin = lines.index(HEADER[0])
    end = next(n for n in range(begin, len(lines)) if not lines[n].startswith("|"))
    assert lines[begin:end] == [*table()], "put in what `python -m tests.support.settings_table` prints"


def test_every_field_is_a_setting():
    assert [*SETTINGS] == [field.name for field in dataclasses.fields(Config)]
    assert all(setting.name == name and setting.meaning for name, setting in SETTINGS.items())


def test_sizes_and_times_have_a_unit():
    for name, setting in SETTINGS.items():
        if name.endswith("_us"):
            assert setting.unit == "microseconds"
        elif isinstance(setting.default, int) and name.endswith("_size") and name != "event_queue_size":
            assert setting.unit == "bytes"


def test_docstring_has_every_setting():
    for name, setting in SETTINGS.items():
        described = re.search(rf"^    {name}: (.*(\n        .*)*)", inspect.getdoc(Config) or "", re.MULTILINE)
        assert described is not None, name
        assert setting.meaning in " ".join(described[1].split())


def test_vcl_conf_says_what_config_says():
    values = {
        "app_socket": "/tmp/app",
        "rx_fifo_size": 64 << 10,
        "tx_fifo_size": 128 << 10,
        "segment_size": 32 << 20,
        "heap_size": 64 << 20,
        "event_queue_size": 4096,
    }
    assert values.keys() == {name for name, setting in SETTINGS.items() if setting.vcl_keys}
    lines = dict(line.split() for line in vclconf.own(Config(**values)).splitlines() if len(line.split()) == 2)
    for name, value in values.items():
        for key in SETTINGS[name].vcl_keys:
            assert lines[key] == ("64M" if name == "heap_size" else str(value))


@pytest.mark.parametrize("name", SETTINGS)
def test_default_and_its_text_mean_the_same(name, monkeypatch):
    setting = SETTINGS[name]
    monkeypatch.delenv(setting.variable, raising=False)
    if not setting.default_text:
        assert setting.parsed(setting.default_spelled) == setting.checked(setting.default)
