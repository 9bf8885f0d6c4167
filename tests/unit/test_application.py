"""attach, workers, detach: against a stub of libvppcom where VCL would do harm, against VPP where it matters."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys

import pytest

from tests.fakes.libvppcom import clean_environment, run_python, silent_vpp, stub
from vppaio.config import APP_SOCKET, Config
from vppaio.vcl import application

ATTACH = """
import sys, time
from vppaio.config import Config
from vppaio.vcl import application
try:
    application.attach(Config())
except Exception as error:
    print(type(error).__name__, error)
else:
    print("attached")
"""


@pytest.fixture
def app_socket(tmp_path):
    """Somebody listens there, as VPP 26.06 would."""
    path = tmp_path / "app_ns_sockets" / "default"
    path.parent.mkdir()
    with silent_vpp(path, "26.06"):
        yield str(path)


def test_addresses_of_the_tables():
    assert application.host_ops_address() != application.vpp_ops_address() != 0


# ---- whether VPP is meant -------------------------------------------------------------------------------------------


@pytest.fixture
def _nothing_configured(monkeypatch, tmp_path):
    monkeypatch.setattr(application, "INSTALLED_VCL_CONF", str(tmp_path / "no.conf"))
    monkeypatch.delenv("VCL_CONFIG", raising=False)
    monkeypatch.delenv("VPPAIO_VCL_CONFIG", raising=False)


@pytest.mark.usefixtures("_nothing_configured")
def test_is_configured(tmp_path, monkeypatch):
    nothing = Config(app_socket=tmp_path / "none")
    assert not application.is_configured(nothing)
    (tmp_path / "there").touch()
    assert application.is_configured(Config(app_socket=tmp_path / "there"))
    assert application.is_configured(Config(app_socket=APP_SOCKET, vcl_config="/none.conf"))
    (tmp_path / "no.conf").touch()
    assert application.is_configured(nothing)


@pytest.mark.usefixtures("_nothing_configured")
def test_vcl_config_variable_configures(monkeypatch):
    monkeypatch.setenv("VCL_CONFIG", "/none.conf")
    assert application.is_configured(Config())


# ---- attach ---------------------------------------------------------------------------------------------------------


def test_attach_writes_its_own_vcl_conf_and_leaves_at_exit(app_socket):
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub(), VPPAIO_APP_NAME="web")
    assert (done.returncode, done.stdout) == (0, "attached\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "stub: created web scope_local=0"
    assert f"conf:   app-socket-api {app_socket}" in lines
    assert "conf:   use-mq-eventfd" in lines
    assert lines[-1] == "stub: worker 0 deleted"


def test_own_vcl_conf_is_not_overridden_by_the_environment(app_socket):
    code = ATTACH + "import os; print(os.environ['VCL_APP_SCOPE_LOCAL'], os.environ.get('VCL_CONFIG'))"
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub(), VCL_APP_SCOPE_LOCAL="1")
    assert "scope_local=0" in done.stderr
    assert done.stdout == "attached\n1 None\n"


def test_named_vcl_conf_is_used_with_its_environment(app_socket, tmp_path):
    conf = tmp_path / "vcl.conf"
    conf.write_text(f"vcl {{\n  use-mq-eventfd\n  app-socket-api {app_socket}\n  heapsize 77M\n}}\n")
    for variable in ("VPPAIO_VCL_CONFIG", "VCL_CONFIG"):
        done = run_python(ATTACH, VPPAIO_LIBVPPCOM=stub(), VCL_APP_SCOPE_LOCAL="1", **{variable: str(conf)})
        assert done.stdout == "attached\n"
        assert "scope_local=1" in done.stderr
        assert "conf:   heapsize 77M" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "FileNotFoundError"),
        ("vcl {\n  app-socket-api /s\n}\n", "ValueError .*use-mq-eventfd is missing"),
        ("vcl {\n  use-mq-eventfd\n}\n", "ValueError .*app-socket-api is missing"),
    ],
)
def test_named_vcl_conf_is_checked_before_libvppcom_sees_it(tmp_path, text, said):
    conf = tmp_path / "vcl.conf"
    if text is not None:
        conf.write_text(text)
    done = run_python(ATTACH, VPPAIO_LIBVPPCOM=stub(), VPPAIO_VCL_CONFIG=str(conf))
    assert done.stderr == ""
    assert re.match(said, done.stdout)
    assert str(conf) in done.stdout


def test_second_attach_is_nothing_new_or_refused(app_socket):
    code = (
        ATTACH
        + """
application.attach(Config())
try:
    application.attach(Config(segment_size=1 << 30))
