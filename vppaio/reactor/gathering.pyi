class GatheringHandler: ...

class Gathering:
    quick_ns: int
