"""vcl.conf: the one vppaio writes, and the check of one that the user names.

VCL reads the file itself, forgivingly: it ignores what it does not know, takes "64M" for 64 and goes on with defaults
when it cannot read the file at all (vcl_cfg.c, 26.06). A loop on top of that would hang without a word, so a named file
is read here first, by the same rules, and told off.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vppaio.config import BYTES_OF_AN_EVENT, IN_VCL_CONFIG, SETTINGS, Config
from vppaio.vcl._vcl import lib
from vppaio.vcl.errors import Unusable

# Bounds listen and a UDP bind, the calls that wait for VPP on a loop; VCL's default is ten minutes. As long as for the
# other questions to VPP (vpp_asking.h).
SESSION_TIMEOUT_S: Final = 3
MAX_WORKERS: Final = 128  # a handle has its worker in the top byte and must stay a positive int
_FLAG, _NUMBER, _HEX_OR_NUMBER, _SIZE, _FLOAT, _TEXT = range(6)
_KEYS: Final = {
    "heapsize": _SIZE,
    "max-workers": _NUMBER,
    "app-socket-api": _TEXT,
    "segment-size": _HEX_OR_NUMBER,
    "add-segment-size": _HEX_OR_NUMBER,
    "preallocated-fifo-pairs": _NUMBER,
    "rx-fifo-size": _HEX_OR_NUMBER,
    "tx-fifo-size": _HEX_OR_NUMBER,
    "event-queue-size": _HEX_OR_NUMBER,
    "app-timeout": _FLOAT,
    "session-timeout": _FLOAT,
    "app-proxy-transport-tcp": _FLAG,
    "app-proxy-transport-udp": _FLAG,
    "app-scope-local": _FLAG,
    "app-scope-global": _FLAG,
    "huge_page": _FLAG,
    "use-mq-eventfd": _FLAG,
    "tls-engine": _NUMBER,
    "multi-thread-workers": _FLAG,
    "app_original_dst": _FLAG,
    "namespace-secret": _NUMBER,
    "namespace-id": _TEXT,
    "api-socket-name": _TEXT,
    "uid": _NUMBER,
    "gid": _NUMBER,
}
_SIZES: Final = {  # VCL's defaults (vcl_cfg.c: vppcom_cfg_init, 26.06)
    "segment-size": 256 << 20,
    "add-segment-size": 128 << 20,
    "rx-fifo-size": 1 << 20,
    "tx-fifo-size": 1 << 20,
    "event-queue-size": 2048,
}
_PATTERNS: Final = {
    _NUMBER: (re.compile(r"\d+"), "a plain number"),
    _HEX_OR_NUMBER: (re.compile(r"0x[0-9a-fA-F]+|\d+"), "a plain number without K, M or G"),
    _FLOAT: (re.compile(r"\d+(\.\d*)?"), "a number of seconds"),
    _TEXT: (re.compile(r"\S+"), "a value"),
}


def own(config: Config, *, cut_through: bool = False) -> str:
    """Return the vcl.conf for `config`.

    Args:
        cut_through: reach other applications of this VPP through shared memory instead of TCP.
    """
    lines = [
        "use-mq-eventfd",  # or nothing would wake a loop
        *(f"{key} {_spelled(key, getattr(config, name))}" for name in IN_VCL_CONFIG for key in SETTINGS[name].vcl_keys),
        f"max-workers {MAX_WORKERS}",
        f"session-timeout {SESSION_TIMEOUT_S}",
        # Local scope turns a connect to another application of this VPP into a shared-memory session, which has no
        # half-close and no peer address and so breaks what asyncio promises. Servers need not have it to be found.
        *(["app-scope-local"] if cut_through else []),
        "app-scope-global",
    ]
    return "".join(("vcl {\n", *(f"  {line}\n" for line in lines), "}\n"))


def _spelled(key: str, value: Any) -> str:
    """A setting's value as VCL reads it."""
    return f"{value >> 20}M" if _KEYS[key] == _SIZE else str(value)


@dataclass
class VclConf:
    """What VCL will make of a file.

    Attributes:
        app_socket: "" if none is named.
        max_workers and the sizes: VCL's defaults where they are not given.
        faults: why vppaio cannot work with it, each with its line.
        remarks: what VCL ignores.
        text: the file as VCL gets it: with a limit for what waits for VPP.
    """

    path: str
    text: str = ""
    app_socket: str = ""
    max_workers: int = 16
    heap_size: int = 256 << 20
    event_queue_size: int = 2048
    segment_size: int = 256 << 20
    add_segment_size: int = 128 << 20
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def require(self) -> None:
        """Raise Unusable for the first fault."""
        if self.faults:
            hint = f" ({self.remarks[0]})" if self.remarks else ""
            raise Unusable("vcl-conf", errno.EINVAL, f"{self.path}: {self.faults[0]}{hint}", "correct the file")


def _bad_value(key: str, value: str) -> str | None:
    kind = _KEYS[key]
    if kind == _SIZE:
        number = re.fullmatch(r"(\d+)([mMgG])", value)
        if not number:
            return f"{key} {value or 'without a value'}: use a number with M or G, such as 256M"
        # VCL shifts an unsigned int (vcl_cfg.c: vcl_cfg_parse_heapsize).
        if not 0 < int(number[1]) << (20 if number[2] in "mM" else 30) < 1 << 32:
            return f"{key} {value}: use less than 4G, VCL counts in 32 bits"
    elif kind != _FLAG:
        pattern, wanted = _PATTERNS[kind]
        if not pattern.fullmatch(value):
            return f"{key} {value or 'without a value'}: use {wanted}"
    return None


