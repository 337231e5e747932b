"""What the node counts about itself, cheap enough to count on every request.

Room: plain numbers in one registry object per node (many nodes live in one process), written from the event
loop and the writer thread alike: a bump is one dictionary update under the interpreter lock. Their text form
is prometheus_client's, imported at the first scrape since it costs 70 ms at start. Label values must come
from small fixed sets (route templates, status codes), never from what callers send.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Labels = tuple[str, ...]

# Seconds. From what a read by id takes to what a user calls broken, about a factor of 2.5 apart.
SECONDS_BOUNDS = (0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Counter:
    """A number that only grows, per combination of label values."""

    __slots__ = ("help", "labels", "name", "values")

    def __init__(self, name: str, help: str, labels: Labels) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Count `amount` more under these label values, given in the order of the label names."""
        self.values[labels] = self.values.get(labels, 0) + amount


class Gauge:
    """A number asked for when scraped: one value, or one per combination of label values."""

    __slots__ = ("help", "labels", "name", "read")

    def __init__(
        self, name: str, help: str, labels: Labels, read: Callable[[], float | Mapping[Labels, float]]
    ) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.read = read


class Buckets:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histogram:
    """How values are spread, per combination of label values."""

    __slots__ = ("bounds", "help", "labels", "name", "series")

    def __init__(self, name: str, help: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.bounds = bounds
        self.series: dict[Labels, Buckets] = {}

    def at(self, labels: Labels = ()) -> Buckets:
        """The series of these label values; keep it where it is used often."""
        series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = Buckets(self.bounds)
        return series


Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class Metrics:
    """The registry of one node."""

    def __init__(self) -> None:
        self._all: dict[str, Counter | Gauge | Histogram] = {}
        self._registry: CollectorRegistry | None = None

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        """A new counter. Its name ends in `_total`, as Prometheus wants it."""
        return self._add(Counter(name, help, labels))

    def gauge(
        self,
        name: str,
        help: str,
        read: Callable[[], float | Mapping[Labels, float]],
        labels: Labels = (),
    ) -> Gauge:
        """A new gauge; `read` is called at each scrape, on the loop, and must not block."""
        return self._add(Gauge(name, help, labels, read))

    def histogram(
        self, name: str, help: str, labels: Labels = (), bounds: tuple[float, ...] = SECONDS_BOUNDS
    ) -> Histogram:
        """A new histogram with ascending upper bounds."""
        return self._add(Histogram(name, help, labels, bounds))

    def _add(self, metric: Metric) -> Metric:
        if metric.name in self._all:
            raise ValueError(f"two metrics are named {metric.name}")
        self._all[metric.name] = metric
        return metric

    def collect(self) -> Iterator[Any]:
        """Every series in prometheus_client's terms; called by its registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in list(self._all.values()):
            match metric:
                case Counter():
                    counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                    for labels, value in list(metric.values.items()):
                        counter.add_metric(labels, value)
                    yield counter
                case Gauge():
                    gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                    now = metric.read()
                    for labels, value in (now if isinstance(now, Mapping) else {(): now}).items():
                        gauge.add_metric(labels, value)
                    yield gauge
                case Histogram():
                    histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                    for labels, series in list(metric.series.items()):
                        histogram.add_metric(labels, _cumulative(series), series.total)
                    yield histogram

    def render(self) -> tuple[bytes, str]:
        """All series, with those of the process, in Prometheus' text format; and its content type."""
        from prometheus_client import (
            CONTENT_TYPE_LATEST,
            CollectorRegistry,
            ProcessCollector,
            generate_latest,
        )

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _cumulative(series: Buckets) -> list[tuple[str, float]]:
    from prometheus_client.utils import floatToGoString

    rows: list[tuple[str, float]] = []
    seen = 0
    for bound, count in zip((*series.bounds, float("inf")), list(series.counts), strict=True):
        seen += count
        rows.append((str(floatToGoString(bound)), seen))  # type: ignore[no-untyped-call]
    return rows
