import asyncio
from collections.abc import Callable
from typing import Any, Self

from vppaio.reactor.session import Session, SessionHandler

class Listener(SessionHandler):
    owns_session: bool
    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        sock: Any,
        on_connection: Callable[[Session, tuple[Any, ...]], None],
        backlog: int,
        reopen: Callable[[], Session] | None = None,
        give_up: Callable[[], None] | None = None,
    ) -> Self: ...
    def close(self) -> None: ...
