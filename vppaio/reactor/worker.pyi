from collections.abc import Callable
from typing import Self

from vppaio.reactor.session import SessionHandler, SessionTable

class Worker(SessionTable):
    fd: int
    n_polls: int
    n_wakes: int
    n_events_seen: int
    n_stale: int
    n_budget_hits: int
    n_lost: int
    n_restored: int
    on_change: Callable[[bool], None] | None
    def __new__(cls, ops_address: int, index: int = -1, release: Callable[[int], None] | None = None) -> Self: ...
    def catch_up(self, patience_s: float) -> None: ...
    def wait_restored(self, handler: SessionHandler) -> None: ...
    def statistics(self) -> dict[str, float]: ...
    def close(self) -> None: ...
