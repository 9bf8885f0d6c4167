import asyncio
from collections.abc import Callable
from typing import Any

from vppaio.reactor.session import Session, SessionHandler

class Listener(SessionHandler):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        session: Session,
        sock: Any,
        on_connection: Callable[[Session, tuple[Any, ...]], None],
        backlog: int,
        reopen: Callable[[], Session] | None = None,
        give_up: Callable[[], None] | None = None,
    ) -> None: ...
    def close(self) -> None: ...
