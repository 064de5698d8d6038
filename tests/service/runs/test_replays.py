import math
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.jobs import events
from service.runs import lifecycle, metrics
from service.runs.tables import Event, Run
from service.storage.database import writing
from tests.service.rows import add_run, metric_rows

pytestmark = pytest.mark.both_databases

LEASE = 20.0


def claimed(session: Session, now: float) -> Run:
    run = lifecycle.claim(session, "w1", lease_s=LEASE, now=now)
    assert run is not None
    return run


def attempted(session: Session, rows: list[dict[str, Any]]) -> Run:
    """Return the second attempt of a run whose first attempt wrote these rows and was lost."""
    run_id = add_run(session).id
    run = claimed(session, 0.0)
    metrics.append(session, run_id, 1, rows, {"progress": {"step": 35}})
    return lost(session, run, 1000.0)


def lost(session: Session, run: Run, now: float) -> Run:
    lifecycle.rescue(session, run.id, run.attempt, now=now)
    return claimed(session, now)


def divergences(session: Session, run: Run) -> list[Event]:
    logs = events.of_kind(session, Event, run.id, "log")
    return [log for log in logs if log.data.get("code") == "resume_divergence"]


def test_equal_rows_are_no_news(engine: Engine) -> None:
    values = [0.1, 1 / 3, math.nan, math.inf, -math.inf, -0.0]
    rows = [metric_rows(n, n, value)[0] for n, value in enumerate(values, 1)]
    with writing(engine) as session:
        run = attempted(session, rows)
        metrics.append(session, run.id, 2, rows, {})
        assert divergences(session, run) == []
        assert lifecycle.get(session, run.id).warnings == []


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (1.0, math.nextafter(1.0, 2.0)),
        (math.inf, math.nan),
        (math.inf, -math.inf),
        (1.0, math.nan),
    ],
)
def test_a_single_bit_is_an_event_and_a_warning(engine: Engine, was: float, now: float) -> None:
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 5, was))
        metrics.append(session, run.id, 2, [*metric_rows(1, 2, was), *metric_rows(3, 5, now)], {})
        (event,) = divergences(session, run)
        (warning,) = lifecycle.get(session, run.id).warnings
    assert (event.attempt, event.data["was"]["step"], event.data["now"]["seq"]) == (2, 33, 3)
    assert warning == {"code": "resume_divergence", "detail": event.data["line"]}
    assert "made step 33 again and got another train loss" in event.data["line"]


def test_a_row_of_another_step_is_a_difference(engine: Engine) -> None:
    rows = metric_rows(1, 3)
    with writing(engine) as session:
        run = attempted(session, rows)
        metrics.append(session, run.id, 2, [rows[0], rows[1] | {"step": 23}], {})
        assert len(divergences(session, run)) == 1


def test_an_attempt_tells_of_its_first_difference_only(engine: Engine) -> None:
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 6))
        metrics.append(session, run.id, 2, metric_rows(1, 2, 2.0), {})
        metrics.append(session, run.id, 2, metric_rows(3, 4, 2.0), {})
        run = lost(session, run, 2000.0)
        metrics.append(session, run.id, 3, metric_rows(1, 2, 3.0), {})
        found = divergences(session, run)
    assert [event.attempt for event in found] == [2, 3]


def test_rows_beyond_those_of_the_last_attempt_are_compared_with_earlier_ones(
    engine: Engine,
) -> None:
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 6))
        metrics.append(session, run.id, 2, metric_rows(1, 2), {})
        run = lost(session, run, 2000.0)
        metrics.append(session, run.id, 3, [*metric_rows(1, 5), *metric_rows(6, 6, 2.0)], {})
        (event,) = divergences(session, run)
    assert event.data["now"]["seq"] == 6


def test_new_rows_have_nothing_to_differ_from(engine: Engine) -> None:
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 2))
        metrics.append(session, run.id, 2, [*metric_rows(1, 2), *metric_rows(3, 9, 5.0)], {})
        assert divergences(session, run) == []


def test_the_end_of_a_budget_may_come_at_another_epoch(engine: Engine) -> None:
    rows = metric_rows(1, 3)
    tested = rows[2] | {"split": "test", "name": "mse"}
    with writing(engine) as session:
        run = attempted(session, [*rows[:2], tested])
        metrics.append(session, run.id, 2, rows, {})
        assert divergences(session, run) == []


def test_where_exactness_was_denied_the_difference_says_so(engine: Engine) -> None:
    denial = {"code": "resume_inexact", "detail": "threads was 2, is 1"}
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 3))
        run.warnings = [denial]
        session.flush()
        metrics.append(session, run.id, 2, metric_rows(1, 3, 2.0), {})
        (event,) = divergences(session, run)
        warnings = lifecycle.get(session, run.id).warnings
    assert event.data["line"].endswith("see resume_inexact")
    assert [warning["code"] for warning in warnings] == ["resume_inexact", "resume_divergence"]


def test_a_rewind_says_how_many_steps_are_made_again(engine: Engine) -> None:
    with writing(engine) as session:
        run = attempted(session, metric_rows(1, 3))
        (rewind,) = events.of_kind(session, Event, run.id, "rewind")
    assert rewind.data == {"attempt": 2, "after_seq": 0, "steps_recomputed": 35}
