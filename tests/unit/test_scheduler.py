"""loop.scheduler: what asyncio's Python methods and the compiled ones have to agree on."""

import asyncio
import inspect

import pytest

import vppaio
from vppaio.loop.scheduler import Scheduler

SHARED = [name for name, value in vars(Scheduler).items() if inspect.isdatadescriptor(value) and name != "__dict__"]


@pytest.mark.parametrize("name", SHARED)
def test_attribute_is_one_for_asyncio_and_scheduler(name):
    """A class attribute in between would leave asyncio with one in the instance, and the C field as it was made."""
    assert inspect.getattr_static(vppaio.EventLoop, name) is vars(Scheduler)[name]


def test_loop_is_closed_until_it_is_made():
    """BaseEventLoop.__del__ asks, also for a loop whose __init__ did not get far."""
    assert vppaio.EventLoop.__new__(vppaio.EventLoop).is_closed()


def test_closed_loop_does_not_run():
    loop = vppaio.new_event_loop(vppaio.Config(stack="host"))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()


def test_clock_of_a_subclass_is_the_loops():
    """Such as the virtual ones that tests have."""

    class Ahead(vppaio.EventLoop):
        def time(self) -> float:
            return super().time() + 1e6

    async def main():
        loop = asyncio.get_running_loop()
        timer = loop.call_later(0.01, lambda: None)
        assert timer.when() > 1e6
        await asyncio.sleep(0.02)
        assert loop.time() > timer.when()

    loop = Ahead(vppaio.Config(stack="host"))
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 5))
    finally:
        loop.close()
