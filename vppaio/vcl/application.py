"""This process as an application of VPP: attach once, hand out workers, leave in peace.

libvppcom keeps one application per process, in global variables, and survives neither a second attach nor most retries
(see libvppcom.c). So the application is process-wide: it is attached when the first loop asks for it, shared by all
loops, and left at exit.

What Python's exit does not reach (SIGKILL, a signal's default action, os._exit) leaves without a farewell. VPP notices,
but may itself die of it within 0.3 s of an accept (VPP 26.06), so services should turn SIGTERM into a normal exit;
`vppaio run` does.

VPP may hang. So everything that asks it has a limit (vpp_asking.c), one thread at a time asks for the process while the
others that need the answer wait, as long at most, and no lock is held meanwhile: whoever needs no answer goes on, such
as a loop on the host stack, and the exit.

Called by the loop and by the reactor's workers, from any thread.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vppaio.config import IN_VCL_CONFIG, Config
from vppaio.vcl import library, probe, room, vclconf
from vppaio.vcl._vcl import ffi, lib
from vppaio.vcl.errors import Unusable, os_error

INSTALLED_VCL_CONF: Final = "/etc/vpp/vcl.conf"
_ATTACH_LIMIT_S: Final = 4.0  # libvppcom's own limit is 3 s (vpp_asking.h); if it comes to nothing, it is left behind
_HANGS_AFTER_S: Final = 2.0  # an answer that took longer was none
# VPP 26.06 dies when an application leaves before VPP has handled its last accept. 0.3 s are enough (docs/vpp.md 9.6).
_DIGEST_S: Final = 0.4
_LOOK_EVERY_S: Final = 0.01
_RESTORE_LIMIT_S: Final = 3.0  # VCL's own second, and loops ask for a lost VPP four times a second
_BYTES_OF_A_CONNECTION: Final = 1024  # in libvppcom's heap, FIFOs included (26.06)
_OF_THE_PROCESS: Final = ("app_name", "vcl_config", *IN_VCL_CONFIG)  # all loops share them


@dataclass(frozen=True)
class _Attached:
    config: Config
    app_socket: str
    max_workers: int


_changed = threading.Condition()  # guards what follows; never held while VPP is asked
_asking = False  # a thread asks VPP for the application, or for a worker
_hung: Unusable | None = None  # what the last one that asked had to hear, if VPP did not answer
_attached: _Attached | None = None
_forked = False
_failed: str = ""  # why libvppcom said no; it takes no second question
_idle_workers: list[int] = []


def host_ops_address() -> int:
    """Address of the host stack's table of operations."""
    return int(ffi.cast("uintptr_t", lib.vppaio_host_ops()))


def vpp_ops_address() -> int:
    """Address of VPP's table of operations; every one is refused before attach."""
    return int(ffi.cast("uintptr_t", lib.vppaio_vpp_ops()))


def is_configured(config: Config) -> bool:
    """Whether this machine means to use VPP: then a VPP that fails is an error and not a reason to go on without."""
    return (
        config.vcl_config is not None
        or os.path.lexists(config.app_socket)
        or _hidden(config.app_socket)
        or os.path.exists(INSTALLED_VCL_CONF)
    )


def _hidden(path: str) -> bool:
    """Whether the folder of `path` exists and keeps its content from this user."""
    folder = os.path.dirname(path)
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)


# ---- attach --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asking_vpp(app_socket: str) -> Iterator[None]:
    """Be the one thread that asks VPP. Who waited while it gave no answer hears so, and does not ask again."""
    global _asking, _hung
    with _changed:
        waited = _asking
        if not _changed.wait_for(lambda: not _asking, _ATTACH_LIMIT_S):
            raise probe.hung(app_socket)
        if waited and _hung is not None:
            raise Unusable(*_hung.args)
        _asking, _hung = True, None
    try:
        yield
    except Unusable as reason:
        if reason.code == errno.ETIMEDOUT:
            _hung = reason
        raise
    finally:
        with _changed:
            _asking = False
            _changed.notify_all()


def attach(config: Config, *, cut_through: bool = False) -> None:
    """Attach this process to VPP, or find that it is attached already. Takes 4 s at most.

    Args:
        cut_through: reach other applications of the same VPP through shared memory; not with a named vcl.conf.

    Raises:
        RuntimeError: it is attached with other settings; attach is once per process.
        ValueError: the named vcl.conf will not do.
        OSError: VPP cannot be used; the subclass and the text say why and what to do.
    """
    try:
        attach_or_explain(config, cut_through=cut_through)
    except Unusable as reason:
        raise reason.as_error() from None


