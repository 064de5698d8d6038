"""The life of a batch prediction in the database: chunks, fences, results."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from service.batch import lifecycle
from service.batch.lifecycle import BatchChunk, BatchOrder, BatchPrediction, Chunk
from service.datasets.versions import Dataset, DatasetVersion
from service.errors import Conflict, Fenced
from service.jobs import life, queue
from service.registry import versions
from service.registry.tables import Model, ModelVersion
from service.runs.tables import Run
from service.storage import references
from service.storage.database import reading, writing
from service.storage.references import HeldBlob
from tests.service.rows import add_dataset, add_run

pytestmark = pytest.mark.both_databases

LEASE = 20.0
COUNTS = {"errors": 1, "warnings": {"missing": 2}}


def submitted(session: Session, dataset_id: str | None = None) -> BatchPrediction:
    dataset = session.get_one(DatasetVersion, (dataset_id or add_dataset(session), 1))
    order = BatchOrder("predicted", "warn", dataset, "scores", 1, None, [], [])
    return lifecycle.submit(session, order)


def claimed(session: Session, owner: str = "w1", now: float = 0.0) -> BatchPrediction:
    job = queue.claim(session, BatchPrediction, owner, lease_s=LEASE, now=now)
    assert job is not None
    life.started(session, job.id, job.attempt, {})
    return life.get(session, BatchPrediction, job.id)


def held(session: Session, digit: str) -> HeldBlob:
    return references.pin(session, digit * 64, 10)


def everything(engine: Engine) -> list[list[str]]:
    with reading(engine) as session:
        return [
            sorted(map(str, session.execute(select(*table.__table__.c))))
            for table in (BatchPrediction, BatchChunk, Dataset, DatasetVersion)
        ]


def test_chunks_are_counted_together(engine: Engine) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        for number in (1, 2):
            chunk = Chunk(number, 5, COUNTS)
            lifecycle.add_chunk(session, job.id, 1, chunk, held(session, str(number)))
        job = life.get(session, BatchPrediction, job.id)
    assert job.counts == {"errors": 2, "warnings": {"missing": 4}}
    assert job.progress == {"done": 10, "rows": 13, "fraction": 10 / 13}


def test_a_chunk_whose_commit_was_not_heard_of_is_stored_once(engine: Engine) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        for _ in range(2):
            chunk = Chunk(1, 5, COUNTS)
            lifecycle.add_chunk(session, job.id, 1, chunk, held(session, "1"))
        assert life.get(session, BatchPrediction, job.id).counts["errors"] == 1
        assert len(lifecycle.chunks_of(session, job.id)) == 1


def test_a_gap_between_chunks_is_refused(engine: Engine) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        stored = held(session, "1")
    with pytest.raises(Fenced), writing(engine) as session:
        lifecycle.add_chunk(session, job.id, 1, Chunk(2, 5, COUNTS), stored)


def test_chunks_behind_a_damaged_one_are_given_up(engine: Engine) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        for number in (1, 2, 3):
            chunk = Chunk(number, 4, COUNTS)
            lifecycle.add_chunk(session, job.id, 1, chunk, held(session, str(number)))
        lifecycle.drop_chunks(session, job.id, 1, 2)
        job = life.get(session, BatchPrediction, job.id)
        assert [chunk.number for chunk in lifecycle.chunks_of(session, job.id)] == [1]
    assert (job.counts["errors"], (job.progress or {})["done"]) == (1, 4)


def test_a_chunk_forgives_earlier_deaths(engine: Engine) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        life.crashed(session, job.id, 1, "killed", now=0.0)
        job = claimed(session, now=10.0)
        assert job.crash_streak == 1
        lifecycle.add_chunk(session, job.id, 2, Chunk(1, 4, COUNTS), held(session, "1"))
        assert life.get(session, BatchPrediction, job.id).crash_streak == 0


def test_the_result_is_a_dataset_with_the_columns_of_both(engine: Engine) -> None:
    profile = {"name": "prediction", "type": "number", "role": "feature"}
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        chunk, result = held(session, "1"), held(session, "2")
        lifecycle.add_chunk(session, job.id, 1, Chunk(1, 13, COUNTS), chunk)
        lifecycle.succeed(session, job.id, 1, [profile], result)
        references.keep(session, chunk)
        references.keep(session, result)
        job = life.get(session, BatchPrediction, job.id)
        made = session.get_one(DatasetVersion, (job.result_id, 1))
        assert lifecycle.chunks_of(session, job.id) == []
        assert references.is_needed(session, "2" * 64)
        assert not references.is_needed(session, "1" * 64)
    assert [column["name"] for column in made.columns] == ["Quiz", "Final", "prediction"]
    assert (made.rows, made.options["types"]["prediction"]) == (13, "number")


STALE: dict[str, Callable[[Session, str], object]] = {
    "the start": lambda s, job: life.started(s, job, 1, {}),
    "a chunk": lambda s, job: lifecycle.add_chunk(s, job, 1, Chunk(1, 5, COUNTS), held(s, "1")),
    "chunks given up": lambda s, job: lifecycle.drop_chunks(s, job, 1, 1),
    "a success": lambda s, job: lifecycle.succeed(s, job, 1, [], held(s, "1")),
    "a failure": lambda s, job: life.fail(s, job, 1, {"code": "internal_error"}),
    "a stop": lambda s, job: life.stopped(s, job, 1),
    "a crash": lambda s, job: life.crashed(s, job, 1, "x"),
}


@pytest.mark.parametrize("what", STALE)
def test_a_late_write_is_refused_and_changes_nothing(engine: Engine, what: str) -> None:
    with writing(engine) as session:
        submitted(session)
        job = claimed(session)
        life.rescue(session, job.id, 1, now=LEASE + 1)
        claimed(session, "w2", now=LEASE + 2)
    before = everything(engine)
    with pytest.raises(Fenced), writing(engine) as session:
        STALE[what](session, job.id)
    assert everything(engine) == before


TABLES = (Run, BatchPrediction)


def test_kinds_of_work_have_queues_of_their_own(engine: Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        job = submitted(session)
        waiting = {table.__name__ for table in queue.waiting(session, TABLES)}
        assert waiting == {"Run", "BatchPrediction"}
        claimed(session)
        assert queue.waiting(session, TABLES) == [Run]
        attempts = {job.id: 1, run.id: 1}
        beaten = queue.beat(session, "w1", attempts, lease_s=LEASE, now=1.0)
        assert beaten == {job.id: "running"}
        assert queue.expired(session, TABLES, now=LEASE + 2) == [(job.id, 1)]


def test_a_model_that_is_needed_cannot_be_deleted(engine: Engine) -> None:
    version: dict[str, Any] = {"run_id": "run_1", "checkpoint_id": "ckpt_1", "sha256": "0" * 64}
    version |= {"bytes": 1, "signature": {}, "metrics": {}, "config": {}}
    with writing(engine) as session:
        session.add(Model(name="scores", last_version=2))
        session.flush()
        for number in (1, 2):
            place = {"dataset_id": "ds_1", "dataset_version": 1}
            session.add(ModelVersion(model_name="scores", version=number, **version, **place))
        job = submitted(session)
    with pytest.raises(Conflict) as refused, writing(engine) as session:
        versions.unregister(session, "scores", 1)
    assert refused.value.fields["batch_predictions"] == [job.id]
    with pytest.raises(Conflict, match=job.id), writing(engine) as session:
        versions.unregister_model(session, "scores")
    with writing(engine) as session:
        versions.unregister(session, "scores", 2)
        life.cancel(session, BatchPrediction, job.id)
        versions.unregister(session, "scores", 1)