except RuntimeError as error:
    print(error)
"""
    )
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    assert done.stderr.count("stub: created") == 1
    assert done.stdout.splitlines()[1] == (
        "segment_size: this process is attached to VPP with 268435456 and cannot change to 1073741824; "
        "attach is once per process"
    )


def test_threads_attach_once(app_socket):
    code = """
import threading
from vppaio.config import Config
from vppaio.vcl import application
config = Config()
threads = [threading.Thread(target=application.attach, args=(config,)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(application.acquire_worker() for _ in range(8)))
"""
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    assert done.stdout == "[0, 1, 2, 3, 4, 5, 6, 7]\n"
    assert done.stderr.count("stub: created") == 1


def test_missing_socket_and_missing_listener(tmp_path):
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=str(tmp_path / "none"), VPPAIO_LIBVPPCOM=stub())
    assert done.stdout.startswith("FileNotFoundError")
    assert str(tmp_path / "none") in done.stdout
    (tmp_path / "left").touch()
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=str(tmp_path / "left"), VPPAIO_LIBVPPCOM=stub())
    assert done.stdout.startswith("ConnectionRefusedError")
    assert "start VPP" in done.stdout


def test_failure_before_libvppcom_is_asked_can_be_retried(app_socket, tmp_path):
    code = f"""
from vppaio.config import Config
from vppaio.vcl import application
for path in ({str(tmp_path / "none")!r}, {app_socket!r}):
    try:
        application.attach(Config(app_socket=path))
        print("attached")
    except OSError as error:
        print(type(error).__name__)
"""
    assert run_python(code, VPPAIO_LIBVPPCOM=stub()).stdout == "FileNotFoundError\nattached\n"


def test_refusal_is_final(app_socket):
    """libvppcom has freed itself then, and the next call into it would crash."""
    code = (
        ATTACH
        + ATTACH
        + """
from vppaio.vcl._vcl import ffi, lib
print(ffi.cast("vcl_ops *", lib.vppaio_vpp_ops()).epoll_create(0))
"""
    )
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub(), STUB_CREATE="-1")
    first, second, third = done.stdout.splitlines()
    assert first.startswith("ConnectionRefusedError")
    assert "an earlier attach failed" in second
    assert third == str(-errno.ENOTCONN)
    assert done.stderr.count("stub: created") == 1
    assert done.returncode == 0


def test_vpp_that_hangs_is_given_up_and_the_process_ends_well(app_socket):
    """Without vppaio_vpp_give_up VCL's exit handler crashes the process."""
    code = "import vppaio.vcl.application as a; a._ATTACH_LIMIT_S = 0.2\n" + ATTACH + "sys.exit(7)"
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub(), STUB_CREATE="hang")
    assert done.stdout.startswith("TimeoutError")
    assert "VPP hangs" in done.stdout
    assert done.returncode == 7


@pytest.mark.usefixtures("vpp_installed")
def test_real_vcl_on_a_vpp_that_hangs(tmp_path):
    path = tmp_path / "app"
    with silent_vpp(path):
        done = run_python(
            "import vppaio.vcl.application as a; a._ATTACH_LIMIT_S = 0.5\n" + ATTACH, VPPAIO_APP_SOCKET=str(path)
        )
    assert done.stdout.startswith("TimeoutError")
    assert done.returncode == 0


# ---- the library ----------------------------------------------------------------------------------------------------


def test_library_before_21_10_is_refused_by_name(app_socket):
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub("21.06"))
    assert "libvppcom 21.06 is older than 21.10" in done.stdout
    assert "created" not in done.stderr


def test_library_that_lacks_a_function_is_refused_by_name(app_socket):
    library = stub("26.06", "WITHOUT_MQS_EPFD")
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=library)
    assert "libvppcom has no vppcom_worker_mqs_epfd" in done.stdout


def test_library_of_another_release_than_vpps_is_refused(app_socket):
    """They share memory without a version in it."""
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub("24.10"))
    assert "libvppcom is 24.10" in done.stdout
    assert "the running VPP is 26.06" in done.stdout
    assert "created" not in done.stderr


def test_named_library_that_does_not_exist(app_socket):
    done = run_python(ATTACH, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM="/none/libvppcom.so")
    assert done.stdout.startswith("FileNotFoundError")
    assert "/none/libvppcom.so" in done.stdout
    assert "correct VPPAIO_LIBVPPCOM" in done.stdout


# ---- workers --------------------------------------------------------------------------------------------------------


