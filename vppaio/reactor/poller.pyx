# cython: boundscheck=False
"""The poller: one wait in the kernel for everything that the loop cares about.

The loop has two kinds of sources: kernel descriptors (signals, subprocesses, add_reader) and sessions (connections,
listeners and datagram endpoints of a stack). A stack announces its sessions through one descriptor, that of the loop's
worker. So one epoll_wait covers both kinds. `Poller.sleep` does this; on VPP it has to respect the following facts
(docs/vpp.md 3, 4, 9.1):

1. VCL, VPP's client library, keeps some events in its own memory: a FIFO was filled between our last read and the clearing
   of its flag, a session was ready before it joined the epoll set, a blocking call took events out of the queue. The
   worker's descriptor does not show such parked events. So the poller asks for parked events before it sleeps, and does
   not sleep if there are any. It cannot miss an event between the two, because it makes no other call of VCL in between,
   and a later event makes the descriptor readable.
2. The descriptor is registered level-triggered. VPP writes its eventfd only when the queue changes from empty to not
   empty, and the eventfd stays readable until VCL reads it. An edge-triggered registration would miss the second event.
3. VCL is never asked to sleep. With a positive timeout it sleeps to the end, even if events are pending.
4. Sessions are edge-triggered: an event is told once. A handler that does not use up an event must call `Session.again`.
5. Dispatching stops after BUDGET_NS. What is left is dispatched in the next turn, which does not sleep. So timers,
   call_soon and kernel descriptors get their turn in between.
6. A sock_* call on a kernel socket waits for its descriptor once (EPOLLONESHOT). This takes one system call; a key of the
   selector would take two, and a handle. The descriptor stays in the epoll set, disarmed, and a key that is made for it
   later replaces it.
7. When VPP dies, the worker's descriptor stays readable for ever. The poller takes it out of the epoll set and asks VCL
   on a timer instead. Each of these calls tries to attach to VPP again.
8. Python runs a handler of signal.signal before it runs other Python code. asyncio has a gap there: the handler of a signal
   that arrives just before the sleep, or that another thread takes, runs after the sleep. signal.set_wakeup_fd would close
   the gap, but a process has one such descriptor, and it belongs to the program. So a long sleep is made of parts, the
   first 10 ms long and each twice as long as the one before.

`busy_poll_us` repeats the asking for that long before the sleep. This lowers latency and uses CPU time.

loop.eventloop makes a `Selector`, and loop.scheduler calls the poller in each turn. The poller calls reactor.worker. All of
it runs on the loop's thread.
"""
import os
import select
import selectors
import weakref
from errno import EEXIST, EINTR, ENOENT

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno as c_errno
from libc.stdlib cimport free, malloc

from vppaio.reactor.clock cimport monotonic_ns
from vppaio.reactor.worker cimport Worker
from vppaio.vcl.ops cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLRDHUP,
    VCL_WAIT_NOW,
    VCL_WAIT_PARKED,
    epoll_ctl,
    epoll_wait,
)

cdef enum:
    MAX_KERNEL_EVENTS = 256
    BUDGET_NS = 500000  # a timer may be late by two of these (this turn and the next come first) and a callback
    FIRST_LOOK_MS = 10
    MAX_LOOK_MS = 3600000
    EVENT_READ = 1  # selectors.EVENT_READ
    EVENT_WRITE = 2


