from libc.stdint cimport uint32_t, uint64_t

from vppaio.reactor.session cimport Session, SessionHandler

cdef extern from "Python.h":
    ctypedef struct PyObject
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject *PyObject_VectorcallMethod(object name, PyObject **arguments, size_t count, PyObject *names)
    void Py_DECREF(PyObject *)


cdef inline PyObject *call_method(object target, str method, object argument) noexcept:
    """`target.method(argument)`: NULL, with the exception set, if it raised, else a reference of the caller's own. A try
    block costs more than the call it guards, so only what failed pays for one: see `raise_it`. The method is looked up
    each time, as asyncio does: a protocol may assign another."""
    cdef PyObject *arguments[3]  # the first one for the callee's use
    arguments[1] = <PyObject *> target
    arguments[2] = <PyObject *> argument
    return PyObject_VectorcallMethod(method, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)


cdef inline bint call(object target, str method, object argument) noexcept:
    """The same, for what returns nothing: False if it raised."""
    cdef PyObject *result = call_method(target, method, argument)
    if result == NULL:
        return False
    Py_DECREF(result)
    return True


cdef inline int raise_it() except -1:
    """Raise the exception that a call left."""
    return -1


cdef class SessionTransport(SessionHandler):
    cdef Session session
    cdef readonly object _loop
    cdef object protocol
    cdef object context         # contextvars.Context of the callbacks
    cdef object server
    cdef object sock            # the socket object for the session, once somebody asked
    cdef dict extra
    cdef object backlog         # deque of what the FIFO refused
    cdef Py_ssize_t backlog_size
    cdef Py_ssize_t high_water
    cdef Py_ssize_t low_water
    cdef object limits          # both, as set_write_buffer_limits got them
    cdef bint waits             # for room in the FIFO, and is counted
    cdef int lost_writes        # 0: open; else the connection is lost, and this counts writes since
    cdef bint opened            # it hears of events
    cdef uint64_t opens_at      # the worker's turn from which on it does; 0: not known yet
    cdef uint32_t early         # events that came before
    cdef uint64_t resumed_at    # the worker's turn in which reading was last resumed
    cdef bint paused
    cdef bint closing
    cdef bint finished          # connection_lost was called
    cdef readonly bint _protocol_paused
    cdef dict __dict__
    cdef object __weakref__

    cdef int begin(self, Session session, object loop, object protocol, object waiter, object extra, object server,
                   object sock) except -1
    cdef int on_events(self, uint32_t events) except -1
    cdef bint is_early(self, uint32_t *events)
    cdef int on_lost(self) except -1
    cdef int on_closing(self) except -1
    cdef int _keep_names(self) except -1
    cdef int handle(self, uint32_t events) except -1
    cdef int drop_backlog(self) except -1
    cdef int count_waiting(self) except -1
    cdef int maybe_pause_protocol(self) except -1
    cdef int maybe_resume_protocol(self) except -1
