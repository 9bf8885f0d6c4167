"""hypothesis draws the operations, one rule each, and shortens what disagrees.

A disagreement counts once it was seen again with more time, and the whole sequence has to be played again for that. So
the rules only write it down, and the end plays it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.differential.operations import (
    BIG,
    BYTES,
    CALLBACKS,
    GREETINGS,
    HIGH,
    LOW,
    NONSENSE,
    ON_SOCKET,
    PROTOCOLS,
    ROLES,
    SIZES,
    Opening,
    Operation,
    Sequence,
    Step,
    is_possible,
)


def _operation(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), *arguments)


_protocols = st.tuples(st.sampled_from(PROTOCOLS), st.booleans())
_sizes = st.sampled_from(SIZES)
_writes = _operation("write", st.sampled_from(BYTES), st.sampled_from((*SIZES, BIG)))
_kinds = st.sampled_from(("list", "generator"))
_writelines = st.one_of(
    # 30 times three: together more pieces than one writev takes
    _operation("writelines", _kinds, st.lists(_sizes, max_size=3).map(tuple), st.sampled_from((1, 30))),
    _operation("writelines", _kinds, st.sampled_from(((BIG,), (1, BIG), (BIG, 100, 0))), st.just(1)),
)
_reading = st.sampled_from((("resume_reading",), ("pause_reading",)))
_settings = st.one_of(
    _protocols.map(lambda protocol: ("set_protocol", *protocol)),
    _operation("set_write_buffer_limits", st.sampled_from(HIGH), st.sampled_from(LOW)),
)
_others = st.one_of(
    st.just(("get_write_buffer_size",)),
    _operation("soon", st.integers(1, 3)),
    _operation("task", st.integers(1, 3)),
    _operation("write_nonsense", st.sampled_from(NONSENSE)),
)
_reactions = st.lists(
    st.one_of(
        _writes,
        _writelines,
        _reading,
        _settings,
        _others,
        st.sampled_from((("write_eof",), ("close",), ("abort",), ("raise",))),
    ),
    min_size=1,
    max_size=2,
)
_few_reactions = st.lists(_reactions, max_size=1).map(lambda lists: tuple(itertools.chain(*lists)))
_openings = st.builds(
    Opening,
    st.sampled_from(GREETINGS),
    st.lists(st.tuples(st.sampled_from(ON_SOCKET), st.sampled_from(SIZES[1:])), max_size=2).map(tuple),
    _few_reactions,
    _few_reactions.map(lambda reactions: tuple(reaction for reaction in reactions if reaction != ("raise",))),
)
# Whether an operation comes in the same turn of the loop as the one before.
_together = st.sampled_from((False, False, True))


class Connection(RuleBasedStateMachine):
    """One connection's life.

    Args:
        play: plays it on both, and raises if they disagree.
    """

    def __init__(self, play: Callable[[Sequence], None]) -> None:
        super().__init__()
        self.play = play
        self.role = ""
        self.protocol = ("", False)
        self.opening = Opening()
        self.steps: list[Step] = []
        self.life = 0
        self.peer_is_open = self.peer_writes = True

    @initialize(
        role=st.sampled_from(ROLES), protocol=_protocols, opening=_openings, life=st.sampled_from((0, 0, 5, 10, 20))
    )
    def connect(self, role: str, protocol: tuple[str, bool], opening: Opening, life: int) -> None:
        self.role, self.protocol, self.opening = role, protocol, opening
        self.life = life  # steps before anybody closes

    def teardown(self) -> None:
        # Not when hypothesis gives this one up halfway: it has no result then, and time is short.
        if self.role and sys.exc_info()[0] is None:
            self.play(Sequence(self.role, self.protocol, tuple(self.steps), self.opening))

    def _do(self, operation: Operation, together: bool = False) -> None:
        step = Step((operation,))
        if together and self.steps and not (step.is_alone() or self.steps[-1].is_alone()):
            step = Step((*self.steps.pop().operations, operation))
        self.steps.append(step)

    # ---- the transport ----------------------------------------------------------------------------------------------

    @rule(operation=_writes, together=_together)
    def write(self, operation: Operation, together: bool) -> None:
        self._do(operation, together)

    @rule(operation=_writelines, together=_together)
    def writelines(self, operation: Operation, together: bool) -> None:
        self._do(operation, together)

    @rule(operation=_reading, together=_together)
    def pause_or_resume_reading(self, operation: Operation, together: bool) -> None:
        self._do(operation, together)

    @rule(operation=_settings, together=_together)
    def set(self, operation: Operation, together: bool) -> None:
        self._do(operation, together)

    @rule(operation=_others, together=_together)
    def ask(self, operation: Operation, together: bool) -> None:
        self._do(operation, together)

    @rule(callback=st.sampled_from(CALLBACKS), reactions=_reactions, together=_together)
    def arm(self, callback: str, reactions: list[Operation], together: bool) -> None:
        possible = tuple(reaction for reaction in reactions if is_possible(reaction, callback))
        self._do(("arm", callback, possible), together)

    # ---- the peer ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.peer_writes)
    @rule(size=st.sampled_from((*SIZES[1:], 20000, BIG)), together=_together)
    def peer_send(self, size: int, together: bool) -> None:
        self._do(("peer_send", size), together)

    @precondition(lambda self: self.peer_is_open)
    @rule()
    def peer_read(self) -> None:
        self._do(("peer_read",))

    # ---- ends: two rules for all of them, or most of a sequence would come after one --------------------------------

    @rule(name=st.sampled_from(("write_eof", "peer_shutdown")), together=_together)
    def half_close(self, name: str, together: bool) -> None:
        if name == "peer_shutdown":
            if not self.peer_writes:
                return
            self.peer_writes = False
        self._do((name,), together)

    @precondition(lambda self: len(self.steps) >= self.life)
    @rule(name=st.sampled_from(("close", "abort", "peer_close", "peer_reset")), together=_together)
    def end(self, name: str, together: bool) -> None:
        if name.startswith("peer_"):
            if not self.peer_is_open:
                return
            self.peer_is_open = self.peer_writes = False
        self._do((name,), together)
