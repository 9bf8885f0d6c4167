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


RULES = (
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
