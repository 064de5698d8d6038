"""Rows that tests need before they can begin: a ready dataset and runs on it."""

from typing import Any

from sqlalchemy.orm import Session

from service.ids import new_id
from service.runs import lifecycle
from service.tables import Dataset, DatasetVersion, Run

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
