"""What VPP cannot do as the kernel does, with the reason; sequences leave it out there.

tests/vpp/test_resets.py shows those about resets, except for what is chance; docs/differences.md lists them. The one
about two messages for one segment is the order of two callbacks, and chance.
"""

from __future__ import annotations

from typing import Final

from tests.differential.player import Rule

RULES: Final[dict[str, dict[str, str]]] = {
    "vpp": {
        Rule.RESET_DROPS_UNREAD: (
            "VPP empties the rx FIFO when a reset arrives (ECONNRESET, docs/vpp.md 4.4); the kernel lets a reader "
            "have what came before. No peer resets while its data is under way."
        ),
        Rule.UNREAD_CLOSE_CUTS: (
            "Closing with unread data resets the connection on both, but VPP may take the close before the write of "
            "the same moment (one queue message each), the kernel has sent it already. What the peer got of such a "
            "connection is not compared."
        ),
        Rule.RESET_ENDS_HALF: (
            "After our FIN, VPP tells of a reset as of a FIN (read = 0). No peer resets after write_eof()."
        ),
        Rule.RESET_TOLD_LATER: (
            "The kernel refuses to shut down a connection from the moment the reset arrives, VCL once it has read its "
            "message. No write_eof() after the peer has closed."
        ),
        Rule.NO_RESET_AFTER_FIN: (
            "VPP says nothing when a connection is reset whose peer had sent its FIN before, and takes what is written "
            "for another 0.1 s (session_transport_reset_notify returns early, 26.06); vppaio looks every 0.25 s. No "
            "peer resets after its FIN, and nothing is written to a peer that has closed."
        ),
        Rule.ROOM_TOLD_ALONE: (
            "A segment may bring data and make room for ours. The kernel has both in one event, and asyncio reads "
            "first; VCL has two messages, in either order, so resume_writing may precede data_received. With constant "
            "limits only the peer's reading makes enough room; no other limits while something waits to be written."
        ),
        Rule.CLOSED_STILL_TAKES: (
            "VPP takes data of the peer, and drops it, between its own FIN and the peer's; the kernel answers with a "
            "reset once the application has closed. No peer sends after connection_lost."
        ),
    },
}
