"""The metrics count the answers of each version, and compare the discarded ones of a shadow."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from service.predict import traffic
from service.predict.bodies import Answer
from service.predict.traffic import MAX_WAITING, Traffic, difference_of
from service.registry.versions import Role, Target
from tests.service import trained
from tests.service.trained import Store, Trained

CHAMPION = "/api/v1/models/scores/aliases/champion"
ANSWERS: list[Answer] = [{"value": 1.0}, {"value": None, "error": {"code": "missing"}}]


@pytest.fixture
def counts() -> Iterator[Traffic]:
    counts = Traffic()
    yield counts
    counts.close()


def target(version: int, role: Role = "live", shadow: Target | None = None) -> Target:
    return Target("0" * 64, {"model": "scores", "version": version}, role, shadow)


def read(counts: Traffic, name: str, version: int, role: str = "live") -> float | None:
    registry = CollectorRegistry()
    registry.register(counts)
    labels = {"model": "scores", "version": str(version), "role": role}
    return registry.get_sample_value(f"descent_{name}", labels)


def nobody(_target: Target) -> list[Answer]:
    raise AssertionError("there is no shadow")


def test_an_answer_is_counted_for_who_gave_it(counts: Traffic) -> None:
    counts.answered(target(1), ANSWERS, 0.003, 10, nobody)
    counts.answered(target(2, "canary"), [{"value": 1.0, "warnings": [{}, {}]}], 0.003, 10, nobody)
    assert read(counts, "version_requests_total", 1) == 1
    assert read(counts, "version_rows_total", 1) == 2
    assert read(counts, "version_row_errors_total", 1) == 1
    assert read(counts, "version_row_warnings_total", 1) == 0
    assert read(counts, "version_row_warnings_total", 2, "canary") == 2


def test_the_time_of_an_answer_is_in_the_histogram(counts: Traffic) -> None:
    for seconds in (0.0001, 0.003, 7.0):
        counts.answered(target(1), ANSWERS, seconds, 10, nobody)
    registry = CollectorRegistry()
    registry.register(counts)
    labels = {"model": "scores", "version": "1", "role": "live"}
    name = "descent_version_duration_seconds"
    at_most = {
        bound: registry.get_sample_value(f"{name}_bucket", labels | {"le": bound})
        for bound in ("0.0005", "0.0025", "0.005", "1.0", "+Inf")
    }
    assert at_most == {"0.0005": 1, "0.0025": 1, "0.005": 2, "1.0": 2, "+Inf": 3}
    assert registry.get_sample_value(f"{name}_count", labels) == 3


def test_what_was_asked_of_a_run_is_no_version_s(counts: Traffic) -> None:
    of_run = Target("0" * 64, {"model": None, "version": None, "run": "run_1"})
    counts.answered(of_run, ANSWERS, 0.1, 10, nobody)
    counts.failed(of_run)
    assert next(counts.collect()).samples == []


def test_only_so_many_versions_are_counted(counts: Traffic) -> None:
    for version in range(1, traffic.MAX_SERIES + 2):
        counts.answered(target(version), ANSWERS, 0.1, 10, nobody)
    assert read(counts, "version_requests_total", 1) is None
    assert read(counts, "version_requests_total", traffic.MAX_SERIES + 1) == 1


def test_a_shadow_that_is_busy_drops_what_comes(counts: Traffic) -> None:
    may_go_on = Event()

    def slow(_target: Target) -> list[Answer]:
        assert may_go_on.wait(30)
        return ANSWERS

    shadowed = target(1, shadow=target(2, "shadow"))
    for _ in range(MAX_WAITING + 5):
        counts.answered(shadowed, ANSWERS, 0.001, 10, slow)
    assert read(counts, "shadow_dropped_total", 2, "shadow") == 5
    assert read(counts, "version_requests_total", 1) == MAX_WAITING + 5
    may_go_on.set()


def test_a_shadow_holds_few_bytes(counts: Traffic) -> None:
    shadowed = target(1, shadow=target(2, "shadow"))
    counts.answered(shadowed, ANSWERS, 0.001, traffic.MAX_BYTES + 1, nobody)
    assert read(counts, "shadow_dropped_total", 2, "shadow") == 1


def test_what_differs_is_told_apart() -> None:
    assert difference_of(1.0, 1.0 + 1e-9) is None
    assert difference_of(1.0, 3.0) == 2.0
    assert difference_of("setosa", "setosa") is None
    assert difference_of("setosa", "virginica") == 0.0
    assert difference_of(1.0, None) == 0.0
    assert difference_of({"A": 1.0, "B": 2.0}, {"A": 1.0, "B": 4.0}) == 2.0
    assert difference_of({"A": 1.0}, {"A": 1.0}) is None


# ---- through the routes --------------------------------------------------------------------------


def metric(client: httpx.Client, name: str, version: int, role: str) -> float | None:
    labels = {"model": "scores", "version": str(version), "role": role}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == f"descent_{name}" and sample.labels == labels:
                return sample.value
    return None


def until(client: httpx.Client, name: str, version: int, role: str) -> float:
    """Wait for a metric of the shadow, which computes in the background, and return it."""
    for _ in range(500):
        if (found := metric(client, name, version, role)) is not None and found > 0:
            return found
    raise AssertionError(f"{name} was not counted")


def steeper() -> dict[str, Any]:
    """`Final = 2 · Quiz + 0.5`."""
    saved = trained.scores()
    saved["tensors"]["net.0.weight"] *= 1.6
    return saved


ROWS = {"rows": [{"Quiz": 10.0}, {"Quiz": None}]}


@pytest.mark.parametrize("is_csv", [pytest.param(False, id="json"), pytest.param(True, id="csv")])
def test_a_shadow_computes_what_the_live_version_answers(
    client: httpx.Client, engine: Engine, scores: Trained, store: Store, *, is_csv: bool
) -> None:
    trained.publish(engine, store(steeper()), "scores")
    client.put(CHAMPION, json={"version": 1, "shadow": {"version": 2}})
    csv = {"content": "Quiz\r\n10\r\n20\r\n", "headers": {"Content-Type": "text/csv"}}
    answer = client.post(f"{CHAMPION}/predict", **(csv if is_csv else {"json": ROWS}))
    assert (answer.json()["version"], answer.json()["predictions"][0]) == (1, {"value": 13.0})
    assert until(client, "shadow_rows_total", 2, "shadow") == 2
    assert until(client, "shadow_different_rows_total", 2, "shadow") == 2
    assert until(client, "version_requests_total", 2, "shadow") == 1
    assert metric(client, "version_requests_total", 1, "live") == 1


def test_a_shadow_that_cannot_read_the_rows_changes_no_answer(
    client: httpx.Client, engine: Engine, scores: Trained, boats: Trained
) -> None:
    trained.publish(engine, boats, "scores")
    client.put(CHAMPION, json={"version": 1, "shadow": {"version": 2}})
    answer = client.post(f"{CHAMPION}/predict", json={"rows": [{"Quiz": 10.0}]})
    assert answer.json()["predictions"] == [{"value": 13.0}]
    assert until(client, "shadow_different_rows_total", 2, "shadow") == 1


def test_a_version_whose_bytes_are_damaged_is_counted_as_failing(
    client: httpx.Client, scores: Trained, tmp_path: Path
) -> None:
    next((tmp_path / "data" / "blobs").rglob(scores.sha256)).unlink()
    answer = client.post("/api/v1/models/scores/predict", json=ROWS)
    assert answer.status_code == 409
    assert metric(client, "version_failures_total", 1, "live") == 1


def test_the_canary_is_counted_apart(client: httpx.Client, engine: Engine, scores: Trained) -> None:
    trained.publish(engine, scores, "scores")
    client.put(CHAMPION, json={"version": 1, "canary": {"version": 2, "percent": 50}})
    versions = [client.post(f"{CHAMPION}/predict", json=ROWS).json()["version"] for _ in range(20)]
    assert metric(client, "version_requests_total", 2, "canary") == versions.count(2)
    assert metric(client, "version_row_warnings_total", 1, "live") == versions.count(1)
