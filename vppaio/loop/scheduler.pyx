# cython: boundscheck=False
"""Scheduling compiled: call_soon, call_later, call_at and the turn of the loop.

The same as asyncio.BaseEventLoop, line by line, with two differences. Handles are extension types, so that a callback costs one
small object and no Python frame of asyncio's. And `call_soon_threadsafe` writes to the self-pipe only if the loop
may be asleep. In debug mode everything is asyncio's own: its handles know where they were made.

`Scheduler` stands before asyncio.SelectorEventLoop in the bases of loop.eventloop.EventLoop. asyncio's handles (add_reader,
signals, debug mode) and ours share one queue.
"""
import asyncio
import heapq
import selectors
from asyncio import base_events, events, format_helpers

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE

from vppaio.reactor.clock cimport monotonic_ns
from vppaio.reactor.poller cimport Poller

cdef double MAXIMUM_SLEEP_S = 24 * 3600  # asyncio.base_events.MAXIMUM_SELECT_TIMEOUT
cdef int MANY_TIMERS = base_events._MIN_SCHEDULED_TIMER_HANDLES
cdef double MANY_CANCELLED = base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION

# Looked up once: somebody may put our class behind the name later, as CPython's tests are made to.
cdef object asyncio_loop = asyncio.SelectorEventLoop
cdef object heappush = heapq.heappush
cdef object heappop = heapq.heappop
cdef object NO_SELECTOR = object()


cdef class Handle:
    """asyncio.Handle, compiled; `isinstance` sees that one (see transports.stream)."""

    cdef void fill(self, callback, tuple args, Scheduler loop, context):
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = PyContext_CopyCurrent() if context is None else context

    @property
    def __class__(self):
        return events.Handle

    @property
    def _source_traceback(self):
        return None  # debug mode has asyncio's handles

    def __repr__(self):
        info = ["Handle"]
        if self._cancelled:
            info.append("cancelled")
        if self._callback is not None:
            info.append(format_helpers._format_callback_source(self._callback, self._args))
        return f"<{' '.join(info)}>"

    def get_context(self):
        return self._context

    def cancel(self):
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None

    def cancelled(self):
        return self._cancelled

    def _run(self):
        self.run()

    cdef int run(self) except -1:
        cdef object context = self._context
        cdef object callback = self._callback
        cdef tuple args = self._args
        try:
            PyContext_Enter(context)
            try:
                callback(*args)
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            source = format_helpers._format_callback_source(callback, args)
            self._loop.call_exception_handler({
                "message": f"Exception in callback {source}",
                "exception": exc,
                "handle": self,
            })
        return 0


cdef class TimerHandle(Handle):
    """asyncio.TimerHandle, compiled."""

    @property
    def __class__(self):
        return events.TimerHandle

    def __repr__(self):
        info = Handle.__repr__(self).strip("<>").split(" ", 1)
        return f"<TimerHandle when={self._when}{' ' + info[1] if len(info) > 1 else ''}>"

    def __hash__(self):
        return hash(self._when)

    def __richcmp__(self, other, int op):
        cdef double mine = self._when
        cdef double theirs
        if type(other) is TimerHandle:
            theirs = (<TimerHandle> other)._when
        elif isinstance(other, events.TimerHandle):
            theirs = other._when
        else:
            return NotImplemented
        if op == Py_LT:
            return mine < theirs
        if op == Py_GT:
            return mine > theirs
        if op == Py_LE:
            return mine <= theirs
        if op == Py_GE:
            return mine >= theirs
        same = (
            mine == theirs
            and self._callback == other._callback
            and self._args == other._args
            and self._cancelled == other._cancelled
        )
        return same if op == Py_EQ else not same

    def cancel(self):
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)
        Handle.cancel(self)

    def when(self):
        return self._when



