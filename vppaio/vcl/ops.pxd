# The table of operations (vcl_ops.h) for Cython.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data_t:
        uint64_t u64
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLPRI
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    unsigned int EPOLLET
    unsigned int EPOLLONESHOT

    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)


cdef extern from "vcl_ops.h" nogil:
    enum:
        VCL_PROTO_TCP
        VCL_PROTO_UDP
        VCL_TRAP_FIN_EXPIRES
        VCL_TRAP_PORT_ZERO
        VCL_TRAP_DATAGRAM_EVENTS
        VCL_TRAP_DATAGRAM_SPLIT
        VCL_TRAP_DATAGRAM_DIES
        VCL_TRAP_WRITE_WAKES
        VCL_MSS_IP4
        VCL_MSS_IP6
        VCL_WAIT_PARKED
        VCL_WAIT_NOW

    struct vcl_endpoint:
        uint8_t ip[16]
        uint16_t port
        uint8_t is_ip4
        uint32_t scope_id

    struct vcl_ops:
        const char *name
        uint32_t traps
        int (*worker_register)() noexcept nogil
        int (*worker_unregister)(int worker) noexcept nogil
        int (*worker_fd)(int worker) noexcept nogil
        int (*worker_is_detached)(int worker) noexcept nogil
        int (*epoll_create)(int worker) noexcept nogil
        int (*epoll_ctl)(uint32_t vep, int op, uint32_t session, uint32_t events, uint64_t data) noexcept nogil
        int (*epoll_wait)(uint32_t vep, epoll_event *events, int max_events, int timeout_ms) noexcept nogil
        int (*session_create)(int worker, int proto, int is_ip4) noexcept nogil
        int (*session_bind)(uint32_t session, const vcl_endpoint *local) noexcept nogil
        int (*session_listen)(uint32_t session, int backlog) noexcept nogil
        int (*session_accept)(uint32_t session, vcl_endpoint *peer) noexcept nogil
        int (*session_connect)(uint32_t session, const vcl_endpoint *peer) noexcept nogil
        int (*session_connect_result)(uint32_t session, uint32_t events) noexcept nogil
        int (*session_read)(uint32_t session, void *buffer, size_t size) noexcept nogil
        int (*session_write)(uint32_t session, const void *buffer, size_t size) noexcept nogil
        int (*session_writev)(uint32_t session, const iovec *pieces, int count) noexcept nogil
        int (*session_recvfrom)(uint32_t session, void *buffer, size_t size, vcl_endpoint *from_) noexcept nogil
        int (*session_sendto)(uint32_t session, const void *buffer, size_t size, const vcl_endpoint *to) noexcept nogil
        int (*session_shutdown)(uint32_t session, int how) noexcept nogil
        int (*session_close)(uint32_t session) noexcept nogil
        int (*session_readable)(uint32_t session) noexcept nogil
        int (*session_local)(uint32_t session, vcl_endpoint *local) noexcept nogil
        int (*session_peer)(uint32_t session, vcl_endpoint *peer) noexcept nogil
        int (*session_get_option)(uint32_t session, int level, int option, int *value) noexcept nogil
        int (*session_set_option)(uint32_t session, int level, int option, int value) noexcept nogil
        int (*session_fd)(uint32_t session) noexcept nogil
        int (*session_adopt)(int worker, int fd) noexcept nogil
        int (*session_forget)(uint32_t session) noexcept nogil
