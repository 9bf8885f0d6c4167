"""Disagreements found so far, shortened.

Sequences and not seeds, which mean something else when the generator changes.
"""

from __future__ import annotations

from typing import Final

from tests.differential.operations import BIG, Opening, Sequence, Step

REGRESSIONS: Final[dict[str, Sequence]] = {
    "a repeated write that fails comes after the EOF": Sequence(
        "server", ("plain", False), (Step((("peer_close",), ("write", "bytes", BIG))),)
    ),
    "a repeated write that fails does so a turn later": Sequence(
        "client", ("buffered", True), (Step((("peer_close",),)), Step((("write", "bytearray", BIG), ("soon", 3))))
    ),
    "five late writes are warned of, not four": Sequence(
        "server",
        ("buffered", True),
        (
            Step((("arm", "connection_lost", (("write", "memoryview", 1),)), ("write", "memoryview", 1400))),
            Step((("peer_close",),)),
            Step((("write", "bytearray", 100),)),
            Step((("write", "bytearray", 100),)),
            Step((("write", "memoryview", 1),)),
        ),
    ),
    "a write after a close that had to wait goes nowhere": Sequence(
        "server",
        ("plain", False),
        (Step((("write", "bytes", BIG), ("close",))), Step((("peer_read",),)), Step((("write", "bytes", 1000),))),
    ),
    "write_eof tells that the connection is gone": Sequence(
        "server", ("buffered", True), (Step((("pause_reading",),)), Step((("peer_reset",),)), Step((("write_eof",),)))
    ),
    "a reset found by the reader is the writer's reason too": Sequence(
        "client", ("plain", True), (Step((("write", "bytes", BIG),)), Step((("peer_send", 100), ("peer_reset",))))
    ),
    "resuming and an error of the same turn are one event": Sequence(
        "client",
        ("plain", True),
        (
            Step((("pause_reading",),)),
            Step((("peer_send", 100), ("write", "bytes", BIG))),
            Step((("peer_shutdown",),)),
            Step((("peer_close",), ("resume_reading",))),
        ),
    ),
    "resuming does not overtake what is scheduled": Sequence(
        "client",
        ("buffered", True),
        (Step((("peer_send", 1), ("pause_reading",))), Step((("soon", 2), ("resume_reading",)))),
    ),
    "one read a turn after a reset": Sequence(
        "client", ("tiny", False), (Step((("write", "bytes", BIG),)), Step((("peer_send", 20000), ("peer_close",))))
    ),
    "many small lines are one write": Sequence(
        "client",
        ("buffered", False),
        (
            Step((("peer_close",), ("set_protocol", "tiny", True))),
            Step((("writelines", "generator", (100, 10, 10), 30),)),
        ),
    ),
    "pause_writing writes more": Sequence(
        "server",
        ("plain", True),
        (Step((("arm", "pause_writing", (("write", "bytes", BIG),)),)), Step((("write", "bytearray", BIG),))),
    ),
    "the backlog is flushed after the peer's FIN while reading is paused": Sequence(
        "client",
        ("buffered", True),
        (
            Step((("writelines", "generator", (1, BIG), 1),)),
            Step((("pause_reading",),)),
            Step((("peer_shutdown",),)),
        ),
    ),
    "the backlog is flushed after the peer's FIN while closing": Sequence(
        "client",
        ("plain", True),
        (Step((("write", "bytes", BIG), ("close",))), Step((("peer_shutdown",),)), Step((("peer_read",),))),
    ),
    "write_eof is told to a peer that sent its FIN first": Sequence(
        "client",
        ("buffered", True),
        (Step((("write", "bytes", BIG),)), Step((("write_eof",),)), Step((("peer_shutdown",),))),
    ),
    "FINs that cross": Sequence(
        "client",
        ("buffered", True),
        (Step((("peer_send", 10), ("arm", "data", (("write_eof",),)), ("peer_shutdown",))),),
    ),
    "resuming and write_eof when the backlog is through": Sequence(
        "server",
        ("plain", False),
        (
            Step((("writelines", "list", (BIG,), 1),)),
            Step((("arm", "resume_writing", (("resume_reading",), ("write_eof",))), ("pause_reading",))),
            Step((("peer_shutdown",),)),
        ),
    ),
    "FINs that cross while reading is paused": Sequence(
        "client",
        ("buffered", False),
        (Step((("pause_reading",),)), Step((("peer_shutdown",), ("write_eof",)))),
    ),
    "a FIN behind the news that there is room is not a turn late": Sequence(
        "server",
        ("plain", True),
        (Step((("write", "bytes", BIG), ("soon", 3), ("peer_shutdown",))),),
    ),
    "a greeting waits for who connected and then sets the protocol": Sequence(
        "client", ("plain", False), (), Opening(1000, connected=(("set_protocol", "buffered", True),))
    ),
    "a greeting waits for the task that connection_made started": Sequence(
        "server", ("buffered", False), (), Opening(1, connection_made=(("task", 2),))
    ),
    "a greeting is read a turn later if reading was paused and resumed": Sequence(
        "client socket",
        ("plain", True),
        (),
        Opening(1000, connected=(("pause_reading",), ("resume_reading",), ("soon", 3))),
    ),
    "what a socket left of a greeting waits for who made a transport of it": Sequence(
        "server socket",
        ("plain", False),
        (),
        Opening(1000, (("sock_recv", 10),), (("soon", 3),), (("set_protocol", "plain", False), ("task", 2))),
    ),
    "a connection_made that fails does not keep reading from starting": Sequence(
        "client", ("plain", False), (), Opening(1000, connection_made=(("soon", 3), ("raise",)))
    ),
    "what a socket left of a greeting is one with what came behind it": Sequence(
        "client socket",
        ("plain", True),
        (
            Step((("peer_send", 1400),)),
            Step((("arm", "data", (("soon", 3),)), ("resume_reading",))),
        ),
        Opening(1, (("sock_sendall", 1000),), (("pause_reading",),)),
    ),
    "what reading has left to write is not written ahead of the EOF": Sequence(
        "client",
        ("plain", False),
        (
            Step((("pause_reading",), ("peer_send", 20000))),
            Step((("arm", "data", (("write", "bytes", BIG), ("write", "bytearray", 10))),)),
            Step((("resume_reading",), ("peer_close",))),
        ),
    ),
}