def attach_or_explain(
    config: Config, report: Callable[..., None] = lambda **_: None, *, cut_through: bool = False
) -> None:
    """`attach`, raising Unusable. `report` learns what is found on the way, by keyword."""
    if _is_attached_with(config):
        return
    named = vclconf.read(config.vcl_config) if config.vcl_config is not None else None
    app_socket = named.app_socket if named else config.app_socket
    report(app_socket=app_socket, vcl_config=config.vcl_config or "", remarks=named.remarks if named else [])
    if named:
        named.require()
    with _asking_vpp(app_socket):
        if _is_attached_with(config):
            return
        room.require(room.sizes_of(config, named))
        library.find(app_socket, report)
        _attach(config, named, app_socket, cut_through)


def _is_attached_with(config: Config) -> bool:
    """Whether this process is attached. Raises what speaks against `config`, or against another try."""
    with _changed:
        if _forked:
            raise _forked_off()
        if _attached:
            _compare(_attached.config, config)
        elif _failed:
            raise Unusable(
                "failed-before",
                errno.ENOTRECOVERABLE,
                f"an earlier attach failed ({_failed})",
                "libvppcom allows one try per process, so start the program again",
            )
        return _attached is not None


def _attach(config: Config, named: vclconf.VclConf | None, app_socket: str, cut_through: bool) -> None:
    global _attached, _failed
    sizes = room.sizes_of(config, named)
    # Before: the process may fork, or end, while VPP is asked.
    os.register_at_fork(after_in_child=_after_fork_in_child)
    atexit.register(detach)
    try:
        with vclconf.settings(named.text if named else vclconf.own(config, cut_through=cut_through), named is not None):
            _create_application(config, app_socket, sizes)
    except Unusable as reason:
        _failed = str(reason)
        raise
    except OSError:  # no descriptor for the settings; nobody was asked
        raise
    except BaseException:  # a signal's handler does not let us wait
        _failed = "it was interrupted"
        lib.vppaio_vpp_give_up()
        raise
    room.keep(sizes)
    queue = named.event_queue_size if named else config.event_queue_size
    ring = queue // 16  # for connections, among others
    lib.vppaio_vpp_event_queue(queue)
    lib.vppaio_vpp_heap_reserve(min(ring * _BYTES_OF_A_CONNECTION, sizes.heap // 8))
    with _changed:
        _attached = _Attached(config, app_socket, named.max_workers if named else vclconf.MAX_WORKERS)
        _idle_workers.append(0)  # VCL's first worker comes with the application


def look_for_vpp(config: Config) -> None:
    """See that what `attach` needs is there, without asking VPP: its libvppcom, somebody on the app socket, a vcl.conf
    that will do.

    Raises:
        ValueError, OSError: as `attach`.
    """
    try:
        if not _is_attached_with(config):
            named = vclconf.read(config.vcl_config) if config.vcl_config is not None else None
            if named:
                named.require()
            room.require(room.sizes_of(config, named))
            library.find(named.app_socket if named else config.app_socket, lambda **_: None)
    except Unusable as reason:
        raise reason.as_error() from None


def _forked_off() -> Unusable:
    return Unusable(
        "forked",
        errno.EOWNERDEAD,
        "this process was forked from one that is attached to VPP",
        "use the spawn start method, or fork before the first event loop",
    )


def _compare(old: Config, new: Config) -> None:
    for name in _OF_THE_PROCESS:
        was, asked = getattr(old, name), getattr(new, name)
        if was != asked:
            raise RuntimeError(
                f"{name}: this process is attached to VPP with {was!r} and cannot change to {asked!r}; "
                "attach is once per process"
            )


def _create_application(config: Config, app_socket: str, sizes: room.Sizes) -> None:
    """Call vppcom_app_create on a thread that can be left behind: it waits for VPP's answer without end."""
    answer: list[int] = []

    def create() -> None:
        answer.append(lib.vppaio_vpp_attach(config.app_name.encode()))

    begin = time.monotonic()
    thread = threading.Thread(target=create, name="vppaio-attach", daemon=True)
    thread.start()
    thread.join(_ATTACH_LIMIT_S)
    if not answer:
        lib.vppaio_vpp_give_up()
        raise probe.hung(app_socket)
    if answer[0] < 0:
        if time.monotonic() - begin > _HANGS_AFTER_S:
            raise probe.hung(app_socket)
        code = -answer[0] if answer[0] < -1 else errno.ECONNREFUSED  # -1 stands for anything
        if short := room.refused(code, sizes):
            raise short
        raise Unusable(
            "refused",
            code,
            f"VPP at {app_socket} refused the application",
            "its reason is on stderr, or in VPP's log; memory and segment_size are the usual ones",
        )


# ---- workers -------------------------------------------------------------------------------------------------------


def acquire_worker() -> int:
    """Return the index of a worker for a new loop; give it back with `release_worker`. Takes 4 s at most.

    Raises:
        OSError: ENOBUFS when all are taken, ENETDOWN when the other loops have lost VPP, ETIMEDOUT when it hangs, else
            why VPP gives none.
    """
    deadline = time.monotonic() + _RESTORE_LIMIT_S
    while (worker := _idle_or_new_worker()) == -errno.ENETDOWN:
        if time.monotonic() > deadline:
            raise OSError(errno.ENETDOWN, "VPP was lost, and the other event loops are not attached to it again yet")
        time.sleep(_LOOK_EVERY_S)
    return worker


def _idle_worker() -> tuple[_Attached, int]:
    """What this process is attached with, and an idle worker, or -1."""
    with _changed:
        if _forked:
            raise _forked_off()
        if _attached is None:
            raise Unusable("not-attached", errno.ENOTCONN, "this process is not attached to VPP", "attach it")
        return _attached, _idle_workers.pop() if _idle_workers else -1


def _idle_or_new_worker() -> int:
    """An index, or -ENETDOWN."""
    try:
        attached, worker = _idle_worker()
        if worker >= 0:
            return worker
        with _asking_vpp(attached.app_socket):
            # VCL keeps a worker that it could not ask for, and counts it when it attaches to the next VPP (vpp_loss.c).
            probe.knock(attached.app_socket)
            rc = int(ffi.cast("vcl_ops *", lib.vppaio_vpp_ops()).worker_register())
            if rc == -errno.ETIMEDOUT:
                raise probe.hung(attached.app_socket)
    except Unusable as reason:
        raise reason.as_error() from None
    if rc >= 0 or rc == -errno.ENETDOWN:
        return rc
    if rc in (-errno.EMFILE, -errno.ENOMEM):
        raise os_error(rc, "worker_register", stack="vpp")
    raise OSError(
        -rc,
        f"VPP gave no worker for another event loop: at most {attached.max_workers} of a process can be open on VPP at "
        f"a time (libvppcom's max-workers, {vclconf.MAX_WORKERS} at most); close loops that are no longer needed, or "
        "give those that need no VPP Config(stack='host')",
    )


def release_worker(index: int) -> None:
    """Take back a worker whose sessions are closed. It waits for the next loop: registering is a talk with VPP."""
    with _changed:
        if _attached is not None:
            assert index not in _idle_workers
            _idle_workers.append(index)


# ---- the end -------------------------------------------------------------------------------------------------------


def _poll_all() -> None:
    """vppaio_vpp_poll_all with the GIL, which cffi lets go of: daemon threads may still run loops, and the GIL is what
    keeps their calls and ours apart."""
    address = int(ffi.cast("uintptr_t", ffi.addressof(lib, "vppaio_vpp_poll_all")))
    ctypes.PYFUNCTYPE(None)(address)()


def is_attached() -> bool:
    return _attached is not None


def heap_room() -> int:
    """Bytes of the largest free block in libvppcom's heap; 0 if not attached, or if the release does not show it."""
    return int(lib.vppaio_vpp_heap_room())


def app_socket() -> str:
    """The app socket this process is attached through, "" if it is not."""
    return _attached.app_socket if _attached else ""


def end_by_signal(number: int) -> None:
    """Let the exit that is under way end as if killed by signal `number`, so that who waits for us sees the truth."""
    lib.vppaio_vpp_end_by_signal(number)


def detach() -> None:
    """Make ready to leave VPP: accept no more, wait until it has digested the last accept, then refuse every operation.

    Runs when Python exits; VPP is told when the process does (see libvppcom.c, at_exit).
    """
    global _attached
    if _attached is None:
        return
    lib.vppaio_vpp_leave()  # a daemon thread's server would go on
    while lib.vppaio_vpp_since_accept() < _DIGEST_S:
        _poll_all()
        time.sleep(_LOOK_EVERY_S)
    lib.vppaio_vpp_detach()
    with _changed:
        _attached = None
        _idle_workers.clear()


def _after_fork_in_child() -> None:
    """The child has VCL's memory but not its place: refuse everything, and let it exit without harm to the parent."""
    global _attached, _asking, _changed, _forked
    lib.vppaio_vpp_forked()
    _changed = threading.Condition()  # another thread of the parent may have held it
    _asking = False
    _attached = None
    _forked = True
    _idle_workers.clear()
