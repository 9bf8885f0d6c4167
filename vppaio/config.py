"""What the user decides, in one frozen object.

Every field of `Config` has an environment variable, `VPPAIO_` and the field's name in capitals, and an option of
`vppaio run`, `demo` and `doctor`. An argument beats the environment, the environment beats the default; an empty
variable counts as unset. The environment is read when the Config is made, so one Config does not change under a running
loop.

Imported by everybody; touches neither VPP nor the network.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import Final, Literal

from vppaio.routes import Routes, RoutesKind
from vppaio.settings import (
    GIB,
    KIB,
    MIB,
    Choice,
    Flag,
    Name,
    OptionalPath,
    Size,
    SocketPath,
    Whole,
    describe,
    setting,
    settings_of,
    spell_size,
)

APP_SOCKET: Final = "/run/vpp/app_ns_sockets/default"  # VPP's own, for the default namespace
BYTES_OF_AN_EVENT: Final = 64  # in the first segment; 40 and what is around them (segment_manager.c, 26.06)
_FIFO: Final = Size(4 * KIB, GIB)  # VPP allots a page at least; above 1 GiB the doubling of chunks overflows 32 bits


@dataclass(frozen=True)
class Config:
    """Settings of an event loop; those of the attach count for the whole process.

    Raises:
        ValueError: names the field, its environment variable if the value came from there, and what is allowed.
    """

    stack: Literal["auto", "vpp", "host"] = setting(
        Choice("auto", "vpp", "host"),
        "auto",
        "which stacks take part. `host`: the kernel's only. `vpp`: VPP is required. `auto`: VPP if it is configured "
        "(its app socket exists, or a vcl.conf is named or installed at `/etc/vpp/vcl.conf`). Then a failed attach is "
        "an error",
    )
    app_socket: str = setting(
        SocketPath(),
        APP_SOCKET,
        "VPP's app socket. Each of VPP's application namespaces has its own",
        vcl_keys=("app-socket-api",),
    )
    vcl_config: str | None = setting(
        OptionalPath(),
        None,
        "a vcl.conf (libvppcom's configuration file) to use as it is. Then `app_socket` and the sizes come from this "
        "file",
        default_text="none",
        further_variables=("VCL_CONFIG",),  # how VCL's other programs name it: whoever set it means us as well
    )
    app_name: str = setting(
        Name(),
        lambda: f"vppaio-{os.getpid()}",
        "the name in `vppctl show app`",
        default_text="vppaio-PID",
    )
    routes: str | Routes = setting(
        RoutesKind(),
        (),
        "which addresses belong to which stack, such as `10.0.0.0/8=host,::/0=vpp`. The longest matching prefix wins",
        default_text="none",
    )
    rx_fifo_size: int = setting(
        _FIFO,
        MIB,
        "receive buffer of each connection. VPP fills it in steps, so an idle connection is small",
        unit="bytes",
        vcl_keys=("rx-fifo-size",),
    )
    tx_fifo_size: int = setting(
        _FIFO,
        MIB,
        "send buffer of each connection. VPP fills it in steps, so an idle connection is small",
        unit="bytes",
        vcl_keys=("tx-fifo-size",),
    )
    segment_size: int = setting(
        Size(4 * MIB, 64 * GIB),
        256 * MIB,
        "shared memory that VPP adds at a time for these buffers",
        unit="bytes",
        vcl_keys=("segment-size", "add-segment-size"),
    )
    heap_size: int = setting(
        Size(16 * MIB, 4 * GIB - MIB),
        256 * MIB,
        "libvppcom's own memory, about 1 KiB for each connection. Near its end new connections are refused with "
        "`ENOMEM`; libvppcom itself would abort the process",
        unit="bytes",
        vcl_keys=("heapsize",),
    )
    event_queue_size: int = setting(
        Whole(256, 1 << 20),
        # 32 times VCL's own: a sixteenth is room for connections that come and go, and of 1000 made at once through
        # shared memory VPP refused some with 16384. It costs 2.5 MB of shared memory for each loop.
        65536,
        "events that VPP can have pending for one loop. A sixteenth of it is for connections that come and go",
        vcl_keys=("event-queue-size",),
    )
    busy_poll_us: int = setting(
        Whole(0, 1_000_000),
        0,
        "how long the loop looks for work before it sleeps. Lowers latency, costs CPU time",
        unit="microseconds",
    )
    adopt_sockets: bool = setting(
        Flag(),
        True,
        "whether VPP serves or connects a kernel socket that is given to the loop (`create_server(sock=)`, "
        "`sock_connect`) and whose address is VPP's",
    )
    on_stack_loss: Literal["restore", "fail"] = setting(
        Choice("restore", "fail"),
        "restore",
        "what becomes of servers when VPP dies. `restore`: they serve again when VPP is back, and retry until VPP has "
        "their addresses. `fail`: they are closed, and `serve_forever` raises `ConnectionResetError`",
    )

    def __post_init__(self) -> None:
        for name, own in SETTINGS.items():
            object.__setattr__(self, name, own.checked(getattr(self, name)))
        # A segment has to hold the buffers of some connections: VPP drops every connection without a word if it cannot.
        least = 4 * (self.rx_fifo_size + self.tx_fifo_size)
        if self.segment_size < least:
            raise ValueError(
                f"segment_size: {self.segment_size} is not allowed; use at least {spell_size(least)}, four times "
                f"rx_fifo_size ({spell_size(self.rx_fifo_size)}) and tx_fifo_size ({spell_size(self.tx_fifo_size)})"
            )
        # And the first one the event queue: VPP 26.06 crashes on an attach whose queue does not fit.
        least = BYTES_OF_AN_EVENT * self.event_queue_size
        if self.segment_size < least:
            raise ValueError(
                f"segment_size: {self.segment_size} is not allowed; use at least {spell_size(least)}, "
                f"{BYTES_OF_AN_EVENT} bytes for each event of event_queue_size ({self.event_queue_size})"
            )
        if self.vcl_config is not None:
            for name in IN_VCL_CONFIG:
                if getattr(self, name) != SETTINGS[name].default:
                    raise ValueError(
                        f"{name}: {getattr(self, name)!r} has no effect beside vcl_config, "
                        f"set it in {self.vcl_config} instead"
                    )


SETTINGS: Final = settings_of(Config)
# Settings that are in vcl.conf's hands once the user names one.
IN_VCL_CONFIG: Final = tuple(name for name, own in SETTINGS.items() if own.vcl_keys)
if Config.__doc__ is not None:  # python -OO
    Config.__doc__ = inspect.cleandoc(Config.__doc__).replace("Raises:", f"{describe(SETTINGS)}\nRaises:")