def _bad_sizes(sizes: Mapping[str, int]) -> list[str]:
    """What each option allows and VPP does not survive, or answers with silence."""
    faults = []
    least = BYTES_OF_AN_EVENT * sizes["event-queue-size"]
    if sizes["segment-size"] < least:
        faults.append(
            f"segment-size {sizes['segment-size']}: use at least {least} for event-queue-size "
            f"{sizes['event-queue-size']}, VPP crashes if the queue does not fit"
        )
    least = sizes["rx-fifo-size"] + sizes["tx-fifo-size"]
    if sizes["add-segment-size"] < least:
        faults.append(
            f"add-segment-size {sizes['add-segment-size']}: use at least {least}, rx-fifo-size and tx-fifo-size: "
            "VPP drops every connection for which there is no room"
        )
    return faults


def parse(path: str, text: str, environment: Mapping[str, str]) -> VclConf:
    """Read `text` by VCL's rules: one option per line between `vcl {` and `}`; VCL_... variables win."""
    conf = VclConf(path)
    seen = set()
    sizes = dict(_SIZES)
    session_timeout = float("inf")
    end = len(text.splitlines())  # lines before the section's end
    section = ended = False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if ended or not words or words[0].startswith("#"):
            continue
        if not section:
            if section := words[:2] == ["vcl", "{"] or words[0] == "vcl{":
                if words[2:]:
                    conf.faults.append(f"line {number}: VCL ignores what follows `vcl {{` on its line")
            continue
        key, value = words[0], words[1] if len(words) > 1 else ""
        if key == "}":
            ended, end = True, number - 1
        elif key not in _KEYS:
            similar = difflib.get_close_matches(key, _KEYS, 1)
            conf.remarks.append(
                f"line {number}: VCL ignores unknown {key}" + (f", did you mean {similar[0]}?" if similar else "")
            )
        elif fault := _bad_value(key, value):
            conf.faults.append(f"line {number}: {fault}")
        else:
            seen.add(key)
            if key == "app-socket-api":
                conf.app_socket = value
            elif key == "max-workers":
                conf.max_workers = int(value)
            elif key == "heapsize":
                conf.heap_size = int(value[:-1]) << (20 if value[-1] in "mM" else 30)
            elif key == "session-timeout":
                session_timeout = float(value)
            elif key in sizes:
                sizes[key] = int(value, 16 if value.startswith("0x") else 10)
            rest = words[1 if _KEYS[key] == _FLAG else 2 :]
            if rest and not rest[0].startswith("#"):
                conf.faults.append(f"line {number}: VCL ignores {rest[0]} behind {key}, use one line per option")
    if not section:
        conf.faults.append("no `vcl {` section")
    lines = text.splitlines()
    if session_timeout > SESSION_TIMEOUT_S:
        lines[end:end] = [f"  session-timeout {SESSION_TIMEOUT_S}"]
    conf.text = "".join(f"{line}\n" for line in lines)
    conf.event_queue_size = sizes["event-queue-size"]
    conf.segment_size, conf.add_segment_size = sizes["segment-size"], sizes["add-segment-size"]
    conf.faults += _bad_sizes(sizes)
    conf.app_socket = environment.get("VCL_VPP_SAPI_SOCKET") or conf.app_socket
    if "use-mq-eventfd" not in seen and "VCL_APP_USE_MQ_EVENTFD" not in environment:
        conf.faults.append("use-mq-eventfd is missing, without it VPP wakes no event loop")
    if not conf.app_socket:
        conf.faults.append("app-socket-api is missing, vppaio does not use VPP's binary API")
    elif not conf.app_socket.startswith("/"):
        conf.faults.append(f"app-socket-api {conf.app_socket}: use an absolute path")
    return conf


def read(path: str, environment: Mapping[str, str] | None = None) -> VclConf:
    """Read a named file.

    Raises:
        Unusable: it cannot be read.
    """
    try:
        # VCL goes on with its defaults for anything but a regular file.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Unusable("vcl-conf", errno.EINVAL, f"{path} is not a regular file", "name a vcl.conf")
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(path, file.read(), os.environ if environment is None else environment)
    except OSError as error:
        cure = "name an existing vcl.conf, or none" if error.errno == errno.ENOENT else "let this user read it"
        raise Unusable("vcl-conf", error.errno or errno.EIO, f"{path}: {error.strerror}", cure) from None


@contextlib.contextmanager
def settings(conf: str, with_environment: bool) -> Iterator[None]:
    """Have VCL find `conf` as its vcl.conf, and the environment's variables that override it, or none of them."""
    # Memory with a path: nothing to remove, and nobody else can read or change it.
    memory = os.memfd_create("vcl.conf")
    try:
        _write_all(memory, conf.encode(errors="surrogateescape"))
        variables = {
            key: value
            for key, value in os.environ.copy().items()
            if key.startswith("VCL_") and (with_environment or key == "VCL_DEBUG")
        }
        variables["VCL_CONFIG"] = f"/proc/self/fd/{memory}"
        text = b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in variables.items())
        if lib.vppaio_vpp_settings(text, len(text)) < 0:
            raise MemoryError
        yield
    finally:
        os.close(memory)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
