"""Our counters and histograms are exposed exactly as the library's own."""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.edge.telemetry.counts import Counts, Durations

BUCKETS_S = (0.005, 0.1, 1, 300)
SECONDS = (0.0, 0.005, 0.0050001, 0.1, 0.7, 1, 1.5, 300, 300.1, 86_400.25, -0.001)


def test_counts_and_durations_are_exposed_as_the_librarys() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("a", 'Text with "quotes".', ("operator", "method"), ours)
    counter = Counter("a", 'Text with "quotes".', ("operator", "method"), registry=theirs)
    durations = Durations("b_seconds", "Text.", ("operator", "lane"), ours, buckets_s=BUCKETS_S)
    histogram = Histogram("b_seconds", "Text.", ("operator", "lane"), registry=theirs, buckets=BUCKETS_S)
    assert generate_latest(ours) == generate_latest(theirs)
    for number, duration_s in enumerate(SECONDS):
        labels = (f"op_{number % 3}", Method.PING), (f"op_{number % 3}", Lane.SETTLEMENT)
        counts.inc(*labels[0])
        counter.labels(*labels[0]).inc()
        counts.add(number, *labels[0])
        counter.labels(*labels[0]).inc(number)
        durations.observe(duration_s, *labels[1])
        histogram.labels(*labels[1]).observe(duration_s)
        assert generate_latest(ours) == generate_latest(theirs)
