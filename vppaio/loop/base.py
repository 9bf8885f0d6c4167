"""What the parts of the loop know of it: asyncio's loop, its settings and its stacks.

loop.eventloop puts the parts together; none of them knows it.
"""

from typing import Any

from vppaio.config import Config
from vppaio.loop.stacks import Stacks
from vppaio.private import SelectorLoop


class StackLoop(SelectorLoop):
    _config: Config
    _stacks: Stacks
    _listeners: dict[Any, Any]  # by the socket that listens
