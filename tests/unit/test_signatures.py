"""Public methods have the signatures that asyncio's have in the running Python, and objects pass its isinstance checks.

Programs call with positional and keyword arguments as the documentation of their Python has them, and tools look at
signatures (inspect, mock's autospec).
"""

import asyncio
import inspect

import pytest

import vppaio
from vppaio.loop.serve import Server
from vppaio.transports.datagram import DatagramTransport
from vppaio.transports.stream import StreamTransport


def public_methods(cls):
    return sorted(name for name in dir(cls) if not name.startswith("_") and callable(inspect.getattr_static(cls, name)))


def _cases():
    # The stock classes that define behaviour; what they inherit from the abstract ones is in dir() as well.
    pairs = (
        (vppaio.EventLoop, asyncio.SelectorEventLoop),
        (Server, asyncio.base_events.Server),
        (StreamTransport, asyncio.selector_events._SelectorSocketTransport),
        (DatagramTransport, asyncio.selector_events._SelectorDatagramTransport),
    )
    for ours, stock in pairs:
        for name in public_methods(stock):
            if ours is DatagramTransport and name in ("write", "writelines", "write_eof", "can_write_eof"):
                continue  # asyncio's has them because it shares a base with streams; they raise NotImplementedError
            yield pytest.param(ours, stock, name, id=f"{ours.__name__}.{name}")


CASES = list(_cases())


def parameters(cls, name):
    """Kinds, names and defaults; annotations are ours to have."""
    return [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(getattr(cls, name)).parameters.values()
    ]


@pytest.mark.parametrize(("ours", "stock", "name"), CASES)
def test_signature_is_that_of_asyncio(ours, stock, name):
    assert parameters(ours, name) == parameters(stock, name)


@pytest.mark.parametrize(("ours", "stock", "name"), CASES)
def test_coroutine_functions_are_those_of_asyncio(ours, stock, name):
    assert inspect.iscoroutinefunction(getattr(ours, name)) == inspect.iscoroutinefunction(getattr(stock, name))


def test_loop_has_the_documented_public_names():
    loop = set(dir(vppaio.EventLoop))
    assert {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")} <= loop


@pytest.fixture
def loop():
    loop = vppaio.new_event_loop(vppaio.Config(stack="host"))
    yield loop
    loop.close()


@pytest.mark.parametrize("debug", [False, True])
def test_loop_and_handles_are_instances_of_asyncios(loop, debug):
    loop.set_debug(debug)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert isinstance(loop, asyncio.SelectorEventLoop)
    handles = [loop.call_soon(print), loop.call_soon_threadsafe(print)]
    timers = [loop.call_later(0, print), loop.call_later(1, print), loop.call_at(loop.time(), print)]
    for handle in handles:
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
    for timer in timers:
        assert isinstance(timer, asyncio.TimerHandle)
        assert isinstance(timer, asyncio.Handle)
    for handle in handles + timers:
        handle.cancel()
        assert handle.cancelled()


def test_server_and_transports_are_instances_of_asyncios(loop):
    async def open_all():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        stream, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        datagram, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server, asyncio.base_events.Server)
        assert isinstance(stream, asyncio.Transport)
        assert isinstance(stream, asyncio.ReadTransport)
        assert isinstance(stream, asyncio.WriteTransport)
        assert isinstance(stream, asyncio.BaseTransport)
        assert isinstance(stream, asyncio.transports._FlowControlMixin)
        assert not isinstance(stream, asyncio.DatagramTransport)
        assert isinstance(datagram, asyncio.DatagramTransport)
        assert isinstance(datagram, asyncio.BaseTransport)
        stream.close()
        datagram.close()
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(open_all())
