"""A private VPP for tests and benchmarks: own folder, own network namespace, a veth pair to the kernel.

    applications (anywhere) --app socket-- VPP  host-vpp0 == vpp0 ~~veth~~ kernel0  kernel clients (in the namespace)
                                                loop0: an address of VPP's own, for application to application

An application attaches through `app_socket`, a plain unix socket, from any namespace. A kernel client must be inside:
`kernel_connect` and `kernel_listen` give a test its sockets there, `run` and `popen` start whole programs there.

    with VppInstance(tcp="closewait-time 30") as vpp:
        ...                                         # attach to vpp.app_socket, listen on vpp.address
        client = vpp.kernel_connect(vpp.address, 80)

From the shell, `python -m vppaio.testing [--tcp ...] -- COMMAND` does the same around a command.

What was learnt the hard way is beside the line it explains: `_WIRE` (latency), `_app_socket_answers` (CPU).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vppaio.testing.netns import NetworkNamespace, maker_is_dead, remove_stale

PREFIX: Final = "vppaio"
_RUN: Final = Path("/run")
_SHARED_MEMORY: Final = Path("/dev/shm")
_START_LIMIT: Final = 20.0  # seconds; 0.6 are usual, but the machine may be compiling something
_CAPABILITIES: Final = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}

_PLUGINS: Final = ("af_packet", "hs_apps", "ping", "tlsopenssl")  # VPP does without those that are not installed

# v2: the default ring (v3) hands packets over in blocks and closes a block after 1 ms, so every answer takes 1 ms more.
# cksum-gso-disable: whole packets with real checksums, as on a wire; then frames of 2048 bytes suffice, where the
# default has 1024 of 66 kB in each direction, 138 MB in all. With 1024 small ones bulk transfers lost packets.
_WIRE: Final = "cksum-gso-disable rx-size 2048 tx-size 2048 rx-per-block 4096 tx-per-block 4096"
_INTERFACES: Final = (
    "create host-interface v2 name vpp0 {offload}",
    "set interface mtu packet 1500 host-vpp0",
    "set interface state host-vpp0 up",
    "set interface ip address host-vpp0 {address}/24",
    "set interface ip address host-vpp0 {address6}/64",
    "create loopback interface",
    "set interface state loop0 up",
    "set interface ip address loop0 {loop_address}/24",
    "set interface ip address loop0 {loop_address6}/64",
)


class VppInstance:
    """One VPP process and its surroundings; a context manager.

    The surroundings (namespace, folder, addresses) live as long as the context; the process may be killed and started
    again within it. Addresses repeat between instances, namespaces keep them apart.

    Args:
        tcp: options for the `tcp` stanza of startup.conf, such as "closewait-time 30".
        session: options for its `session` stanza. Sessions are enabled last, when all addresses are in place, so an
            application never finds a half-configured VPP; "enable" in here opens the app socket at once, as usual.
        extra: more stanzas, verbatim.
        plugins: enabled beside the usual ones, such as ("http", "quic").
        main_core: CPU for VPP's thread. Without it VPP pins itself to the one it happens to start on, and round trips
            differ by up to a factor of two from one start to the next; a benchmark wants to choose.
        offload: TSO and checksum offload, as with a modern network card; more than doubles the throughput.
    """

    address: Final = "10.76.0.1"
    address6: Final = "fd76::1"
    kernel_address: Final = "10.76.0.2"
    kernel_address6: Final = "fd76::2"
    loop_address: Final = "10.77.0.1"
    loop_address6: Final = "fd77::1"

    def __init__(
        self,
        *,
        tcp: str = "",
        session: str = "use-private-rx-mqs event-queue-length 16384",
        extra: str = "",
        plugins: Sequence[str] = (),
        main_core: int | None = None,
        offload: bool = False,
    ) -> None:
        self._tcp = f"{tcp} tso" if offload else tcp
        self._offload = offload
        self._session = session
        self._extra = extra
        self._plugins = (*_PLUGINS, *plugins)
        self._main_core = main_core
        self._netns = NetworkNamespace(PREFIX)
        self._process: subprocess.Popen[bytes] | None = None
        self.namespace: Final = self._netns.name
        self.directory: Final = _RUN / self.namespace
        self.app_socket: Final = str(self.directory / "app_ns_sockets" / "default")
        self.cli_socket: Final = str(self.directory / "cli.sock")
        self.log: Final = self.directory / "vpp.log"

    @staticmethod
    def unavailable() -> str | None:
        """What is missing here, in one line, or None."""
        missing = [f"program {name}" for name in ("vpp", "vppctl", "ip", "ethtool") if shutil.which(name) is None]
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        effective = int(status["CapEff"], 16)
        missing += [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
        return f"VPP cannot be started: no {', no '.join(missing)}" if missing else None

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> VppInstance:
        if reason := self.unavailable():
            raise RuntimeError(reason)
        _remove_leftovers()
        try:
            self.directory.mkdir()
            self._netns.create()
            self._connect_kernel()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self, before_addresses: Callable[[], object] | None = None) -> None:
        """Start the process, give it its addresses, and return when a kernel client can reach it.

        Args:
            before_addresses: called while applications can attach already, and VPP has no interface yet.

        Raises:
            RuntimeError: VPP died or did not answer in time; the message ends with the log's tail.
        """
        assert not self.alive(), "already running"
        _remove_shared_memory(self.namespace)
        for path in (self.app_socket, self.cli_socket):
            Path(path).unlink(missing_ok=True)
        configuration = self.directory / "startup.conf"
        configuration.write_text(self._configuration())
        with self.log.open("ab") as log:
            # A session of its own keeps the terminal's Ctrl-C away from it.
            self._process = self._netns.popen(
                ["vpp", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until("CLI socket", self._cli_answers)
            if before_addresses is not None:
                self._configure("session enable")
                self._wait_until("app socket", self._app_socket_answers)
                before_addresses()
            for command in _INTERFACES:
                self._configure(command.format(offload="" if self._offload else _WIRE, **_addresses()))
            self._configure("session enable")
            # The last VPP had another MAC. And who has to ask for it tells his own: VPP drops what it cannot send yet.
            self._netns.ip("neigh flush dev kernel0")
            self._wait_until("app socket", self._app_socket_answers)
            for address in (self.address, self.address6):
                self._wait_until(f"{address} to answer the kernel", functools.partial(self._refuses, address))
        except BaseException as error:
            self.stop()
            if isinstance(error, (RuntimeError, subprocess.SubprocessError)):
                raise RuntimeError(f"VPP did not start: {error}\n{self.log_tail()}") from error
            raise

    def stop(self) -> None:
        """End the process, politely first; the surroundings stay."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a test may have stopped it to see a VPP that hangs
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what applications see when VPP crashes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes it hang, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def restart(self) -> None:
        """`stop`, if it still runs, and `start` with the same sockets and addresses."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """End the process and remove the surroundings, whatever state they are in."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(_remove_files, self.namespace)
            last_first.callback(self._netns.remove)
            last_first.callback(self.stop)

    # -- state --------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def crashed(self) -> bool:
        """Whether it ended in another way than by `stop`, `kill` or their signals."""
        meant = (None, 0, -signal.SIGTERM, -signal.SIGKILL)
        return self._process is not None and self._process.poll() not in meant

    def healthy(self) -> bool:
        """Whether it runs and its main loop still turns; takes some milliseconds."""
        return self.alive() and self._cli_answers()

    def cpu_seconds(self) -> float:
        """CPU time the process has used so far, user and system; resolution 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_tail(self, lines: int = 30) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ctl(self, command: str, timeout: float = 10.0) -> str:
        """What VPP's command line answers; errors are part of the text, as VPP has no status for them."""
        done = subprocess.run(
            ["vppctl", "-s", self.cli_socket, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
        return done.stdout.replace("\r\n", "\n").strip()

    def environment(self) -> dict[str, str]:
        """Variables that tell another program where everything is."""
        places = {name.upper(): value for name, value in _addresses().items()}
        return {"VPPAIO_APP_SOCKET": self.app_socket} | {
            f"VPP_{name}": value
            for name, value in (places | {"NAMESPACE": self.namespace, "CLI_SOCKET": self.cli_socket}).items()
        }

    # -- the kernel's side --------------------------------------------------------------------------------------------

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """`subprocess.run` inside the namespace."""
        return self._netns.run(command, **options)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` inside the namespace."""
        return self._netns.popen(command, **options)

    def kernel_sockets(self) -> contextlib.AbstractContextManager[None]:
        """Sockets the calling thread makes in this block are inside the namespace; see `NetworkNamespace.entered`."""
        return self._netns.entered()

    def kernel_connect(self, address: str, port: int, timeout: float | None = 5.0) -> socket.socket:
        """A TCP connection from the kernel's side; `timeout` (s) stays set on the socket, None makes it blocking."""
        with self.kernel_sockets():
            return socket.create_connection((address, port), timeout)

    def kernel_listen(self, address: str | None = None, port: int = 0, backlog: int = 128) -> socket.socket:
        """A listening TCP socket on the kernel's side, by default on `kernel_address` and a free port."""
        address = address or self.kernel_address
        with self.kernel_sockets():
            return socket.create_server((address, port), family=family_of(address), backlog=backlog)

    def kernel_datagram(self, address: str | None = None, port: int = 0) -> socket.socket:
        """A bound UDP socket on the kernel's side, by default on `kernel_address` and a free port."""
        address = address or self.kernel_address
        with self.kernel_sockets():
            datagrams = socket.socket(family_of(address), socket.SOCK_DGRAM)
        datagrams.bind((address, port))
        return datagrams

    # -- inside -------------------------------------------------------------------------------------------------------

    def _connect_kernel(self) -> None:
        self._netns.ip(
            "link add kernel0 type veth peer name vpp0",
            # Without addresses of its own the kernel stays silent on VPP's end, where only VPP shall answer.
            "link set vpp0 addrgenmode none mtu 1500 up",
            "link set kernel0 mtu 1500 up",
            f"address add {self.kernel_address}/24 dev kernel0",
            f"address add {self.kernel_address6}/64 dev kernel0 nodad",
            f"route add {self.loop_address} via {self.address}",
            f"route add {self.loop_address6} via {self.address6}",
        )
        if not self._offload:
            # Offloaded means not computed at all on a veth, and VPP drops what has no checksum (see cksum-gso-disable).
            for interface in ("kernel0", "vpp0"):
                self.run(["ethtool", "-K", interface, "tx", "off"], check=True, capture_output=True)

    def _configuration(self) -> str:
        plugins = " ".join(f"plugin {name}_plugin.so {{ enable }}" for name in self._plugins)
        # VPP refuses an empty tcp stanza.
        tcp = f"tcp {{ {self._tcp} }}" if self._tcp else ""
        cpu = f"cpu {{ main-core {self._main_core} }}" if self._main_core is not None else ""
        # Pages of 4k everywhere: huge ones would have to be set aside first. They are touched as needed, so the sizes
        # are limits; an idle instance has 280 MB.
        return f"""
unix {{ nodaemon nosyslog nocolor cli-listen {self.cli_socket} runtime-dir {self.directory} }}
memory {{ main-heap-size 512M main-heap-page-size 4k default-hugepage-size 4k }}
buffers {{ buffers-per-numa 16384 page-size 4k }}
statseg {{ size 8M page-size 4k }}
api-segment {{ prefix {self.namespace} }}
plugins {{ plugin default {{ disable }} {plugins} }}
session {{ {self._session} }}
{tcp}
{cpu}
{self._extra}
"""

    def _configure(self, command: str) -> None:
        # Only creating an interface has something to say, its name; every other answer is a complaint.
        answer = self.ctl(command)
        if answer not in ("", "host-vpp0", "loop0"):
            raise RuntimeError(f"{command}: {answer}")

    def _wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not condition():
            if not self.alive():
                assert self._process is not None
                raise RuntimeError(f"it ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {_START_LIMIT:.0f} s for {what}")
            time.sleep(0.01)

    def _cli_answers(self) -> bool:
        try:
            return Path(self.cli_socket).exists() and self.ctl("show version", timeout=2).startswith("vpp ")
        except subprocess.SubprocessError:
            return False

    def _app_socket_answers(self) -> bool:
        # Only knock. A connection closed before its attach message stays in VPP's epoll for good, and VPP spins on its
        # hang-up (session_api.c: sapi_socket_detach returns early, 26.06). A stream socket does not fit a listener for
        # SOCK_SEQPACKET: the kernel says EPROTOTYPE if VPP is there, ECONNREFUSED if only a file is, VPP hears nothing.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            return knock.connect_ex(self.app_socket) == errno.EPROTOTYPE

    def _refuses(self, address: str) -> bool:
        # More than a ping: a refusal passed the neighbour tables, VPP's TCP and the checksums in both directions.
        try:
            self.kernel_connect(address, 1, timeout=0.2).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        raise RuntimeError(f"something listens on port 1 of {address}")


def _addresses() -> dict[str, str]:
    names = ("address", "address6", "kernel_address", "kernel_address6", "loop_address", "loop_address6")
    return {name: getattr(VppInstance, name) for name in names}


def family_of(address: str) -> socket.AddressFamily:
    """Of a literal address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _remove_files(name: str) -> None:
    _remove_shared_memory(name)
    shutil.rmtree(_RUN / name, ignore_errors=True)


def _remove_shared_memory(name: str) -> None:
    for path in _SHARED_MEMORY.glob(f"{name}-*"):
        path.unlink(missing_ok=True)


def _remove_leftovers() -> None:
    """Clear away what processes left that had no chance to, such as a test run ended by SIGKILL."""
    remove_stale(PREFIX)
    for path in _RUN.glob(f"{PREFIX}-*"):
        if maker_is_dead(path.name, PREFIX):
            _remove_files(path.name)
