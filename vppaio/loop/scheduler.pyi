from vppaio.reactor.poller import Poller, Selector

class Scheduler:
    _poller: Poller
    def sleep_on(self, selector: Selector) -> None: ...
