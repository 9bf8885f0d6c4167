from vppaio.reactor.poller cimport Poller


cdef class Handle:
    cdef readonly object _callback
    cdef readonly tuple _args
    cdef readonly object _context
    cdef readonly Scheduler _loop
    cdef readonly bint _cancelled
    cdef object __weakref__

    cdef void fill(self, callback, tuple args, Scheduler loop, context)
    cdef int run(self) except -1


cdef class TimerHandle(Handle):
    cdef readonly double _when
    cdef public bint _scheduled


cdef class Scheduler:
    # asyncio.BaseEventLoop's own attributes, here as C fields: its methods and ours see the same.
    cdef public object _ready
    cdef public list _scheduled
    cdef public Py_ssize_t _timer_cancelled_count
    cdef public bint _closed
    cdef public bint _stopping
    cdef public bint _debug
    cdef public double _clock_resolution
    cdef object current_selector     # `_selector`
    cdef readonly Poller _poller
    cdef object selector             # ours, whatever `_selector` is
    cdef dict selector_attributes    # its own: somebody may put a `select` there
    cdef object dispatching          # the event that stands for sessions that have something to tell
    cdef bint may_sleep

    cdef double now(self) except? -1
    cdef int run_ready(self, Py_ssize_t count) except -1
    cdef int forget_cancelled_timers(self) except -1
    cdef double sleep_time(self) except? -2
