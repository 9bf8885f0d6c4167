"""The VPP the other tests rely on: it starts, answers the kernel, comes back, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vppaio.testing.vppinstance import VppInstance

pytestmark = pytest.mark.vpp


def traces(name: str) -> list[Path]:
    return [path for folder in ("/run", "/run/netns", "/dev/shm") for path in Path(folder).glob(f"{name}*")]


def is_refused(vpp: VppInstance, address: str) -> bool:
    try:
        vpp.kernel_connect(address, 1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("name", ["address", "address6", "loop_address", "loop_address6"])
def test_kernel_client_reaches_every_address(vpp_instance, name):
    assert is_refused(vpp_instance, getattr(vpp_instance, name))


@pytest.mark.parametrize("name", ["kernel_address", "kernel_address6"])
def test_kernel_sockets_stay_inside_the_namespace(vpp_instance, name):
    address = getattr(vpp_instance, name)
    with vpp_instance.kernel_listen(address) as listener:
        port = listener.getsockname()[1]
        with vpp_instance.kernel_connect(address, port) as client, listener.accept()[0] as server:
            client.sendall(b"inside")
            assert server.recv(6) == b"inside"
    with pytest.raises(OSError, match="assign requested address"), vpp_instance.kernel_datagram(address):
        socket.create_server((address, 0), family=listener.family)


def test_namespace_is_left_after_an_error(vpp_instance):
    def namespace() -> str:
        return os.readlink("/proc/thread-self/ns/net")

    def fail_inside() -> None:
        with vpp_instance.kernel_sockets():
            raise OSError(f"inside {namespace()}")

    outside = namespace()
    with pytest.raises(OSError, match="inside") as failure:
        fail_inside()
    assert outside not in str(failure.value)
    assert namespace() == outside


def test_run_is_inside_the_namespace(vpp_instance):
    shown = vpp_instance.run(["ip", "address", "show"], capture_output=True, text=True, check=True).stdout
    assert vpp_instance.kernel_address in shown


def test_idle_vpp_uses_little_cpu(vpp_instance):
    with VppInstance() as fresh:  # what tests left in the shared one keeps it a little busy
        before = fresh.cpu_seconds()
        time.sleep(1)
        assert fresh.cpu_seconds() - before < 0.2  # 0.03 usual


def test_comes_back_after_sigkill(vpp_instance):
    vpp_instance.kill()
    assert not vpp_instance.alive()
    assert not vpp_instance.crashed()
    vpp_instance.restart()
    assert vpp_instance.healthy()
    assert is_refused(vpp_instance, vpp_instance.address)


def test_comes_back_after_hanging(vpp_instance):
    os.kill(vpp_instance.pid, signal.SIGSTOP)
    assert vpp_instance.alive()
    assert not vpp_instance.healthy()
    vpp_instance.restart()
    assert vpp_instance.healthy()


@pytest.mark.parametrize("offload", [False, True])
def test_instances_do_not_meet(vpp_instance, offload):
    with VppInstance(offload=offload) as other:
        assert other.namespace != vpp_instance.namespace
        assert is_refused(other, other.address6)
        assert is_refused(vpp_instance, vpp_instance.address)


def test_nothing_is_left_after_a_crash(vpp_instance):
    with VppInstance() as other:
        assert traces(other.namespace)
        os.kill(other.pid, signal.SIGSEGV)
        deadline = time.monotonic() + 5
        while other.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert other.crashed()
        assert "SIGSEGV" in other.log_tail()
    assert traces(other.namespace) == []


def test_start_failure_shows_the_log_and_leaves_nothing(vpp_instance):
    broken = VppInstance(extra="tcp { no-such-option }")
    with pytest.raises(RuntimeError, match="no-such-option"), broken:
        pass
    assert traces(broken.namespace) == []


def test_next_start_clears_away_what_a_killed_process_left(vpp_instance):
    script = (
        "import os; from vppaio.testing.vppinstance import VppInstance as V; V().__enter__(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.Popen([sys.executable, "-c", script])
    assert killed.wait() == -signal.SIGKILL
    assert traces(f"vppaio-{killed.pid}")
    with VppInstance():
        assert traces(f"vppaio-{killed.pid}") == []


def test_command_line_tells_the_command_where_everything_is(vpp_instance):
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "vppaio.testing",
            "--",
            "sh",
            "-c",
            'test -S "$VPPAIO_APP_SOCKET" && env; exit 3',
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 3
    assert f"VPP_ADDRESS={VppInstance.address}\n" in shown.stdout
    assert f"VPP_KERNEL_ADDRESS={VppInstance.kernel_address}\n" in shown.stdout


def test_command_line_cleans_up_on_sigterm(vpp_instance):
    process = subprocess.Popen(
        [sys.executable, "-m", "vppaio.testing", "--", "sh", "-c", "echo started; exec sleep 60"],
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"started\n"
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert traces(f"vppaio-{process.pid}") == []
