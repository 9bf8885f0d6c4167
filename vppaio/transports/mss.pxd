# The largest datagrams that VPP sends whole; larger ones it would split silently (VCL_TRAP_DATAGRAM_SPLIT).
from vppaio.reactor.session cimport Session
from vppaio.vcl.ops cimport VCL_TRAP_DATAGRAM_SPLIT, vcl_endpoint

cdef enum:
    MSS_IP4 = 1472  # VPP's udp { mtu 1500 } less the headers
    MSS_IP6 = 1452


cdef inline bint would_be_split(Session session, Py_ssize_t size, const vcl_endpoint *to) noexcept:
    """Whether a datagram of `size` bytes is too large; `to` is NULL on a connected session."""
    cdef vcl_endpoint peer
    if size <= MSS_IP6 or not session.ops.traps & VCL_TRAP_DATAGRAM_SPLIT:
        return False
    if to == NULL:
        peer.is_ip4 = 0
        session.ops.session_peer(session.handle, &peer)
        to = &peer
    return size > MSS_IP4 or not to.is_ip4
