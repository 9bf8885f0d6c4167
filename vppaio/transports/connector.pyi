import asyncio

from vppaio.reactor.session import Session

def connect(session: Session, host: str, port: int, scope_id: int, future: asyncio.Future[None]) -> None: ...