def test_released_worker_serves_the_next_loop(app_socket):
    code = (
        ATTACH
        + """
first, second = application.acquire_worker(), application.acquire_worker()
application.release_worker(first)
print(first, second, application.acquire_worker(), application.acquire_worker())
"""
    )
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    assert done.stdout == "attached\n0 1 0 2\n"


def test_too_many_workers(app_socket, tmp_path):
    conf = tmp_path / "vcl.conf"
    conf.write_text(f"vcl {{\n  use-mq-eventfd\n  app-socket-api {app_socket}\n  max-workers 2\n}}\n")
    code = ATTACH + "for _ in range(3):\n    print(application.acquire_worker())\n"
    done = run_python(code, VPPAIO_VCL_CONFIG=str(conf), VPPAIO_LIBVPPCOM=stub())
    assert done.stdout == "attached\n0\n1\n"
    assert done.stderr.splitlines()[-2].endswith(
        f"[Errno {errno.ENOBUFS}] VPP gave no worker for another event loop: at most 2 of a process can be open on "
        "VPP at a time (libvppcom's max-workers, 128 at most); close loops that are no longer needed, or give those "
        "that need no VPP Config(stack='host')"
    )


def test_worker_without_attach(monkeypatch):
    monkeypatch.setattr(application, "_attached", None)  # other tests of this process attach
    with pytest.raises(OSError, match="not attached"):
        application.acquire_worker()


# ---- fork and exit --------------------------------------------------------------------------------------------------


def test_forked_child_is_refused_and_leaves_vpp_alone(app_socket):
    code = (
        ATTACH
        + """
import os
sys.stdout.flush()
if os.fork() == 0:
    for call in (application.acquire_worker, lambda: application.attach(Config())):
        try:
            call()
        except OSError as error:
            print(error, flush=True)
    sys.exit(3)
print("child", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
    )
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    lines = done.stdout.splitlines()
    assert len([line for line in lines if "this process was forked" in line]) == 2
    assert lines[-1] == "child 3"
    assert done.stderr.count("deleted") == 1  # the parent's own
    assert done.returncode == 0


def test_exit_waits_until_vpp_has_digested_the_last_accept(app_socket):
    code = (
        "import vppaio.vcl.application as a, time\n"
        + ATTACH
        + """
looks = []
start = time.monotonic()
class Lib:
    vppaio_vpp_since_accept = lambda self: time.monotonic() - start
    def __getattr__(self, name): return getattr(real, name)
real, a.lib = a.lib, Lib()
a._poll_all = lambda: looks.append(1)
a.detach()
print(0.4 <= time.monotonic() - start < 2, len(looks) > 5)
"""
    )
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    assert done.stdout == "attached\nTrue True\n"


def test_end_by_signal_comes_last(app_socket):
    code = ATTACH + "import signal; application.end_by_signal(signal.SIGTERM); print('last words'); sys.exit(143)"
    done = run_python(code, VPPAIO_APP_SOCKET=app_socket, VPPAIO_LIBVPPCOM=stub())
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "attached\nlast words\n"
    assert "deleted" not in done.stderr  # the kernel closes the app socket


@pytest.mark.vpp
def test_attach_to_vpp(vpp_instance):
    code = ATTACH + "print([application.acquire_worker() for _ in range(4)])"
    done = run_python(code, VPPAIO_APP_SOCKET=vpp_instance.app_socket)
    assert (done.returncode, done.stdout) == (0, "attached\n[0, 1, 2, 3]\n")
    assert done.stderr == ""


@pytest.mark.vpp
def test_exit_right_after_accept_leaves_vpp_alive(vpp_instance):
    """Fifty times. VPP 26.06 dies when an application leaves with its last accept undigested."""
    code = """
import asyncio, sys, vppaio
async def main():
    accepted = asyncio.Event()
    server = await asyncio.start_server(lambda r, w: accepted.set(), sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    await accepted.wait()
    sys.exit(0)
vppaio.run(main())
"""
    address, ports = vpp_instance.address, range(7001, 7006)
    environment = clean_environment(VPPAIO_APP_SOCKET=vpp_instance.app_socket)
    for _ in range(10):
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", code, address, str(port)], env=environment, stdout=subprocess.PIPE, text=True
            )
            for port in ports
        ]
        try:
            assert [program.stdout.readline() for program in programs] == ["ready\n"] * len(programs)
            for port in ports:
                vpp_instance.kernel_connect(address, port).close()
            assert [program.wait(10) for program in programs] == [0] * len(programs)
        finally:
            for program in programs:
                program.kill()
                program.communicate()
    assert vpp_instance.healthy()