cdef class Poller:
    """One wait over kernel descriptors and workers.

    Args:
        epfd: the kernel epoll set of the selector.
        fd_to_key: the selector's own map, for turning kernel events into keys.
        busy_poll_us: how long to ask again before sleeping, in microseconds.
    """

    def __cinit__(self, int epfd, dict fd_to_key, int busy_poll_us=0):
        self.epfd = epfd
        self.fd_to_key = fd_to_key
        self.shots = {}
        self.workers = []
        self.busy_poll_ns = busy_poll_us * <int64_t> 1000
        self.retry_lost_ns = 250000000
        self.look_ms = FIRST_LOOK_MS
        self.events = <epoll_event *> malloc(MAX_KERNEL_EVENTS * sizeof(epoll_event))
        if self.events == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.events)

    def add(self, Worker worker):
        """Wait for this worker's sessions too."""
        self.workers.append(worker)
        if worker.lost:
            self.retry_at_ns = monotonic_ns()
        else:
            self._watch_or_retry(worker)

    cdef int _watch_or_retry(self, Worker worker) except -1:
        """Sleep on the descriptor of a worker that has its stack; ask one that has lost it again after a while."""
        cdef epoll_event event
        if worker.lost:
            worker.slept_on = False
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, worker.fd, NULL)
            self.retry_at_ns = monotonic_ns() + self.retry_lost_ns
            return 0
        worker.slept_on = True
        event.events = EPOLLIN
        event.data.u64 = 0
        event.data.fd = worker.fd
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, worker.fd, &event) < 0:
            raise OSError(c_errno, "epoll_ctl: cannot watch the worker's descriptor")
        return 0

    def close(self):
        """Close every worker with its sessions. Idempotent."""
        cdef Worker worker
        workers, self.workers = self.workers, []
        for worker in workers:
            if worker.slept_on:
                epoll_ctl(self.epfd, EPOLL_CTL_DEL, worker.fd, NULL)
            worker.close()

    def forked(self):
        """In a forked child: have epoll sets of its own, empty ones. The parent's are shared with it, and what the child
        closed or unregistered on its way out the parent would never hear of again."""
        cdef Worker worker
        for fd in [self.epfd, *(worker.fd for worker in self.workers if worker.by_fd is not None)]:
            fresh = select.epoll()
            os.dup2(fresh.fileno(), fd, inheritable=False)
            fresh.close()

    def statistics(self):
        """Turns of the loop, sleeps in the kernel, and each stack's counters."""
        cdef Worker worker
        return {
            "turns": self.n_turns,
            "sleeps": self.n_sleeps,
            "stacks": {worker.stack: worker.statistics() for worker in self.workers},
        }

    def wait(self, timeout=None):
        """Sleep until something happens, at most `timeout` seconds (None: for ever).

        Returns:
            (key, mask) pairs for kernel descriptors; sessions wait for `dispatch`.
        """
        return self.sleep(-1 if timeout is None else max(timeout, 0)) or []

    cdef list sleep(self, double timeout_s):
        """`wait` for the compiled loop: a negative timeout is none, and None stands for an empty list."""
        cdef Worker worker
        cdef int64_t wait_ms
        cdef int n = 0
        cdef int i, fd
        cdef list ready = None
        self.n_turns += 1
        if timeout_s < 0:
            wait_ms = -1
        else:
            # Up, not down: a turn that finds no timer due would be for nothing.
            wait_ms = min(<int64_t> (timeout_s * 1e3 + 0.999999), 86400000)
        if self._ask(VCL_WAIT_PARKED):
            wait_ms = 0
        elif wait_ms != 0 and self.busy_poll_ns:
            n = self._busy_poll(&wait_ms)
        if self.retry_at_ns:
            self._retry_lost()
            if wait_ms < 0 or wait_ms * 1000000 > self.retry_lost_ns:
                wait_ms = self.retry_lost_ns // 1000000
        if not n:
            n = self._wait_kernel(<int> wait_ms)
        for i in range(n):
            fd = self.events[i].data.fd
            for worker in self.workers:
                if worker.fd == fd:
                    worker.n_wakes += 1
                    worker.poll(VCL_WAIT_NOW)
                    break
            else:
                key = self.fd_to_key.get(fd)
                if key is not None:
                    # As selectors.EpollSelector has it: an error or hang-up wakes reader and writer.
                    mask = ((EVENT_WRITE if self.events[i].events & ~<unsigned int> EPOLLIN else 0)
                            | (EVENT_READ if self.events[i].events & ~<unsigned int> EPOLLOUT else 0))
                    mask &= key.events
                    if mask:
                        if ready is None:
                            ready = []
                        ready.append((key, mask))
                elif fd in self.shots:
                    self._shoot(fd, self.shots[fd], self.events[i].events)
        for worker in self.workers:
            if worker.lost == worker.slept_on:
                self._watch_or_retry(worker)
            worker.begin_turn()
        return ready

    def wait_once(self, int fd, bint write, future):
        """`future` gets a result when `fd` can be read, or written, or is at its end. Cancel it freely. The caller
        sees to it that the selector has no key for `fd`.

        Raises:
            OSError: EBADF; EPERM, a regular file.
        """
        waiters = self.shots.get(fd)
        if waiters is None:
            waiters = self.shots[fd] = [None, None]
        waiters[write] = future
        self._arm(fd, waiters)

    cdef int _arm(self, int fd, list waiters) except -1:
        cdef epoll_event event
        event.events = EPOLLONESHOT
        if waiters[0] is not None:
            event.events |= EPOLLIN | EPOLLRDHUP
        if waiters[1] is not None:
            event.events |= EPOLLOUT
        event.data.u64 = 0
        event.data.fd = fd
        # It may be known to the kernel, or be another file by now, under a number seen before.
        if epoll_ctl(self.epfd, EPOLL_CTL_MOD, fd, &event) == 0:
            return 0
        if c_errno == ENOENT and (epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) == 0 or c_errno == EEXIST):
            return 0
        error = c_errno
        del self.shots[fd]
        raise OSError(error, f"{os.strerror(error)} (epoll_ctl, descriptor {fd})")

    cdef int _shoot(self, int fd, list waiters, uint32_t events) except -1:
        cdef uint32_t wanted
        cdef int write
        for write in range(2):
            wanted = (EPOLLOUT if write else EPOLLIN | EPOLLRDHUP) | EPOLLERR | EPOLLHUP
            future = waiters[write]
            if future is not None and events & wanted:
                waiters[write] = None
                if not future.done():
                    future.set_result(None)
        if waiters[0] is not None or waiters[1] is not None:
            self._arm(fd, waiters)
        return 0

    def forget(self, int fd):
        """A key is made for `fd`: whoever waits for it tries again, and finds the key."""
        waiters = self.shots.pop(fd, None)
        if waiters is not None:
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, NULL)
            for future in waiters:
                if future is not None and not future.done():
                    future.set_result(None)

    cdef int _ask(self, int how) except -1:
        """1 if any worker has something to dispatch."""
        cdef Worker worker
        cdef bint found = False
        for worker in self.workers:
            if worker.has_work():
                found = True
            elif not worker.lost and worker.poll(how):
                found = True
        return found

    cdef int _busy_poll(self, int64_t *wait_ms) except -2:
        """Ask until something happens or the time is up. `wait_ms` becomes what is left to sleep; returns how many
        kernel events there are already."""
        cdef int64_t begin_ns = monotonic_ns()
        cdef int64_t spent_ns = 0
        cdef int64_t limit_ns = self.busy_poll_ns
        cdef int n
        if wait_ms[0] > 0:
            limit_ns = min(limit_ns, wait_ms[0] * 1000000)
        while spent_ns < limit_ns:
            if self._ask(VCL_WAIT_NOW):
                wait_ms[0] = 0
                return 0
            with nogil:  # whoever waits for the GIL gets it here
                n = epoll_wait(self.epfd, self.events, MAX_KERNEL_EVENTS, 0)
            if n > 0:
                return n
            if PyErr_CheckSignals() < 0:
                raise
            spent_ns = monotonic_ns() - begin_ns
        if wait_ms[0] > 0:
            wait_ms[0] = max(wait_ms[0] - spent_ns // 1000000, 0)
        return 0

    cdef int _wait_kernel(self, int timeout_ms) except -2:
        cdef int n
        cdef bint ends_early
        if timeout_ms == 0:
            n = epoll_wait(self.epfd, self.events, MAX_KERNEL_EVENTS, 0)
        else:
            self.n_sleeps += 1
            ends_early = timeout_ms < 0 or timeout_ms > self.look_ms
            if ends_early:
                timeout_ms = self.look_ms
            with nogil:
                n = epoll_wait(self.epfd, self.events, MAX_KERNEL_EVENTS, timeout_ms)
            self.look_ms = min(2 * self.look_ms, MAX_LOOK_MS) if ends_early and n == 0 else FIRST_LOOK_MS
        if n < 0:
            if c_errno != EINTR:
                raise OSError(c_errno, "epoll_wait")
            # A handler of signal.signal may raise, and then has to end run_forever.
            PyErr_CheckSignals()
            n = 0
        return n

    cdef int _retry_lost(self) except -1:
        """Ask a lost stack whether it is back."""
        cdef Worker worker
        cdef bint any_lost = False
        if monotonic_ns() < self.retry_at_ns:
            return 0
        for worker in self.workers:
            if worker.lost:
                worker.poll(VCL_WAIT_NOW)
                if worker.lost:
                    any_lost = True
                else:
                    self._watch_or_retry(worker)
        self.retry_at_ns = monotonic_ns() + self.retry_lost_ns if any_lost else 0
        return 0

    def has_work(self):
        """Whether `dispatch` would find something."""
        cdef Worker worker
        for worker in self.workers:
            if worker.has_work():
                return True
        return False

    def dispatch(self, double slow_s=0, report_slow=None):
        """Hand waiting session events to their handlers, within the budget.

        Args:
            slow_s: report handlers that take at least this long, in seconds; 0: none.
            report_slow: called with the handler and its duration in seconds.
        """
        self.dispatch_all(<int64_t> (slow_s * 1e9), report_slow)

    cdef int dispatch_all(self, int64_t slow_ns, object report_slow) except -1:
        cdef Worker worker
        for worker in self.workers:
            if worker.has_work():
                worker.dispatch(BUDGET_NS, slow_ns, report_slow)
        return 0


_selectors = weakref.WeakSet()  # those that a forked child would share with its parent


def _after_fork_in_child():
    for selector in _selectors:
        selector.poller.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Selector(selectors.EpollSelector):
    """What the loop sleeps on: asyncio's selector with a `Poller` behind `select`."""

    select_for = None  # the loop's own `select`, see loop.scheduler

    def __init__(self, busy_poll_us=0):
        super().__init__()
        _selectors.add(self)
        self.poller = Poller(self._selector.fileno(), self._fd_to_key, busy_poll_us)

    def register(self, fileobj, events, data=None):
        self.poller.forget(self._fileobj_lookup(fileobj))
        return super().register(fileobj, events, data)

    def select(self, timeout=None):
        return self.poller.wait(timeout) if self.select_for is None else self.select_for(timeout)

    def close(self):
        _selectors.discard(self)
        self.poller.close()
        super().close()
