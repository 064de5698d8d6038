"""Rows that tests need before they can begin: a ready dataset and runs on it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from service.datasets.versions import Dataset, DatasetVersion
from service.jobs import life
from service.registry.tables import ModelVersion
from service.runs import lifecycle, metrics
from service.runs.tables import Checkpoint, Event, Metric, Run
from service.storage.columns import new_id
from service.storage.database import reading

COLUMNS: list[dict[str, Any]] = [
    {"name": "Quiz", "type": "number", "role": "feature", "missing": 0, "distinct": 13},
    {"name": "Final", "type": "number", "role": "feature", "missing": 0, "distinct": 13},
]


def add_dataset(session: Session, columns: list[dict[str, Any]] | None = None) -> str:
    dataset_id = new_id("ds")
    session.add(
        Dataset(
            id=dataset_id,
            name="scores",
            state="ready",
            media_type="text/csv",
            sha256="0" * 64,
            bytes=120,
            version=1,
        )
    )
    session.flush()
    session.add(
        DatasetVersion(
            dataset_id=dataset_id,
            version=1,
            options={},
            rows=13,
            columns=columns or COLUMNS,
            warnings=[],
            table_sha256="0" * 64,
        )
    )
    session.flush()
    return dataset_id


def add_run(session: Session, dataset_id: str | None = None, **config: Any) -> Run:
    dataset_id = dataset_id or add_dataset(session)
    submission = lifecycle.Submission(
        config={"dataset": dataset_id, "target": "Final"} | config,
        dataset_id=dataset_id,
        dataset_version=1,
        warnings=[],
    )
    return lifecycle.submit(session, submission)


def metric_rows(first: int, last: int, value: float = 1.0) -> list[dict[str, Any]]:
    return [
        {
            "seq": seq,
            "epoch": seq,
            "step": seq * 11,
            "split": "train",
            "name": "loss",
            "value": value,
            "at_s": seq / 100,
        }
        for seq in range(first, last + 1)
    ]


def checkpoint_row(run_id: str, attempt: int, seq: int, **stored: Any) -> Checkpoint:
    """Return a checkpoint that covers the rows up to `seq`."""
    place = {"epoch": seq, "step": seq, "metric_seq": seq, "metrics": {}}
    return Checkpoint(id=new_id("ckpt"), run_id=run_id, attempt=attempt, **place, **stored)


def checkpoint_at(run: Run, seq: int, *, is_best: bool = False) -> Checkpoint:
    """Return a checkpoint of the run's attempt without stored bytes."""
    stored = {"sha256": str(seq % 10) * 64, "bytes": 10, "is_best": is_best}
    return checkpoint_row(run.id, run.attempt, seq, **stored)


def everything_of(engine: Engine, run_id: str) -> list[list[str]]:
    """Return all rows of a run in all tables, to compare with them later."""
    keys = {
        Run: Run.id,
        Metric: Metric.run_id,
        Event: Event.job_id,
        Checkpoint: Checkpoint.run_id,
        ModelVersion: ModelVersion.run_id,
    }
    with reading(engine) as session:
        return [
            sorted(map(str, session.execute(select(*table.__table__.c).where(key == run_id))))
            for table, key in keys.items()
        ]


def all_writes(
    run_id: str, attempt: int, seq: int, checkpoint: Checkpoint
) -> list[Callable[[Session], object]]:
    """Return one call of every function with which an attempt writes."""
    problem = life.problem("diverged", "It diverged.")
    return [
        lambda s: lifecycle.started(s, run_id, attempt, {"device": "cpu"}),
        lambda s: metrics.append(s, run_id, attempt, metric_rows(seq, seq), {}),
        lambda s: lifecycle.add_checkpoint(s, run_id, attempt, checkpoint, is_resumable=True),
        lambda s: lifecycle.log(s, run_id, attempt, "late"),
        lambda s: lifecycle.succeed(s, run_id, attempt, {}),
        lambda s: lifecycle.fail(s, run_id, attempt, problem),
        lambda s: lifecycle.stopped(s, run_id, attempt),
        lambda s: lifecycle.crashed(s, run_id, attempt, "gone"),
    ]
