"""Counters and histograms of the hot path: counted in a dict, rendered when they are scraped.

The library takes a lock for every value of a metric and compares an observation with each bucket;
these take a third of its time. They are counted on the event loop only. A scrape in a thread reads
a copy; it may see an observation before its duration is in the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Counts:
    """A counter; a series exists from its first count on."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._describe = name, text, labels
        self._counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        registry.register(self)

    def inc(self, *labels: str) -> None:
        self._counts[labels] += 1

    def add(self, amount: int, *labels: str) -> None:
        """Count `amount` at once; its sum is a whole number and never rounded here."""
        self._counts[labels] += amount

    def collect(self) -> Iterable[Metric]:
        name, text, names = self._describe
        family = CounterMetricFamily(name, text, labels=names)
        for labels, count in self._counts.copy().items():
            family.add_metric(labels, count)
        return (family,)


class Durations:
    """A histogram of seconds; a series exists from its first observation on."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry, *, buckets_s: Sequence[float]
    ) -> None:
        self._describe = name, text, labels
        self._buckets_s = buckets_s
        self._bucket_names = [floatToGoString(bucket_s) for bucket_s in (*buckets_s, float("inf"))]  # type: ignore[no-untyped-call]
        self._series: dict[tuple[str, ...], list[float]] = {}
        """By labels: the observations of each bucket, then the sum of the durations."""
        registry.register(self)

    def observe(self, duration_s: float, *labels: str) -> None:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = [0.0] * (len(self._bucket_names) + 1)
        series[bisect_left(self._buckets_s, duration_s)] += 1
        series[-1] += duration_s

    def collect(self) -> Iterable[Metric]:
        name, text, names = self._describe
        family = HistogramMetricFamily(name, text, labels=names)
        for labels, series in self._series.copy().items():
            *counts, total_s = series
            family.add_metric(labels, list(zip(self._bucket_names, accumulate(counts), strict=True)), total_s)
        return (family,)
