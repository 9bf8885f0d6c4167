# (text, port) <-> vcl_endpoint, for the data path: a datagram has an address each way.
from libc.stdint cimport uint16_t
from libc.string cimport memset

from vppaio.vcl.ops cimport vcl_endpoint


cdef extern from "<arpa/inet.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        INET6_ADDRSTRLEN
    int inet_pton(int family, const char *text, void *binary)
    const char *inet_ntop(int family, const void *binary, char *text, unsigned int size)
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)


cdef inline bint fill_endpoint(vcl_endpoint *endpoint, str host, int port, unsigned int scope_id) except -1:
    """Fill `endpoint` from an address; False if `host` is not a numeric one."""
    cdef bytes text = host.encode()
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")  # the socket module's words
    memset(endpoint, 0, sizeof(endpoint[0]))
    endpoint.port = htons(<uint16_t> port)
    endpoint.scope_id = scope_id
    if inet_pton(AF_INET, text, endpoint.ip) == 1:
        endpoint.is_ip4 = 1
        return True
    return inet_pton(AF_INET6, text, endpoint.ip) == 1


cdef inline tuple address_of(const vcl_endpoint *endpoint):
    """The address tuple asyncio uses: 2 items for IPv4, 4 for IPv6."""
    cdef char text[64]
    if endpoint.is_ip4:
        inet_ntop(AF_INET, endpoint.ip, text, sizeof(text))
        return (text.decode("ascii"), ntohs(endpoint.port))
    inet_ntop(AF_INET6, endpoint.ip, text, sizeof(text))
    return (text.decode("ascii"), ntohs(endpoint.port), 0, endpoint.scope_id)
