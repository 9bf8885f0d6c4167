from vppaio.reactor.poller import Poller

class Scheduler:
    _poller: Poller
