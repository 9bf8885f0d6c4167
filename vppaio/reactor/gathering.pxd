from libc.stdint cimport int64_t


cdef class GatheringHandler:
    cdef int on_gathered(self) except -1


cdef class Gathering:
    cdef bint open              # small writes are to wait
    cdef public int64_t quick_ns  # what a handler may take on average
    cdef bint quick             # those of the last batch did not take more
    cdef int n                  # handlers that have run since `began_ns`
    cdef int64_t began_ns
    cdef list held

    cdef int begin(self, Py_ssize_t expected) except -1
    cdef int hold(self, GatheringHandler handler) except -1
    cdef int send(self) except -1
    cdef int end(self) except -1
