"""What Prometheus reads."""

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from msc_edge.runtime.metrics_registry import MetricsRegistry


def test_all_series_but_the_times_of_creation_are_there() -> None:
    registry = MetricsRegistry()
    Counter("parts_total", "Parts", registry=registry).inc(3)
    Gauge("up", "1 while it runs", registry=registry).set(1)
    Histogram("seconds", "Duration", registry=registry, buckets=(1.0,)).observe(0.5)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert lines == [
        "parts_total 3.0",
        "up 1.0",
        'seconds_bucket{le="1.0"} 1.0',
        'seconds_bucket{le="+Inf"} 1.0',
        "seconds_count 1.0",
        "seconds_sum 0.5",
    ]
