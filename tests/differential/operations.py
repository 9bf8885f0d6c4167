"""What a sequence is made of: operations on a transport and on its peer, drawn at random.

A sequence is plain data, so it can be printed, shortened and played again. Every operation makes sense in every state:
what a state does not allow is refused by the transport, and the refusal is compared too.

For the long mode `sequence` draws from `random.Random(seed)`; in the tests hypothesis draws, see machine.py.
"""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

Operation = tuple[Any, ...]  # (name, arguments ...)

# Far above all buffers on the way (socket buffers of 128 KiB on either side, VPP's FIFOs of 1 MiB), so that some of it
# must wait in the transport until the peer reads. Everything else together is far below.
BIG: Final = 2 << 20
SIZES: Final = (0, 1, 10, 100, 1000, 1400)
LIMITS: Final = (0, 1, 500, 1 << 14, 1 << 16, 1 << 18, 1 << 30)
HIGH: Final = (None, *LIMITS)
LOW: Final = (None, 0, 1, 100, 1 << 13, 1 << 14, 1 << 17)
BYTES: Final = ("bytes", "bytearray", "memoryview")
NONSENSE: Final = ("", "text", None, 1, ())
CALLBACKS: Final = ("connection_made", "data", "eof_received", "pause_writing", "resume_writing", "connection_lost")
ON_SOCKET: Final = ("sock_recv", "sock_sendall")
PROTOCOLS: Final = ("plain", "buffered", "tiny")  # tiny: a BufferedProtocol whose buffer takes a few bytes
# How the transport comes to be: accepted by a server; by create_connection; from a socket that sock_connect or
# sock_accept has connected, which is the stack's own (`vppaio.socket`).
ROLES: Final = ("server", "client", "client socket", "server socket")
GREETINGS: Final = (0, 1, 1000, 20000)
MAX_STEPS: Final = 25


class Step(NamedTuple):
    """Operations with no turn of the loop in between; afterwards the loop runs until nothing happens any more."""

    operations: tuple[Operation, ...]

    def is_alone(self) -> bool:
        """Whether it ends by itself, when the last byte has arrived, and takes no further operation."""
        return self.operations[0] in (("peer_read",), ("peer_send", BIG))


class Opening(NamedTuple):
    """What happens while the transport comes to be, turn by turn.

    Args:
        greeting: bytes that the peer has sent before there is a transport.
        on_socket: sock_* operations before that.
        connection_made: what the protocol does in it.
        connected: what is done by who has waited for the transport, when it goes on; nobody waits for a server's.
    """

    greeting: int = 0
    on_socket: tuple[Operation, ...] = ()
    connection_made: tuple[Operation, ...] = ()
    connected: tuple[Operation, ...] = ()


class Sequence(NamedTuple):
    """One connection's life.

    Args:
        role: of the transport, of ROLES.
        protocol: the first one's kind, of PROTOCOLS, and what its eof_received returns.
        steps: what happens to it.
        opening: what happens before.
        tls: the version, or "" for a plain connection; see tls.py.
    """

    role: str
    protocol: tuple[str, bool]
    steps: tuple[Step, ...]
    opening: Opening = Opening()
    tls: str = ""


def sequence(chance: random.Random) -> Sequence:
    """A random sequence; the same for the same state of `chance`."""
    steps = [_step(chance) for _ in range(chance.randint(1, MAX_STEPS))]
    return Sequence(chance.choice(ROLES), _protocol(chance), tuple(steps), _opening(chance))


def _opening(chance: random.Random) -> Opening:
    def reactions(callback: str) -> tuple[Operation, ...]:
        return tuple(_reaction(chance, callback) for _ in range(chance.choice((0, 0, 1, 2))))

    on_socket = tuple((chance.choice(ON_SOCKET), chance.choice(SIZES[1:])) for _ in range(chance.choice((0, 0, 1, 2))))
    return Opening(chance.choice(GREETINGS), on_socket, reactions("connection_made"), reactions("connected"))


def _step(chance: random.Random) -> Step:
    if chance.random() < 0.1:
        return Step((chance.choice([("peer_read",), ("peer_send", BIG)]),))
    count = chance.choice((1, 1, 1, 1, 2, 2, 3, 4))
    return Step(tuple(_operation(chance) for _ in range(count)))


def _operation(chance: random.Random) -> Operation:
    kind = chance.random()
    if kind < 0.35:
        return _of_peer(chance)
    if kind < 0.5:
        callback = chance.choice(CALLBACKS)
        return ("arm", callback, tuple(_reaction(chance, callback) for _ in range(chance.choice((1, 1, 2)))))
    return _of_transport(chance)


def _of_peer(chance: random.Random) -> Operation:
    name = chance.choices(
        ("peer_send", "peer_read", "peer_shutdown", "peer_close", "peer_reset"), weights=(10, 4, 2, 1.2, 1)
    )[0]
    return (name, chance.choice((*SIZES[1:], 20000))) if name == "peer_send" else (name,)


def _of_transport(chance: random.Random) -> Operation:
    name = chance.choices(
        (
            "write", "writelines", "pause_reading", "resume_reading", "write_eof", "close", "abort", "set_protocol",
            "set_write_buffer_limits", "get_write_buffer_size", "write_nonsense", "soon", "task",
        ),
        weights=(12, 5, 5, 7, 1.5, 1.5, 1, 3, 4, 2, 0.5, 2, 2),
    )[0]  # fmt: skip
    match name:
        case "write":
            size = BIG if chance.random() < 0.2 else chance.choice(SIZES)
            return (name, chance.choice(BYTES), size)
        case "writelines":
            sizes = [chance.choice(SIZES) for _ in range(chance.choice((0, 1, 2, 3)))]
            times = chance.choice((1, 1, 1, 30))  # together more pieces than one writev takes
            if sizes and chance.random() < 0.2:
                sizes[chance.randrange(len(sizes))] = BIG
                times = 1
            return (name, chance.choice(("list", "generator")), tuple(sizes), times)
        case "set_protocol":
            return (name, *_protocol(chance))
        case "set_write_buffer_limits":
            return (name, chance.choice(HIGH), chance.choice(LOW))
        case "write_nonsense":
            return (name, chance.choice(NONSENSE))
        case "soon" | "task":
            return (name, chance.randint(1, 3))
    return (name,)


def _reaction(chance: random.Random, callback: str) -> Operation:
    """What a protocol does inside a callback, or who waited for it."""
    if chance.random() < 0.1 and callback != "connected":
        return ("raise",)
    while True:
        operation = _of_transport(chance)
        if is_possible(operation, callback):
            return operation


def is_possible(operation: Operation, callback: str) -> bool:
    """Whether `operation` can be compared inside `callback`."""
    # How much is left when resume_writing is called depends on the size of the kernel's bites, and so does what an
    # abort would cut off then, and whether other limits mean another pause.
    ambiguous = ("abort", "get_write_buffer_size", "set_write_buffer_limits")
    return callback != "resume_writing" or operation[0] not in ambiguous


def _protocol(chance: random.Random) -> tuple[str, bool]:
    return chance.choices(PROTOCOLS, weights=(5, 3, 1))[0], chance.random() < 0.5


def spelled(sequence: Sequence) -> str:
    """As Python that makes it again."""
    lines = [f"Sequence({sequence.role!r}, {sequence.protocol!r}, ("]
    lines += [f"    Step({step.operations!r})," for step in sequence.steps]
    opening = f", {sequence.opening!r}" if sequence.opening != Opening() else ""
    tls = f", tls={sequence.tls!r}" if sequence.tls else ""
    return "\n".join([*lines, f"){opening}{tls})"])
