"""Which of CPython's tests are not run, and why: one table of rules.

A rule names tests by a shell pattern over `module.Class.test`; what no rule names is run. Tests that never make a loop
(mocked selectors, futures, handles) need no rule: they are run and not counted.
"""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Rule(NamedTuple):
    pattern: str
    reason: str
    stacks: tuple[str, ...] = ("host", "vpp-servers", "vpp-clients")


_VPP = ("vpp-servers", "vpp-clients")
_SERVERS = ("vpp-servers",)
_CLIENTS = ("vpp-clients",)


def _mocked(stacks: tuple[str, ...], *tests: str) -> tuple[Rule, ...]:
    reason = "the kernel's socket is a mock, which a session on VPP does not ask"
    return tuple(Rule(f"test_base_events.BaseEventLoopWithSelectorTests.{test}", reason, stacks) for test in tests)


# docs/differences.md has this table in prose.
VPP_EXCLUSIONS = (
    *_mocked(_VPP, "test_create_connection_bluetooth"),
    *_mocked(
        _SERVERS,
        "test_create_datagram_endpoint_cant_bind",
        "test_create_datagram_endpoint_nosoreuseport",
        "test_create_datagram_endpoint_socket_err",
        "test_create_server_cant_bind",
        "test_create_server_nosoreuseport",
        "test_create_server_soreuseport_only_defined",
    ),
    *_mocked(
        _CLIENTS,
        "test_create_connection_*multiple_errors*",
        "test_create_connection_connect_non_os_err_close_err",
        "test_create_connection_ssl_server_hostname_default",
        "test_create_connection_timeout",
        "test_create_connection_transport_error_closes_sock",
        "test_create_datagram_endpoint_connect_err",
    ),
    Rule("test_events.*.test_create_server_multiple_hosts_*", "the addresses (1.2.3.4, ::2) are not VPP's", _SERVERS),
    Rule("*.test_create_datagram_endpoint_sockopts", "VPP's session layer has no broadcast", _SERVERS),
    Rule("*.test_create_datagram_endpoint_allow_broadcast", "VPP's session layer has no broadcast", _CLIENTS),
    *(
        Rule(
            f"test_events.*.{test}",
            "its adopted sockets are all VPP's, and VPP does not loop packets back to their sender",
            _SERVERS,
        )
        for test in (
            "test_datagram_close_flushes_queued_data",
            "test_datagram_recvfrom_connection_reset_recovers",
            "test_datagram_send_to_non_listening_address",
            "test_datagram_write_error_reentrant_sendto",
        )
    ),
    Rule(
        "test_streams.StreamTests.test_unhandled_exception*",
        "counts on the server having accepted when the client is done; across VPP that may come later",
        _VPP,
    ),
    Rule("test_events.*.test_create_server_trsock", "duplicates a descriptor: a session on VPP has none", _SERVERS),
    Rule("test_events.*.test_create_server_sock", "compares descriptors: a session on VPP has none", _SERVERS),
    Rule(
        "test_events.*.test_create_connection_local_addr_in_use",
        "the port is in use on the kernel's stack, and free on VPP",
        _CLIENTS,
    ),
)

RULES = (
    *VPP_EXCLUSIONS,
    Rule("*.PollEventLoopTests.*", "the tests of EPollEventLoopTests again: our loop has one selector"),
    Rule("*.SelectEventLoopTests.*", "the tests of EPollEventLoopTests again: our loop has one selector"),
    *(
        Rule(
            f"test_base_events.BaseEventLoopWithSelectorTests.{test}", "the socket is a mock: no descriptor, no session"
        )
        for test in (
            "test_create_connection_ip_addr",
            "test_create_connection_ipv6_scope",
            "test_create_connection_no_inet_pton",
            "test_create_connection_service_name",
            "test_create_datagram_endpoint_ip_addr",
        )
    ),
)


def excluded(test: str, stack: str) -> Rule | None:
    """The rule that keeps `test` from being run on `stack`."""
    for rule in RULES:
        if stack in rule.stacks and fnmatch.fnmatchcase(test, rule.pattern):
            return rule
    return None
