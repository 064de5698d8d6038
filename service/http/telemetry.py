"""The metrics for Prometheus: counts and times of requests, and the collectors of the rooms."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import add
from threading import Lock

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: seconds; a prediction takes about a millisecond, an upload minutes
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Telemetry:
    """The metrics of one service, in a registry of its own: a process can hold two services."""

    def __init__(self, *others: Collector) -> None:
        self._registry = CollectorRegistry()
        self._requests = _Requests()
        for each in (self._requests, *others):
            self._registry.register(each)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        # Clients can invent methods, and the values of a label are never dropped.
        method = method if method in METHODS else "other"
        self._requests.add((method, route, status), seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Requests(Collector):
    """Requests by method, route and status, counted three times as fast as by the library."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: the sum of the seconds, and the number of requests in each bucket of BUCKETS
        self._tallies: dict[tuple[str, str, int], tuple[list[float], list[int]]] = {}

    def add(self, labels: tuple[str, str, int], seconds: float) -> None:
        with self._lock:
            tally = self._tallies.get(labels)
            if tally is None:
                tally = self._tallies[labels] = [0.0], [0] * (len(BUCKETS) + 1)
            tally[0][0] += seconds
            tally[1][bisect_left(BUCKETS, seconds)] += 1

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found = {key: (sums[0], list(counts)) for key, (sums, counts) in self._tallies.items()}
        answers = CounterMetricFamily(
            "descent_requests", "Requests answered.", labels=("method", "route", "status")
        )
        times: dict[tuple[str, str], tuple[float, list[int]]] = {}
        for (method, route, status), (seconds, counts) in found.items():
            answers.add_metric([method, route, str(status)], sum(counts))
            so_far = times.get((method, route), (0.0, [0] * len(counts)))
            times[method, route] = so_far[0] + seconds, list(map(add, so_far[1], counts))
        yield answers
        durations = HistogramMetricFamily(
            "descent_request_duration_seconds",
            "Time to answer a request.",
            labels=("method", "route"),
        )
        bounds = [*map(str, map(float, BUCKETS)), "+Inf"]
        for labels, (seconds, counts) in times.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            durations.add_metric(labels, buckets=buckets, sum_value=seconds)
        yield durations
