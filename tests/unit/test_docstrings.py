"""Public functions say what a caller has to know: units of numbers, errors raised, the function of VCL behind them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

import pytest

import vppaio
from vppaio import metrics
from vppaio.transports.pseudosocket import SessionSocket

CLASSES = [vppaio.EventLoop, vppaio.Config, vppaio.StackEvent, SessionSocket, metrics.StatisticsCollector]
UNITS = r"\b(bytes|seconds|microseconds|ms|number|descriptor|port|None|-1)\b"
# Of socket.socket, whose names say what they do; everything that goes to the stack names VCL's function.
WITHOUT_VCL = {
    *("abandon", "detach", "dup", "fileno", "get_inheritable", "getblocking", "gettimeout", "hand_over", "io"),
    *("leave", "of", "reopen", "session", "set_readable", "setblocking", "settimeout", "sole_owner"),
}


def public() -> dict[str, Any]:
    """Functions, methods and properties by name."""
    found = {name: getattr(vppaio, name) for name in vppaio.__all__ if inspect.isfunction(getattr(vppaio, name))}
    found["metrics.serve"] = metrics.serve
    for cls in CLASSES:
        for base in cls.__mro__:
            if base.__module__.startswith("vppaio.") and not base.__module__.endswith((".private", ".scheduler")):
                for name, value in vars(base).items():
                    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                    if not name.startswith("_") and inspect.isfunction(function):
                        found.setdefault(f"{cls.__name__}.{name}", function)
    return found


PUBLIC = public()
OURS = {name: function for name, function in PUBLIC.items() if not hasattr(function, "__signature__")}  # not asyncio's


def raised(function: Any) -> set[str]:
    """What its own body raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    return {"OSError" if name.endswith("_error") else name for name in names}  # vcl/errors.py makes those


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_docstring(name: str) -> None:
    assert (inspect.getdoc(PUBLIC[name]) or "").strip() or name.startswith("EventLoop.sock_")  # asyncio's may have none


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_class_has_a_docstring(cls: type) -> None:
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("name", OURS)
def test_says_what_it_raises(name: str) -> None:
    text = inspect.getdoc(OURS[name]) or ""
    section = text.partition("Raises:")[2]
    assert {error for error in raised(OURS[name]) if error not in section} == set()


@pytest.mark.parametrize("name", OURS)
def test_says_the_unit_of_what_it_returns(name: str) -> None:
    if inspect.signature(OURS[name], eval_str=True).return_annotation in (int, float):
        assert re.search(UNITS, inspect.getdoc(OURS[name]) or "")


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith("SessionSocket.")])
def test_names_the_function_of_vcl(name: str) -> None:
    known = name.partition(".")[2] in WITHOUT_VCL
    assert ("VCL: vppcom_" in (inspect.getdoc(OURS[name]) or "")) != known


def test_rules_find_something_to_judge() -> None:
    assert raised(vppaio.socket) == {"RuntimeError"}
    assert raised(SessionSocket.dup) == {"NotImplementedError", "BlockingIOError"}
    assert len(OURS) > 25
