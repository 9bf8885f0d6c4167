"""RouteTable: which stack serves an address."""

from __future__ import annotations

import pytest

from vppaio.config import Config
from vppaio.routes import RouteTable


@pytest.mark.parametrize(
    ("ip", "stack"),
    [
        ("127.0.0.1", "host"),
        ("127.255.0.9", "host"),
        ("::1", "host"),
        ("fe80::1", "host"),
        ("fe80::1%eth0", "host"),
        ("0.0.0.0", "vpp"),
        ("::", "vpp"),
        ("10.0.0.1", "vpp"),
        ("8.8.8.8", "vpp"),
        ("fd00::1", "vpp"),
        ("2001:db8::1", "vpp"),
        ("::ffff:127.0.0.1", "host"),
        ("::ffff:8.8.8.8", "vpp"),
    ],
)
def test_with_vpp(ip, stack):
    assert RouteTable((), vpp_attached=True).stack_for(ip) == stack


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "fe80::1%1", "0.0.0.0", "::", "10.0.0.1", "2001:db8::1"])
def test_without_vpp_everything_is_the_hosts(ip):
    assert RouteTable("10.0.0.0/8=host", vpp_attached=False).stack_for(ip) == "host"


def test_most_specific_wins_in_any_order():
    for routes in ("10.0.0.0/8=host,10.1.0.0/16=vpp,10.1.1.1/32=host", "10.1.1.1=host,10.1.0.0/16=vpp,10.0.0.0/8=host"):
        table = RouteTable(routes, vpp_attached=True)
        found = [table.stack_for(ip) for ip in ("10.2.0.1", "10.1.2.3", "10.1.1.1", "11.0.0.1")]
        assert found == ["host", "vpp", "host", "vpp"]


def test_user_beats_built_in():
    table = RouteTable((("127.0.0.0/8", "vpp"), ("0.0.0.0/0", "host")), vpp_attached=True)
    assert table.stack_for("127.0.0.1") == "vpp"
    assert table.stack_for("0.0.0.0") == "host"  # a wildcard is an address like others
    assert table.stack_for("1.2.3.4") == "host"
    assert table.stack_for("::") == "vpp"


def test_mapped_network_is_an_ipv4_network():
    table = RouteTable("::ffff:10.0.0.0/104=host", vpp_attached=True)
    assert table.stack_for("10.9.9.9") == "host"
    assert table.stack_for("::ffff:10.9.9.9") == "host"
    assert table.stack_for("11.0.0.1") == "vpp"


def test_takes_what_config_holds():
    config = Config(routes=[("10.0.0.0/8", "host")])
    assert config.routes == (("10.0.0.0/8", "host"),)
    assert RouteTable(config.routes, vpp_attached=True).stack_for("10.0.0.1") == "host"


def test_route_to_vpp_without_vpp_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"routes: 10\.0\.0\.0/8=vpp leads to VPP"):
        RouteTable("192.0.2.0/24=host,10.0.0.0/8=vpp", vpp_attached=False)


def test_bad_routes_are_refused_here_as_well():
    with pytest.raises(ValueError, match="routes: "):
        RouteTable("10.0.0.0/33=host", vpp_attached=True)


def test_only_literal_addresses():
    with pytest.raises(ValueError, match=r"example\.org"):
        RouteTable((), vpp_attached=True).stack_for("example.org")
