"""vcl.conf: ours holds what is needed, theirs is read by VCL's rules."""

from __future__ import annotations

import pytest

from vppaio.config import Config
from vppaio.vcl import vclconf
from vppaio.vcl.errors import Unusable

GOOD = "vcl {\n  use-mq-eventfd\n  app-socket-api /run/vpp/app_ns_sockets/default\n}\n"


def parse(*lines: str, **environment: str) -> vclconf.VclConf:
    text = "".join(("vcl {\n", "use-mq-eventfd\n", "app-socket-api /s\n", *(f"{line}\n" for line in lines), "}\n"))
    return vclconf.parse("/x.conf", text, environment)


def test_our_own_file_passes_our_own_check():
    config = Config(app_socket="/tmp/app", rx_fifo_size=65536, segment_size=64 << 20)
    text = vclconf.own(config)
    conf = vclconf.parse("own", text, {})
    assert (conf.app_socket, conf.faults, conf.remarks) == ("/tmp/app", [], [])
    for line in ("use-mq-eventfd", "rx-fifo-size 65536", "add-segment-size 67108864", "session-timeout 3"):
        assert f"  {line}\n" in text


def test_local_scope_only_for_cut_through():
    assert "app-scope-local" not in vclconf.own(Config())
    assert "app-scope-local\n" in vclconf.own(Config(), cut_through=True)


def test_good_file():
    conf = parse("# a comment", "", "heapsize 64M", "segment-size 0x10000000", "session-timeout 2.5", "huge_page")
    assert (conf.app_socket, conf.faults, conf.remarks) == ("/s", [], [])
    conf.require()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rx-fifo-size 4M", "line 4: rx-fifo-size 4M: use a plain number without K, M or G"),
        ("segment-size 64K", "use a plain number"),
        ("max-workers 0x10", "use a plain number"),
        ("heapsize 67108864", "use a number with M or G"),
        ("heapsize 0M", "less than 4G"),
        ("heapsize 4G", "less than 4G"),
        ("heapsize", "heapsize without a value"),
        ("session-timeout soon", "seconds"),
        ("use-mq-eventfd huge_page", "VCL ignores huge_page behind use-mq-eventfd"),
        ("rx-fifo-size 4096 tx-fifo-size 4096", "VCL ignores tx-fifo-size behind rx-fifo-size"),
    ],
)
def test_faults(line, said):
    conf = parse(line)
    assert len(conf.faults) == 1
    assert said in conf.faults[0]
    with pytest.raises(Unusable, match=r"/x\.conf: line 4"):
        conf.require()


def test_unknown_keys_are_remarked_upon():
    conf = parse("use-mq-evenfd", "hugepage")
    assert conf.faults == []
    assert conf.remarks == [
        "line 4: VCL ignores unknown use-mq-evenfd, did you mean use-mq-eventfd?",
        "line 5: VCL ignores unknown hugepage, did you mean huge_page?",
    ]


def test_missing_keys_and_the_hint_beside():
    conf = vclconf.parse("/x.conf", "vcl {\nuse-mq-evenfd\napp-socket-api /s\n}\n", {})
    with pytest.raises(Unusable, match=r"use-mq-eventfd is missing.*did you mean use-mq-eventfd"):
        conf.require()
    conf = vclconf.parse("/x.conf", "vcl {\nuse-mq-eventfd\napi-socket-name /run/vpp/api.sock\n}\n", {})
    assert conf.faults == ["app-socket-api is missing, vppaio does not use VPP's binary API"]


def test_variables_stand_in_for_missing_keys():
    environment = {"VCL_APP_USE_MQ_EVENTFD": "", "VCL_VPP_SAPI_SOCKET": "/v"}
    conf = vclconf.parse("/x.conf", "vcl {\n}\n", environment)
    assert (conf.app_socket, conf.faults) == ("/v", [])


def test_what_is_outside_the_section_does_not_count():
    conf = vclconf.parse("/x.conf", "use-mq-eventfd\napp-socket-api /s\n", {})
    assert conf.faults[0] == "no `vcl {` section"
    conf = vclconf.parse("/x.conf", "vcl { use-mq-eventfd\napp-socket-api /s\n}\n", {})
    assert "line 1: VCL ignores what follows" in conf.faults[0]


def test_relative_socket():
    conf = vclconf.parse("/x.conf", "vcl {\nuse-mq-eventfd\napp-socket-api app.sock\n}\n", {})
    assert conf.faults == ["app-socket-api app.sock: use an absolute path"]


def test_read(tmp_path):
    path = tmp_path / "vcl.conf"
    with pytest.raises(Unusable, match="No such file"):
        vclconf.read(str(path))
    path.write_text(GOOD)
    assert vclconf.read(str(path), {}).app_socket == "/run/vpp/app_ns_sockets/default"
    with pytest.raises(Unusable, match="not a regular file"):
        vclconf.read(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["segment-size 1048576", "event-queue-size 65536"], "VPP crashes if the queue does not fit"),
        (["segment-size 0x1000"], "use at least 131072 for event-queue-size 2048"),
        (["add-segment-size 1000"], "VPP drops every connection"),
        (["rx-fifo-size 67108864", "tx-fifo-size 67108865"], "add-segment-size 134217728: use at least 134217729"),
    ],
)
def test_sizes_that_do_not_go_together(lines, said):
    conf = parse(*lines)
    assert len(conf.faults) == 1
    assert said in conf.faults[0]
