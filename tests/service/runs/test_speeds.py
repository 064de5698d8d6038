"""The service learns the speed of each machine from its runs, and estimates use it."""

import socket
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from models.training.interface import Speed
from service.runs.speeds import BEYOND, KEPT, known_speeds, note
from service.runs.tables import TrainingSpeed
from service.storage.database import reading, time_of_day, writing


def learned(engine: Engine, *speeds: Speed) -> dict[str, float]:
    for speed in speeds:
        with writing(engine) as session:
            note(session, speed)
    with reading(engine) as session:
        return dict(known_speeds(session))


def test_the_first_run_of_a_kind_is_believed_and_others_correct_it(engine: Engine) -> None:
    assert learned(engine, Speed("a", 2.0), Speed("b", 0.5)) == {"a": 2.0, "b": 0.5}
    assert 2.0 < learned(engine, Speed("a", 8.0))["a"] < 8.0
    assert learned(engine, *[Speed("a", 8.0)] * 20)["a"] == pytest.approx(8.0, rel=0.01)


def test_one_run_on_a_busy_machine_changes_little(engine: Engine) -> None:
    quiet = [Speed("a", 1.0)] * 3
    assert learned(engine, *quiet, Speed("a", 5.0))["a"] < 2.0


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf"), 2 * BEYOND])
def test_what_is_no_speed_is_not_learned(engine: Engine, ratio: float) -> None:
    assert learned(engine, Speed("a", ratio)) == {}


def test_the_own_speed_counts_before_that_of_another_machine(engine: Engine) -> None:
    with writing(engine) as session:
        now = time_of_day(session)
        for shape in ("a", "b"):
            session.add(TrainingSpeed(host="other", shape=shape, ratio=9.0, noted_at=now))
    assert learned(engine, Speed("a", 2.0)) == {"a": 2.0, "b": 9.0}


def test_what_was_not_seen_for_long_is_forgotten(engine: Engine) -> None:
    with writing(engine) as session:
        before = time_of_day(session) - KEPT - timedelta(days=1)
        session.add(TrainingSpeed(host="other", shape="a", ratio=9.0, noted_at=before))
    learned(engine, Speed("b", 1.0))
    with reading(engine) as session:
        rows = session.scalars(select(TrainingSpeed)).all()
    assert [(row.host, row.shape) for row in rows] == [(socket.gethostname(), "b")]