cdef class Scheduler:
    """The compiled part of the event loop."""

    def __cinit__(self):
        # Until __init__ is through: asyncio's __del__ asks, also where a wrong setting ended it early.
        self._closed = True
        self.current_selector = NO_SELECTOR

    def sleep_on(self, selector):
        """Use `selector`, a reactor.poller.Selector. The compiled turn goes past its `select`, unless somebody has put
        another one there."""
        self._poller = selector.poller
        self.selector = selector
        self.selector_attributes = vars(selector)
        selector.select_for = self._select
        # asyncio makes callbacks of events by their key's data: (reader, writer).
        self.dispatching = selectors.SelectorKey(
            None, -1, selectors.EVENT_READ, (events.Handle(self._poller.dispatch, (), self), None)
        )

    @property
    def _selector(self):
        if self.current_selector is NO_SELECTOR:
            raise AttributeError("_selector")
        return self.current_selector

    @_selector.setter
    def _selector(self, selector):
        self.current_selector = selector

    @_selector.deleter
    def _selector(self):
        # unittest.mock ends a patch so: it deletes, and sets what was there before if there is nothing then.
        self.current_selector = NO_SELECTOR

    def _select(self, timeout):
        """The selector's `select`, for who is in the way between the loop and its sleep: looptime, and nest_asyncio, which
        has a turn of its own. Sessions that have something to tell are an event like others."""
        self.may_sleep = True
        until = None if timeout is None else monotonic_ns() * 1e-9 + timeout
        while True:  # the poller ends a long sleep early
            ready = self._poller.wait(0 if len(self._ready) else timeout)
            if self._poller.has_work():
                ready.append((self.dispatching, selectors.EVENT_READ))
            if until is not None:
                timeout = until - monotonic_ns() * 1e-9
            if ready or len(self._ready) or self._stopping or timeout is not None and timeout <= 0:
                return ready

    cdef double now(self) except? -1:
        """`time`, as a method is found: tests put other clocks into the loop and its class, and into the time module."""
        return self.time()

    def call_soon(self, callback, *args, context=None):
        if self._debug:
            return asyncio_loop.call_soon(self, callback, *args, context=context)
        if self._closed:
            self._check_closed()
        cdef Handle handle = Handle.__new__(Handle)
        handle.fill(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        if self._debug or FREE_THREADED:
            return asyncio_loop.call_soon_threadsafe(self, callback, *args, context=context)
        if self._closed:
            self._check_closed()
        cdef Handle handle
        if THREAD_SAFE_HANDLE is None:
            handle = Handle.__new__(Handle)
            handle.fill(callback, args, self, context)
            made = handle
        else:
            made = THREAD_SAFE_HANDLE(callback, args, self, context)
        self._ready.append(made)
        # The loop sets this before it looks at the queue for the last time, and the GIL keeps the two apart.
        if self.may_sleep:
            self.may_sleep = False
            self._write_to_self()
        return made

    def call_later(self, delay, callback, *args, context=None):
        if delay is None:
            raise TypeError("delay must not be None")
        return self.call_at(self.now() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        if when is None:
            raise TypeError("when cannot be None")
        if self._debug:
            return asyncio_loop.call_at(self, when, callback, *args, context=context)
        if self._closed:
            self._check_closed()
        cdef TimerHandle timer = TimerHandle.__new__(TimerHandle)
        timer.fill(callback, args, self, context)
        timer._when = when
        timer._scheduled = True
        heappush(self._scheduled, timer)
        return timer

    def _timer_handle_cancelled(self, handle):
        if handle._scheduled:
            self._timer_cancelled_count += 1

    def _run_once(self):
        """One turn: sleep, dispatch what happened, run what is due.

        Session events have the place that asyncio's I/O callbacks have: behind what was ready before, since a task just
        created to wait for an answer must have started when the answer is delivered, and before timers.
        """
        cdef Py_ssize_t n_before_sessions, n_after_sessions
        cdef double end, timeout
        cdef list scheduled
        cdef object ready = self._ready
        self.forget_cancelled_timers()
        self.may_sleep = True
        timeout = self.sleep_time()
        if self.current_selector is self.selector and "select" not in self.selector_attributes:
            kernel_events = self._poller.sleep(timeout)
        else:
            kernel_events = self._selector.select(None if timeout < 0 else timeout)
        self.may_sleep = False
        if kernel_events is not None:
            self._process_events(kernel_events)
        n_before_sessions = len(ready)

        scheduled = self._scheduled
        if scheduled:
            end = self.now() + self._clock_resolution
            while scheduled:
                timer = scheduled[0]
                if timer._when >= end:
                    break
                timer = heappop(scheduled)
                timer._scheduled = False
                ready.append(timer)

        # Only what is ready now: a callback that schedules another one does not keep the loop from its sessions.
        n_after_sessions = len(ready) - n_before_sessions
        self.run_ready(n_before_sessions)
        if self._debug:
            self._poller.dispatch(self.slow_callback_duration, self._report_slow)
        else:
            self._poller.dispatch_all(0, None)
        self.run_ready(n_after_sessions)

    cdef int run_ready(self, Py_ssize_t count) except -1:
        cdef object ready = self._ready
        cdef Py_ssize_t n
        for n in range(count):
            handle = ready.popleft()
            if type(handle) is Handle or type(handle) is TimerHandle:
                if not (<Handle> handle)._cancelled:
                    (<Handle> handle).run()
            elif not handle._cancelled:
                if self._debug:
                    self._run_in_debug_mode(handle)
                else:
                    handle._run()
        return 0

    cdef int forget_cancelled_timers(self) except -1:
        cdef list scheduled = self._scheduled
        if len(scheduled) > MANY_TIMERS and self._timer_cancelled_count / <double> len(scheduled) > MANY_CANCELLED:
            # Remove delayed calls that were cancelled if their number is too high.
            kept = []
            for timer in scheduled:
                if timer._cancelled:
                    timer._scheduled = False
                else:
                    kept.append(timer)
            heapq.heapify(kept)
            self._scheduled = kept
            self._timer_cancelled_count = 0
        else:
            # Remove delayed calls that were cancelled from the head of the queue.
            while scheduled and scheduled[0]._cancelled:
                self._timer_cancelled_count -= 1
                timer = heappop(scheduled)
                timer._scheduled = False
        return 0

    cdef double sleep_time(self) except? -2:
        """Seconds to sleep at most; -1: for ever."""
        cdef double wait
        if self._stopping or len(self._ready):
            return 0
        if not self._scheduled:
            return -1
        wait = <double> self._scheduled[0]._when - self.now()
        return min(max(wait, 0.0), MAXIMUM_SLEEP_S)

    def _run_in_debug_mode(self, handle):
        """As asyncio does: name callbacks that take too long."""
        try:
            self._current_handle = handle
            started = self.time()
            handle._run()
            taken = self.time() - started
            if taken >= self.slow_callback_duration:
                base_events.logger.warning(
                    "Executing %s took %.3f seconds", base_events._format_handle(handle), taken
                )
        finally:
            self._current_handle = None


# From 3.14 on; its cancel() waits for a running callback.
cdef object THREAD_SAFE_HANDLE = getattr(events, "_ThreadSafeHandle", None)
cdef bint FREE_THREADED = not getattr(__import__("sys"), "_is_gil_enabled", lambda: True)()  # may_sleep proves nothing
