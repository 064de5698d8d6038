"""A damaged checkpoint is never used: the run resumes from the one before it, and reports that."""

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.errors import Fenced
from service.jobs import events, life
from service.runs import lifecycle, metrics
from service.runs.lifecycle import fall_back
from service.runs.tables import Checkpoint, Event, Run
from service.storage.database import reading, writing
from tests.service.rows import add_run, checkpoint_at, metric_rows

pytestmark = pytest.mark.both_databases

LEASE = 20.0


def claim(session: Session) -> Run:
    run = lifecycle.claim(session, "w1", lease_s=LEASE)
    assert run is not None
    return run


def trained(session: Session, *seqs: int) -> tuple[Run, list[Checkpoint]]:
    """Return a run in its second attempt with checkpoints at these rows."""
    add_run(session)
    run = claim(session)
    summary = {"progress": {"step": seqs[-1]}}
    metrics.append(session, run.id, 1, metric_rows(1, seqs[-1]), summary)
    made = [checkpoint_at(run, seq, is_best=seq == seqs[-1]) for seq in seqs]
    for checkpoint in made:
        lifecycle.add_checkpoint(session, run.id, 1, checkpoint, is_resumable=True)
    lifecycle.stopped(session, run.id, 1)
    return claim(session), made


def test_the_checkpoint_before_is_taken_and_the_curve_goes_back_to_it(engine: Engine) -> None:
    with writing(engine) as session:
        run, (older, damaged) = trained(session, 3, 5)
        found = fall_back(session, run.id, 2, damaged)
    with reading(engine) as session:
        run = lifecycle.get(session, run.id)
        assert found is not None
        assert (found.id, run.resume_checkpoint_id) == (older.id, older.id)
        assert session.get(Checkpoint, damaged.id) is None
        rows = metrics.page(session, run, metrics.Query(), is_terminal=False).rows
        assert [row["seq"] for row in rows] == [1, 2, 3]
        assert run.metric_seq == 3
        rewinds = events.of_kind(session, Event, run.id, "rewind")
        again = {"attempt": 2, "after_seq": 3, "steps_recomputed": 2}
        assert [event.data for event in rewinds] == [again]


def test_a_damaged_best_checkpoint_predicts_no_more(engine: Engine) -> None:
    with writing(engine) as session:
        run, (older, damaged) = trained(session, 3, 5)
        assert run.best_checkpoint_id == damaged.id
        fall_back(session, run.id, 2, damaged)
        assert lifecycle.get(session, run.id).best_checkpoint_id == older.id


def test_without_another_checkpoint_the_run_starts_from_the_beginning(engine: Engine) -> None:
    with writing(engine) as session:
        run, (older, damaged) = trained(session, 3, 5)
        assert fall_back(session, run.id, 2, damaged) is not None
        assert fall_back(session, run.id, 2, older) is None
        run = lifecycle.get(session, run.id)
        assert (run.resume_checkpoint_id, run.best_checkpoint_id) == (None, None)
        assert run.metric_seq == 0


def test_the_fall_is_told_in_the_log_and_as_a_warning(engine: Engine) -> None:
    with writing(engine) as session:
        run, (_older, damaged) = trained(session, 3, 5)
        fall_back(session, run.id, 2, damaged)
        run = lifecycle.get(session, run.id)
        (line,) = [event.data["line"] for event in events.of_kind(session, Event, run.id, "log")]
    assert damaged.id in line
    assert "goes on from step 3" in line
    assert [warning["code"] for warning in run.warnings] == ["checkpoint_corrupt"]


def test_what_no_training_can_go_on_from_is_passed_over(engine: Engine) -> None:
    with writing(engine) as session:
        run, (_first, diverged, damaged) = trained(session, 3, 4, 5)
        diverged_row = session.get_one(Checkpoint, diverged.id)
        diverged_row.is_resumable = False
        session.flush()
        assert fall_back(session, run.id, 2, damaged) is None


def test_a_retry_leaves_the_checkpoints_of_the_run_that_it_continues_alone(engine: Engine) -> None:
    with writing(engine) as session:
        old, (older, damaged) = trained(session, 3, 5)
        lifecycle.fail(session, old.id, 2, life.problem("out_of_memory", "x"))
        lifecycle.retry(session, old.id)
        run = claim(session)
        found = fall_back(session, run.id, 1, damaged)
        assert found is not None
        assert found.id == older.id
        assert session.get(Checkpoint, damaged.id) is not None
        assert lifecycle.get(session, run.id).metric_seq == 0


def test_an_attempt_that_lost_its_run_gives_nothing_up(engine: Engine) -> None:
    with writing(engine) as session:
        run, (_older, damaged) = trained(session, 3, 5)
        with pytest.raises(Fenced):
            fall_back(session, run.id, 1, damaged)
        assert session.get(Checkpoint, damaged.id) is not None
