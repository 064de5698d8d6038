"""What each version is asked and answers, and how far a shadow differs: counted in this process.

The routes tell it each answer. Where the alias has a shadow, that one computes the same request in
the background: one at a time, few wait, the rest is dropped and counted, nobody waits for it.
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Lock
from time import perf_counter

import structlog
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.predict.bodies import Answer
from service.registry.versions import Target

#: seconds; what is slower than the last is in +Inf
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
MAX_SERIES = 1000  # versions in a role that are counted; the one that was idle longest goes
MAX_WAITING = 64  # requests that wait for their shadow
MAX_BYTES = 4 * 1024 * 1024  # that these requests hold
NEAR = 1e-5  # part of a number by which a shadow may be off and be called equal
LABELS = ("model", "version", "role")

#: Computes a request again with another version; None where that one cannot read it.
Again = Callable[[Target], Sequence[Answer] | None]

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tally:
    """The numbers of one version in one role."""

    requests: int = 0
    failures: int = 0
    rows: int = 0
    warnings: int = 0
    errors: int = 0
    seconds: float = 0.0
    #: how many requests took at most as long as each of BUCKETS but longer than the one before
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    #: of a shadow: rows, those whose value differs, by how much in sum, and requests not computed
    compared: int = 0
    different: int = 0
    difference: float = 0.0
    dropped: int = 0


class Traffic(Collector):
    """The counts of one process, as Prometheus collects them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tallies: OrderedDict[tuple[str, int, str], Tally] = OrderedDict()
        # One thread: what it computes must not take the processor from those who wait.
        self._shadows = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._waiting = 0
        self._bytes = 0

    def close(self) -> None:
        self._shadows.shutdown(wait=False, cancel_futures=True)

    # ---- told by the routes ----------------------------------------------------------------------

    def answered(
        self, target: Target, answers: Sequence[Answer], seconds: float, size: int, again: Again
    ) -> None:
        """Count an answer. If there is a shadow, have it compute the `size` bytes again."""
        self._count(target, answers, seconds)
        if target.shadow is not None:
            self._offer(target.shadow, answers, size, again)

    def failed(self, target: Target) -> None:
        """Count a request that the version could not answer, whatever the client had sent."""
        if "run" not in target.named:
            with self._lock:
                self._tally(target).failures += 1

    def _count(self, target: Target, answers: Sequence[Answer], seconds: float) -> None:
        if "run" in target.named:  # it asked for no version
            return
        warnings = errors = 0
        for answer in answers:
            if "warnings" in answer:
                warnings += len(answer["warnings"])
            if "error" in answer:
                errors += 1
        with self._lock:
            tally = self._tally(target)
            tally.requests += 1
            tally.rows += len(answers)
            tally.warnings += warnings
            tally.errors += errors
            tally.seconds += seconds
            tally.durations[bisect_left(BUCKETS, seconds)] += 1

    def _tally(self, target: Target) -> Tally:
        key = (target.named["model"], target.named["version"], target.role)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
            if len(self._tallies) > MAX_SERIES:
                self._tallies.popitem(last=False)
        else:
            self._tallies.move_to_end(key)
        return tally

    # ---- shadows ---------------------------------------------------------------------------------

    def _offer(self, shadow: Target, answers: Sequence[Answer], size: int, again: Again) -> None:
        with self._lock:
            if self._waiting >= MAX_WAITING or self._bytes + size > MAX_BYTES:
                self._tally(shadow).dropped += 1
                return
            self._waiting += 1
            self._bytes += size
        self._shadows.submit(self._follow, shadow, answers, size, again)

    def _follow(self, shadow: Target, answers: Sequence[Answer], size: int, again: Again) -> None:
        began = perf_counter()
        try:
            found = again(shadow)
            if found is None:
                with self._lock:
                    self._tally(shadow).dropped += 1
                return
            self._count(shadow, found, perf_counter() - began)
            self._compare(shadow, answers, found)
        except Exception as error:  # noqa: BLE001  nobody waits for it: it is counted and told here
            logger.warning("shadow_failed", **shadow.named, reason=str(error))
            self.failed(shadow)
        finally:
            with self._lock:
                self._waiting -= 1
                self._bytes -= size

    def _compare(self, shadow: Target, answers: Sequence[Answer], found: Sequence[Answer]) -> None:
        differences = [
            difference_of(ours["value"], theirs["value"])
            for ours, theirs in zip(answers, found, strict=True)
        ]
        with self._lock:
            tally = self._tally(shadow)
            tally.compared += len(differences)
            tally.different += sum(difference is not None for difference in differences)
            tally.difference += sum(filter(None, differences))

    # ---- told to Prometheus ----------------------------------------------------------------------

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found = [
                ([model, str(version), role], tally)
                for (model, version, role), tally in self._tallies.items()
            ]
            durations = [(labels, list(tally.durations), tally.seconds) for labels, tally in found]
        for attribute, name, text in COUNTERS:
            family = CounterMetricFamily(name, text, labels=LABELS)
            for labels, tally in found:
                if name.startswith("descent_version") or labels[-1] == "shadow":
                    family.add_metric(labels, getattr(tally, attribute))
            yield family
        histogram = HistogramMetricFamily(
            "descent_version_duration_seconds",
            "Time in which a version answered a request.",
            labels=LABELS,
        )
        bounds = [*map(str, BUCKETS), "+Inf"]
        for labels, counts, seconds in durations:
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            histogram.add_metric(labels, buckets=buckets, sum_value=seconds)
        yield histogram


#: attribute of Tally, name of the counter, what it counts
COUNTERS = (
    ("requests", "descent_version_requests", "Requests that a version answered."),
    ("failures", "descent_version_failures", "Requests that a version could not answer."),
    ("rows", "descent_version_rows", "Rows that a version answered."),
    ("warnings", "descent_version_row_warnings", "Warnings that a version gave with rows."),
    ("errors", "descent_version_row_errors", "Rows that a version answered with an error."),
    ("compared", "descent_shadow_rows", "Rows of a shadow that were compared."),
    ("different", "descent_shadow_different_rows", "Compared rows with another value."),
    ("difference", "descent_shadow_difference", "Sum of the distances of numbers that differ."),
    ("dropped", "descent_shadow_dropped", "Requests that a shadow was too busy to compute."),
)


def difference_of(ours: object, theirs: object) -> float | None:
    """Return None for equal values, else by how much numbers differ; 0 for what is no number."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = ours.keys() | theirs.keys()
        parts = [difference_of(ours.get(name), theirs.get(name)) for name in names]
        told = [part for part in parts if part is not None]
        return sum(told) if told else None
    if isinstance(ours, float) and isinstance(theirs, float):
        if math.isclose(ours, theirs, rel_tol=NEAR, abs_tol=1e-12):
            return None
        return abs(ours - theirs)
    return None if ours == theirs else 0.0
