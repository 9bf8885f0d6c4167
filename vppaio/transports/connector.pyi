import asyncio
from typing import Any, Self

from vppaio.reactor.session import Session, SessionHandler

class Connector(SessionHandler):
    def __new__(cls, session: Session, future: asyncio.Future[None], address: Any) -> Self: ...

def connect(session: Session, host: str, port: int, scope_id: int, future: asyncio.Future[None]) -> None: ...
