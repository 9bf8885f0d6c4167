# The largest datagrams that VPP sends whole; larger ones it would split silently (VCL_TRAP_DATAGRAM_SPLIT).
from vppaio.reactor.session cimport Session
from vppaio.vcl.ops cimport VCL_MSS_IP4, VCL_MSS_IP6, VCL_TRAP_DATAGRAM_SPLIT, vcl_endpoint


cdef inline bint would_be_split(Session session, Py_ssize_t size, const vcl_endpoint *to) noexcept:
    """Whether a datagram of `size` bytes is too large; `to` is NULL on a connected session."""
    cdef vcl_endpoint peer
    if size <= VCL_MSS_IP6 or not session.ops.traps & VCL_TRAP_DATAGRAM_SPLIT:
        return False
    if to == NULL:
        peer.is_ip4 = 0
        session.ops.session_peer(session.handle, &peer)
        to = &peer
    return size > VCL_MSS_IP4 or not to.is_ip4
