"""What a setting is: which values it takes, where they come from, and what is said of it.

A `Setting` holds all that is known of one field of `Config`. Errors, environment variables, options of the command line
(vppaio.cli), the vcl.conf that vppaio writes (vcl.vclconf) and the table of the documentation are made from it.

A kind says what values look like: `parse` takes text, as the environment and the command line have it, `check` takes
what a program gives. Both raise `Bad` with what is allowed instead; the setting adds its name and the value.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Protocol

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
_SUFFIXES: Final = {"": 1, "K": KIB, "M": MIB, "G": GIB}
_FLAGS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

Unit = Literal["", "bytes", "microseconds"]


class Bad(Exception):
    """What is allowed instead."""


class Kind(Protocol):
    """What the values of a setting look like.

    Attributes:
        placeholder: stands for a value in a command's help.
        values: which text is allowed.
    """

    placeholder: str
    values: str

    def parse(self, text: str) -> Any: ...
    def check(self, value: Any) -> Any: ...
    def spell(self, value: Any) -> str: ...


# ---- kinds -----------------------------------------------------------------------------------------------------------


class _Text:
    placeholder = "TEXT"

    def parse(self, text: str) -> Any:
        return text

    def spell(self, value: Any) -> str:
        return str(value)


class Choice(_Text):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words: Final = words
        self.placeholder = "WORD"
        self.values = f"{', '.join(words[:-1])} or {words[-1]}"

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise Bad(self.values)
        return value


class Name(_Text):
    """How VPP calls an application."""

    placeholder = "NAME"
    values = "1 to 63 bytes of printable text"

    def check(self, value: Any) -> str:
        # VCL copies it into 64 bytes without looking, into the options behind (vcl_sapi.c: vcl_api_send_attach, 26.06).
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.encode()) < 64:
            raise Bad(self.values)
        return value


class OptionalPath(_Text):
    """A path, made absolute, or None."""

    placeholder = "PATH"
    values = "a path"

    def check(self, value: Any) -> str | None:
        return None if value is None else _path(value)


class SocketPath(_Text):
    """A path of a unix socket that vcl.conf can name."""

    placeholder = "PATH"
    values = "a path"

    def check(self, value: Any) -> str:
        path = _path(value)
        if any(c.isspace() for c in path):
            raise Bad("a path without white space, which vcl.conf has no way to write")
        if len(os.fsencode(path)) > 107:
            raise Bad("a path of at most 107 bytes, the kernel's limit for unix sockets")
        return path


def _path(value: Any) -> str:
    try:
        path = os.fspath(value)
        os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        raise Bad("a path") from None
    if not isinstance(path, str) or not path or "\0" in path:
        raise Bad("a path")
    return os.path.abspath(path)


class Whole:
    """A whole number from `low` to `high`."""

    placeholder = "N"

    def __init__(self, low: int, high: int) -> None:
        self.low: Final = low
        self.high: Final = high
        self.values = f"{self.spell(low)} to {self.spell(high)}"

    def parse(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise Bad("a whole number") from None

    def check(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise Bad(f"a whole number from {self.values}")
        return value

    def spell(self, value: int) -> str:
        return str(value)


class Size(Whole):
    """A number of bytes; as text, K, M and G are 1024 each."""

    placeholder = "BYTES"

    def parse(self, text: str) -> int:
        digits = text.strip().rstrip("KkMmGg")
        try:
            return int(digits) * _SUFFIXES[text.strip()[len(digits) :].upper()]
        except (ValueError, KeyError):
            raise Bad('a number of bytes such as 65536, "64K" or "4M"') from None

    def spell(self, value: int) -> str:
        return spell_size(value)


def spell_size(value: int) -> str:
    """A number of bytes in the largest unit that divides it: 1M for 1048576."""
    for suffix, unit in (("G", GIB), ("M", MIB), ("K", KIB)):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


class Flag:
    """True or False, as text 1 or 0."""

    placeholder = "FLAG"
    values = "1 or 0"

    def parse(self, text: str) -> bool:
        try:
            return _FLAGS[text.strip().lower()]
        except KeyError:
            raise Bad(self.values) from None

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise Bad("True or False")
        return value

    def spell(self, value: bool) -> str:
        return "1" if value else "0"


# ---- settings --------------------------------------------------------------------------------------------------------


@dataclass
class Setting:
    """One field of a class of settings.

    Attributes:
        kind: what its values look like.
        default: a value, or a function that makes one.
        meaning: for the documentation; a command's help shows the first sentence.
        unit: of a number.
        default_text: how the documentation names a default that has no text of its own.
        further_variables: environment variables that count where its own is not set.
        vcl_keys: the options of vcl.conf that say the same to VCL.
        name: the field's; `settings_of` tells.
    """

    kind: Kind
    default: Any
    meaning: str
    unit: Unit = ""
    default_text: str = ""
    further_variables: tuple[str, ...] = ()
    vcl_keys: tuple[str, ...] = ()
    name: str = ""

    @property
    def variable(self) -> str:
        """Its own environment variable."""
        return f"VPPAIO_{self.name.upper()}"

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def values(self) -> str:
        """Which text is allowed, with its unit."""
        return f"{self.kind.values} {self.unit}".rstrip()

    @property
    def default_spelled(self) -> str:
        return self.default_text or self.kind.spell(self.default)

    def checked(self, value: Any, source: str = "") -> Any:
        """Return `value` as the loop uses it.

        Args:
            source: for the error's text; by default the name.

        Raises:
            ValueError: names the source, the value and what is allowed.
        """
        try:
            return self.kind.check(value)
        except Bad as bad:
            raise ValueError(f"{source or self.name}: {_shown(value)} is not allowed; use {bad}") from None
        except Exception as failure:  # of the value's own methods
            cause = f"{_shown(value)} is not allowed, asking it raised {type(failure).__name__}"
            raise ValueError(f"{source or self.name}: {cause}; use {self.kind.values}") from failure

    def parsed(self, text: str, source: str = "") -> Any:
        """The same for a text."""
        try:
            value = self.kind.parse(text)
        except Bad as bad:
            raise ValueError(f"{source or self.name}: {text!r} is not allowed; use {bad}") from None
        return self.checked(value, source)

    def without_argument(self) -> Any:
        """What the environment says, else the default; an empty variable counts as unset.

        Raises:
            ValueError: a variable is wrong; names it.
        """
        for key in (self.variable, *self.further_variables):
            if text := os.environ.get(key):
                return self.parsed(text, f"{self.name} (from the environment, {key})")
        return self.default() if callable(self.default) else self.default


def _shown(value: Any) -> str:
    """A value in an error's text: short, and also if it has a repr that fails."""
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def setting(kind: Kind, default: Any, meaning: str, **more: Any) -> Any:
    """A dataclass's field that is a `Setting`, see there."""
    made = Setting(kind, default, meaning, **more)
    return field(default_factory=made.without_argument, metadata={"setting": made})


def settings_of(cls: Callable[..., Any]) -> dict[str, Setting]:
    """The settings of a dataclass by name, in the order of its fields. Called once, it also tells them their names."""
    found = {}
    for item in fields(cls):  # type: ignore[arg-type]
        found[item.name] = item.metadata["setting"]
        found[item.name].name = item.name
    return found


def describe(settings: dict[str, Setting]) -> str:
    """The "Args:" of a docstring that is not indented."""
    lines = [f"{s.name}: {s.meaning}{f'; in {s.unit}' if s.unit else ''}." for s in settings.values()]
    wrapped = (textwrap.fill(line, 110, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines)
    return "\n".join(("Args:", *wrapped, ""))
