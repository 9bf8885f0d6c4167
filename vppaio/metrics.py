"""`loop.statistics()` for Prometheus, through its usual client library: `pip install 'vppaio[prometheus]'`.

    import prometheus_client, vppaio.metrics

    prometheus_client.REGISTRY.register(vppaio.metrics.StatisticsCollector())

Every open loop of the process is a label, each of its stacks another: `vppaio_sessions{loop="1",stack="vpp"} 201`. The
names are those of vppaio.loop.statistics behind `vppaio_`, counters with Prometheus' `_total`. Collecting may happen on
any thread.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from vppaio.loop.registry import snapshots
from vppaio.loop.statistics import FIELDS, LOOP_FIELDS, Field


class StatisticsCollector(Collector):
    """Gives the numbers of all loops when it is asked."""

    def collect(self) -> Iterator[Metric]:
        loops = list(snapshots())
        for name, field in LOOP_FIELDS.items():
            yield _metric(name, field, ["loop"], [([str(number)], found[name]) for number, found in loops])
        for name, field in FIELDS.items():
            values = [
                ([str(number), stack], numbers[name])
                for number, found in loops
                for stack, numbers in found["stacks"].items()
            ]
            yield _metric(name, field, ["loop", "stack"], values)


def _metric(name: str, field: Field, labels: list[str], values: list[tuple[list[str], float]]) -> Metric:
    metric = (GaugeMetricFamily if field.kind == "gauge" else CounterMetricFamily)(
        f"vppaio_{name}", field.meaning, labels=labels
    )
    for label_values, value in values:
        metric.add_metric(label_values, value)
    return metric


def serve(port: int, address: str = "127.0.0.1") -> int:
    """Answer Prometheus over HTTP, on the kernel's stack and a thread of its own; returns the port."""
    registry = CollectorRegistry()
    registry.register(StatisticsCollector())
    server, _ = start_http_server(port, address, registry)
    return int(server.server_port)
