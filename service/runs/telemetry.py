"""Runs by state, for Prometheus and for people."""

import contextlib
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.runs.tables import Run
from service.storage.database import reading


def run_states(session: Session) -> dict[str, int]:
    """Return how many runs are in each state."""
    rows = session.execute(select(Run.state, func.count()).group_by(Run.state))
    return {state: number for state, number in rows}  # noqa: C416  a Row is no plain pair to mypy


class RunCounts(Collector):
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
