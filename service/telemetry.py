"""The numbers that Prometheus reads: requests as they pass, runs and queue when it asks."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from service.database import reading
from service.errors import ServiceError
from service.tables import Run

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: seconds; a prediction takes about a millisecond, an upload minutes
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def run_states(session: Session) -> dict[str, int]:
    """Return how many runs are in each state."""
    rows = session.execute(select(Run.state, func.count()).group_by(Run.state))
    return {state: number for state, number in rows}  # noqa: C416  a Row is no plain pair to mypy


class Telemetry:
    """The numbers of one process, in a registry of its own so that two services do not mix."""

    def __init__(self, engine: Engine, *others: Collector) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "descent_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "descent_request_duration_seconds",
            "Time to answer a request.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        for each in (_Runs(engine), *others):
            self._registry.register(each)
        #: what `labels` would look up anew for each request
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        # Anybody can send any method, and a label's values are kept for ever.
        method = method if method in METHODS else "other"
        known = self._known.get((method, route, status))
        if known is None:
            counter = self._requests.labels(method, route, str(status))
            known = counter, self._seconds.labels(method, route)
            self._known[method, route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Runs(Collector):
    """Runs by state, counted when asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> list[Metric]:
        return []  # else the registry would count at the start of the process

    def collect(self) -> Iterator[Metric]:
        runs = GaugeMetricFamily("descent_runs", "Runs by state.", labels=["state"])
        queue = GaugeMetricFamily("descent_queue_length", "Runs that wait for a worker.")
        with contextlib.suppress(ServiceError), reading(self._engine) as session:
            states = run_states(session)
            for state, number in states.items():
                runs.add_metric([state], number)
            queue.add_metric([], states.get("queued", 0))
        yield runs
        yield queue
