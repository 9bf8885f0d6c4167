from libc.stdint cimport uint32_t

from vppaio.reactor.session cimport Session, SessionHandler

cdef extern from "Python.h":
    ctypedef struct PyObject
    PyObject *PyObject_CallOneArg(object function, object argument)
    void Py_DECREF(PyObject *)


cdef inline bint call(object function, object argument) noexcept:
    """False, with the exception set, if the function raised. A try block costs more than the call it guards, so only
    what failed pays for one: see `raise_it`."""
    cdef PyObject *result = PyObject_CallOneArg(function, argument)
    if result == NULL:
        return False
    Py_DECREF(result)
    return True


cdef inline int raise_it() except -1:
    """Raise the exception that `call` left."""
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
    cdef bint waits             # for room in the FIFO, and is counted
    cdef int lost_writes        # 0: open; else the connection is lost, and this counts writes since
    cdef bint started           # connection_made was called
    cdef bint paused
    cdef bint closing
    cdef bint finished          # connection_lost was called
    cdef readonly bint _protocol_paused
    cdef dict __dict__
    cdef object __weakref__

    cdef int begin(self, Session session, object loop, object protocol, object waiter, object extra, object server,
                   object sock) except -1
    cdef int on_events(self, uint32_t events) except -1
    cdef int on_lost(self) except -1
    cdef int on_closing(self) except -1
    cdef int _keep_names(self) except -1
    cdef int handle(self, uint32_t events) except -1
    cdef int drop_backlog(self) except -1
    cdef int count_waiting(self) except -1
    cdef int maybe_pause_protocol(self) except -1
    cdef int maybe_resume_protocol(self) except -1
