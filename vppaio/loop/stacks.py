"""The stacks of one loop: which address goes where, and the worker that serves it.

Nothing is attached before the first network call: a service may fork after it has made its loop, and VPP must be
attached after that. That call finds out whether VPP takes part, and fails if it is to and is not there. VPP itself is
asked when the first of its addresses is used, aside, in a thread: it may hang, and the loop goes on with all it has on
the host stack. Used by loop.eventloop; asks vcl.application and hands workers to the poller.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM
from typing import Any, Final, Literal

from vppaio.config import Config
from vppaio.reactor.poller import Poller
from vppaio.reactor.worker import Worker
from vppaio.routes import RouteTable, Stack
from vppaio.transports.pseudosocket import SessionSocket
from vppaio.vcl import application

logger = logging.getLogger("vppaio")


@dataclass(frozen=True)
class StackEvent:
    """What a listener of `loop.add_stack_listener` is told.

    Attributes:
        stack: "vpp".
        state: "lost": it is gone, its connections end with ConnectionResetError. "restored": the loop is attached to it
            again, and servers serve as soon as their addresses are configured.
    """

    stack: Stack
    state: Literal["lost", "restored"]


class Stacks:
    """Decides once, at first use, whether VPP takes part."""

    def __init__(self, config: Config, poller: Poller, tell: Callable[[StackEvent], None]) -> None:
        self._config: Final = config
        self._poller: Final = poller
        self._tell: Final = tell
        self._lost_at = 0.0
        self._workers: dict[str, Worker] = {}
        self._routes: RouteTable | None = None
        self._with_vpp = False
        self._attaching: asyncio.Future[Exception | None] | None = None
        if config.stack == "host":
            self._routes = RouteTable(config.routes, vpp_attached=False)

    @property
    def routes(self) -> RouteTable:
        """The route table. Does not wait for VPP.

        Raises:
            OSError: VPP is configured or asked for, and is not there; the message names cause and cure.
        """
        if self._routes is None:
            with_vpp = self._config.stack == "vpp" or application.is_configured(self._config)
            routes = RouteTable(self._config.routes, vpp_attached=with_vpp)
            if with_vpp:
                application.look_for_vpp(self._config)
            else:
                logger.info("no VPP is configured (%s does not exist): host stack", self._config.app_socket)
            self._routes, self._with_vpp = routes, with_vpp
        return self._routes

    @property
    def with_vpp(self) -> bool:
        """Whether VPP takes part."""
        self.routes  # noqa: B018  decides
        return self._with_vpp

    @property
    def names(self) -> tuple[Stack, ...]:
        """The stacks that take part: ("host",) or ("host", "vpp"). Attaches, and waits for VPP, 10 s at most.

        Raises:
            OSError: VPP is configured or asked for, and cannot be attached; the message names cause and cure.
        """
        if not self.with_vpp:
            return ("host",)
        self.worker("vpp")
        return ("host", "vpp")

    def stack_for(self, ip: str) -> Stack:
        """The stack that serves a numeric address."""
        return self.routes.stack_for(ip)

    def worker(self, stack: Stack) -> Worker:
        """This loop's worker on a stack that takes part. The first on VPP is waited for as in `names`; see `ready`."""
        if stack not in self._workers:
            self._add(stack, Worker(application.host_ops_address()) if stack == "host" else self._worker_on_vpp())
        return self._workers[stack]

    async def ready(self, stack: Stack) -> None:
        """Let the loop turn until `worker(stack)` does not wait.

        Raises:
            OSError: as `names`.
        """
        if stack != "vpp" or stack in self._workers:
            return
        if self._attaching is None:
            loop = asyncio.get_running_loop()
            self._attaching = loop.create_future()
            # A daemon: the process can end while VPP hangs.
            threading.Thread(target=self._attach_aside, args=(loop,), name="vppaio-attach", daemon=True).start()
        failure = await asyncio.shield(self._attaching)
        if failure is not None:
            raise type(failure)(*failure.args)  # one of its own for each who waits

    def _worker_on_vpp(self) -> Worker:
        application.attach(self._config)
        worker = Worker(application.vpp_ops_address(), application.acquire_worker(), application.release_worker)
        worker.catch_up(patience_s=2.0)
        return worker

    def _attach_aside(self, loop: asyncio.AbstractEventLoop) -> None:
        """`ready`'s thread."""
        worker = failure = None
        try:
            worker = self._worker_on_vpp()
        except Exception as exc:
            failure = exc
        try:
            loop.call_soon_threadsafe(self._attached, worker, failure)
        except RuntimeError:  # it is closed
            if worker is not None:
                worker.close()

    def _attached(self, worker: Worker | None, failure: Exception | None) -> None:
        attaching, self._attaching = self._attaching, None
        if worker is not None:
            if "vpp" in self._workers:  # somebody could not let the loop turn
                worker.close()
            else:
                self._add("vpp", worker)
        assert attaching is not None
        attaching.set_result(failure)

    def has(self, worker: Any) -> bool:
        """Whether it is one of this loop's."""
        return any(worker is mine for mine in self._workers.values()) and not worker.is_closed

    def socket(self, family: int, type: int, stack: Stack | None) -> SessionSocket:
        """See `vppaio.socket`."""
        names: tuple[Stack, ...] = ("host", "vpp") if self.with_vpp else ("host",)
        if stack not in (None, *names):
            raise ValueError(f"stack: {stack!r} does not take part in this loop, only {', '.join(names)}")
        if family not in (AF_INET, AF_INET6) or type not in (SOCK_STREAM, SOCK_DGRAM):
            raise ValueError(f"sessions are AF_INET or AF_INET6, SOCK_STREAM or SOCK_DGRAM, not {family!r}, {type!r}")
        return SessionSocket(self.worker(stack or names[-1]), family, type)

    def _add(self, stack: Stack, worker: Worker) -> None:
        self._poller.add(worker)
        self._workers[stack] = worker
        if worker.lost:
            self._lost_at = time.monotonic()
        worker.on_change = functools.partial(self._changed, stack, worker)

    def _changed(self, stack: Stack, worker: Worker, lost: bool) -> None:
        counted = worker.statistics()
        if lost:
            self._lost_at = time.monotonic()
            what = f"times={counted['lost']}"
        else:
            what = f"after_s={time.monotonic() - self._lost_at:.3f} times={counted['restored']}"
        state: Literal["lost", "restored"] = "lost" if lost else "restored"
        logger.warning("stack %s stack=%s %s", state, stack, what)
        self._tell(StackEvent(stack, state))

    @contextlib.contextmanager
    def lent(self, fd: int) -> Iterator[None]:
        """In this block the loop may watch the descriptor of a session, which has nothing to send meanwhile."""
        by_fd = self._workers["host"].by_fd
        assert by_fd is not None
        session = by_fd.pop(fd)
        try:
            yield
        finally:
            if not session.closed:
                by_fd[fd] = session

    def ensure_fd_no_transport(self, fileobj: Any) -> None:
        """Refuse a descriptor that belongs to a session: reading from both sides would lose bytes.

        Raises:
            RuntimeError: it does.
        """
        host = self._workers.get("host")
        if host is None:
            return
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        session = host.by_fd.get(fd) if host.by_fd is not None else None
        # What is closing may have lost its descriptor already, to its other owner: the number is free again.
        if session is not None and not getattr(session.owner, "is_closing", bool)():
            raise RuntimeError(f"File descriptor {fileobj!r} is used by transport {session.owner!r}")
