"""Adds up the metrics of several processes: one text in the Prometheus format."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

LOWEST = frozenset(
    {
        *("vivavoce_upstream_available", "vivavoce_upstream_remaining", "vivavoce_pool_member_up"),
        *("vivavoce_cluster_redis_reached", "vivavoce_cluster_nodes"),
        "vivavoce_spend_capture_ratio",
    }
)
"""Gauges of what is outside, which each process measures: the lowest value counts."""
_CREATED = "_created"
_Labels = tuple[tuple[str, str], ...]


class MetricSum(Collector):
    """Counters and histograms are added up, and so are gauges but for LOWEST.

    Of the times at which counters were created the earliest counts.
    """

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, text: str, *, counted_only: bool = False) -> None:
        """Add the metrics of a process. counted_only: no gauges, as for one that has ended."""
        for family in text_string_to_metric_families(text):
            is_gauge = family.type == "gauge" and not family.name.endswith(_CREATED)
            if counted_only and is_gauge:
                continue
            self._families.setdefault(family.name, family)
            values = self._values.setdefault(family.name, {})
            lowest = family.name in LOWEST or family.name.endswith(_CREATED)
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                if key not in values:
                    values[key] = sample.value
                elif lowest:
                    values[key] = min(values[key], sample.value)
                else:
                    values[key] += sample.value

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            metric = Metric(name, family.documentation, family.type)
            metric.samples = [
                Sample(sample, dict(labels), value)
                for (sample, labels), value in self._values[name].items()
            ]
            yield metric

    def text(self) -> str:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()


def merged(texts: Iterable[str], ended: str = "") -> str:
    """The sum of the metrics of processes; ended: the counters of those that are gone."""
    total = MetricSum()
    total.add(ended, counted_only=True)
    for text in texts:
        total.add(text)
    return total.text()


def added(ended: str, text: str) -> str:
    """The counters of processes that are gone, and of one more."""
    total = MetricSum()
    total.add(ended, counted_only=True)
    total.add(text, counted_only=True)
    return total.text()
