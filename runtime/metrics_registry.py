"""The registry of the metrics for Prometheus, without what nobody reads."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric


class MetricsRegistry(CollectorRegistry):
    """A registry without the series `..._created`, the times at which counters were made: one more for each counter.

    They can be switched off for the whole process, too; but that is not ours to decide where a program uses this as a
    library.
    """

    def collect(self) -> Iterator[Metric]:
        """See CollectorRegistry."""
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
