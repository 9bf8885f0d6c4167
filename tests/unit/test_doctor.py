"""`vppaio doctor`: the right cause for every broken set-up, each made here; and it never hangs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.libvppcom import clean_environment, silent_vpp, stub
from vppaio.testing.vppinstance import VppInstance


def doctor(*arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> tuple[int, dict[str, Any]]:
    """Exit status and findings."""
    command = [*prefix, sys.executable, "-m", "vppaio", "doctor", "--json", *arguments]
    environment = clean_environment(**variables)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert done.stderr == ""
    findings = json.loads(done.stdout)
    assert findings["usable"] == (done.returncode == 0)
    assert ("\n" in findings["cause"] + findings["cure"]) is False
    return done.returncode, findings


@pytest.fixture
def app_socket(tmp_path):
    folder = tmp_path / "app_ns_sockets"
    folder.mkdir()
    return folder / "default"


@pytest.fixture
def vcl_conf(tmp_path, app_socket):
    path = tmp_path / "vcl.conf"

    def write(*lines: str, complete: bool = True) -> str:
        needed = ("use-mq-eventfd", f"app-socket-api {app_socket}") if complete else ()
        path.write_text("\n".join(("vcl {", *needed, *lines, "}", "")))
        return str(path)

    return write


def test_everything_is_well(app_socket):
    with silent_vpp(app_socket, "26.06") as process:
        status, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub())
        (remark,) = found.pop("remarks")
        assert remark.startswith("this libvppcom does not call ")  # a stub does not
        assert found == {
            "usable": True,
            "app_socket": str(app_socket),
            "vcl_config": "",
            "libvppcom": stub(),
            "libvppcom_release": "26.06",
            "vpp_pid": process.pid,
            "vpp_release": "26.06",
            "problem": "",
            "cause": "",
            "cure": "",
        }
    assert status == 0


def test_for_people_the_last_line_has_cause_and_cure(app_socket):
    command = [sys.executable, "-m", "vppaio", "doctor", "--app-socket", str(app_socket)]
    environment = clean_environment(VPPAIO_LIBVPPCOM=stub())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert f"libvppcom   26.06, {stub()}" in lines
    assert f"app socket  {app_socket}" in lines
    assert lines[-1].startswith("VPP is not usable: ")
    assert str(app_socket) in lines[-1]


# ---- broken set-ups --------------------------------------------------------------------------------------------------


def test_nothing_installed(app_socket):
    """In a mount namespace where libvppcom cannot be loaded, if there is one."""
    found = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    libraries = [line.split()[-1] for line in found.splitlines() if "libvppcom.so" in line]
    prefix: tuple[str, ...] = ()
    if libraries:
        if os.geteuid() != 0:
            pytest.skip("libvppcom is installed, and hiding it takes root")
        folder = os.path.dirname(libraries[0])
        if len(os.listdir(folder)) > 300:
            pytest.skip(f"libvppcom is in {folder}, which cannot be hidden")
        script = f'mount -t tmpfs none "{folder}" && exec "$@"'
        prefix = ("unshare", "-m", "sh", "-c", script, "sh")
    _, found = doctor("--app-socket", str(app_socket), prefix=prefix)
    assert found["problem"] == "library-missing"
    assert "libvppcom is not installed here" in found["cause"]
    assert "install VPP's packages" in found["cure"]


def test_named_library_missing(app_socket):
    _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM="/none/libvppcom.so")
    assert found["problem"] == "library-missing"
    assert "/none/libvppcom.so" in found["cause"]


def test_vpp_not_running_and_nothing_left(app_socket):
    _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "vpp-not-running"
    assert f"there is no app socket {app_socket}" in found["cause"]
    assert "app_socket" in found["cure"]


def test_vpp_not_running_and_its_socket_left(app_socket):
    with silent_vpp(app_socket):
        pass
    assert app_socket.exists()
    _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "vpp-not-running"
    assert "nobody listens" in found["cause"]
    assert "start VPP" in found["cure"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root, to give permissions away")
@pytest.mark.parametrize("what", ["socket", "folder"])
def test_no_permission(app_socket, what):
    without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    with silent_vpp(app_socket):
        hidden = app_socket if what == "socket" else app_socket.parent
        os.chown(hidden, 65534, 65534)
        hidden.chmod(0o700)
        _, found = doctor("--app-socket", str(app_socket), prefix=without, VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "no-permission"
    assert str(app_socket) in found["cause"]
    assert "owner 65534" in found["cause"]
    assert "group" in found["cure"]


def test_session_layer_off(tmp_path, app_socket):
    with socket.socket(socket.AF_UNIX) as cli:
        cli.bind(str(tmp_path / "cli.sock"))
        cli.listen()
        _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "session-layer-off"
    assert f"VPP (pid {os.getpid()}) runs" in found["cause"]
    assert "session { enable" in found["cure"]


def test_release_mismatch(app_socket):
    with silent_vpp(app_socket, "24.10"):
        _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub("26.06"))
    assert found["problem"] == "release-mismatch"
    assert "libvppcom is 26.06" in found["cause"]
    assert "the running VPP is 24.10" in found["cause"]
    assert (found["libvppcom_release"], found["vpp_release"]) == ("26.06", "24.10")


@pytest.mark.parametrize(
    ("lines", "complete", "said"),
    [
        (["rx-fifo-size 4M"], True, "line 4: rx-fifo-size 4M: use a plain number"),
        ([], False, "use-mq-eventfd is missing"),
        (["use-mq-eventfd"], False, "app-socket-api is missing"),
        (["use-mq-evenfd", "app-socket-api /s"], False, "did you mean use-mq-eventfd?"),
    ],
)
def test_wrong_vcl_conf(vcl_conf, lines, complete, said):
    path = vcl_conf(*lines, complete=complete)
    _, found = doctor("--vcl-config", path, VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "vcl-conf"
    assert found["cause"].startswith(f"{path}: ")
    assert said in found["cause"]


def test_vcl_conf_missing_or_unreadable(tmp_path):
    _, found = doctor("--vcl-config", str(tmp_path / "none.conf"), VPPAIO_LIBVPPCOM=stub())
    assert found["problem"] == "vcl-conf"
    assert os.strerror(errno.ENOENT) in found["cause"]
    _, found = doctor("--vcl-config", str(tmp_path), VPPAIO_LIBVPPCOM=stub())
    assert "not a regular file" in found["cause"]


def test_unknown_keys_are_a_remark(app_socket, vcl_conf):
    with silent_vpp(app_socket):
        status, found = doctor("--vcl-config", vcl_conf("hugepage"), VPPAIO_LIBVPPCOM=stub())
    assert status == 0
    assert found["remarks"][:-1] == ["line 4: VCL ignores unknown hugepage, did you mean huge_page?"]
    assert "does not call" in found["remarks"][-1]


def test_vpp_hangs(app_socket):
    """It accepts and does not answer; the real libvppcom would wait for ever."""
    start = time.monotonic()
    with silent_vpp(app_socket):
        _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub(), STUB_CREATE="hang")
    assert time.monotonic() - start < 10
    assert found["problem"] == "vpp-hung"
    assert str(app_socket) in found["cause"]


def test_libvppcom_crashes(app_socket):
    with silent_vpp(app_socket):
        _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub(), STUB_CREATE="crash")
    assert found["problem"] == "crashed"
    assert "SIGABRT" in found["cause"]
    assert found["libvppcom"] == stub()


def test_vpp_refuses(app_socket):
    with silent_vpp(app_socket):
        _, found = doctor("--app-socket", str(app_socket), VPPAIO_LIBVPPCOM=stub(), STUB_CREATE="-1")
    assert found["problem"] == "refused"
    assert any(remark.startswith("libvppcom said: ") for remark in found["remarks"])


def test_wrong_setting_is_one_line():
    command = [sys.executable, "-m", "vppaio", "doctor"]
    environment = clean_environment(VPPAIO_SEGMENT_SIZE="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


# ---- on VPP ----------------------------------------------------------------------------------------------------------


@pytest.mark.vpp
def test_vpp_is_usable(vpp_instance):
    with VppInstance() as vpp:  # of its own: other tests leave the shared one busier than idle
        before = vpp.cpu_seconds()
        for _ in range(5):
            status, found = doctor("--app-socket", vpp.app_socket)
            assert (status, found["vpp_pid"]) == (0, vpp.pid)
            assert found["vpp_release"] == found["libvppcom_release"] != ""
        time.sleep(0.5)
        after = vpp.cpu_seconds()
        time.sleep(0.5)
        assert vpp.cpu_seconds() - after < 0.2, f"VPP spins after doctor's visits ({after - before} s during them)"


@pytest.mark.vpp
def test_release_mismatch_on_vpp(vpp_instance):
    _, found = doctor("--app-socket", vpp_instance.app_socket, VPPAIO_LIBVPPCOM=stub("22.10"))
    assert found["problem"] == "release-mismatch"
    assert vpp_instance.healthy()


@pytest.mark.vpp
def test_session_layer_off_on_vpp(vpp_instance):
    hidden = Path(f"{vpp_instance.app_socket}.hidden")  # what an installation without `session { enable }` looks like
    Path(vpp_instance.app_socket).rename(hidden)
    try:
        _, found = doctor("--app-socket", vpp_instance.app_socket)
    finally:
        hidden.rename(vpp_instance.app_socket)
    assert found["problem"] == "session-layer-off"
    assert str(vpp_instance.pid) in found["cause"]


@pytest.mark.vpp
def test_stopped_vpp_hangs(vpp_instance):
    os.kill(vpp_instance.pid, 19)
    try:
        _, found = doctor("--app-socket", vpp_instance.app_socket)
    finally:
        os.kill(vpp_instance.pid, 18)
    assert found["problem"] == "vpp-hung"
