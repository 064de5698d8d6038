"""Batch predictions: their tables, their order, and the parts of their life beyond `jobs.life`.

The rows are predicted in chunks. A committed chunk stays, and later attempts continue after it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Index, String, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from descent.schemas import BatchPredictionRequest, ModelRef
from descent.spec import DatasetRef
from models.failpoints import reach
from service.datasets.rejected import free_name, listed
from service.datasets.versions import Dataset, DatasetVersion, ready_version
from service.errors import Fenced, Invalid, invalid_at
from service.jobs import life, queue
from service.jobs.kind import Job
from service.predict import levels
from service.registry import versions
from service.registry.tables import ModelVersion
from service.storage.columns import BlobDigest, Id, Json, SqlTable, new_id
from service.storage.references import HeldBlob

PARQUET = "application/vnd.apache.parquet"

Body = dict[str, Any]


class BatchPrediction(Job, SqlTable):
    """Predictions of a model version for all rows of a dataset version, which become a dataset."""

    prefix = "batch"
    noun = "batch prediction"
    plural = "batch_predictions"
    reads = frozenset({"dataset_id", "model_name", "model_version"})

    __tablename__ = "batch_predictions"
    __table_args__ = (
        Index("ix_batch_predictions_queue", "state", "queued_at", "id"),
        # One for the list of all batch predictions, and one for each of its filters.
        Index("ix_batch_predictions_newest", "created_at", "id"),
        Index("ix_batch_predictions_state", "state", "created_at", "id"),
        Index("ix_batch_predictions_dataset", "dataset_id", "created_at", "id"),
        Index("ix_batch_predictions_model", "model_name", "created_at", "id"),
    )

    #: the name of the new dataset
    name: Mapped[str]
    #: warn or error
    on_problem: Mapped[str] = mapped_column(String(8))
    #: no foreign key: dataset and model may be deleted once the job has ended
    dataset_id: Mapped[str] = mapped_column(Id)
    dataset_version: Mapped[int]
    model_name: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[int]
    #: the requested alias, which pointed to that version
    alias: Mapped[str | None] = mapped_column(String(128))
    #: the columns of the result that the dataset does not have: name, content, type
    added: Mapped[list[Any]]
    #: columns of the dataset that the model does not read
    ignored: Mapped[list[Any]]
    #: errors, and warnings by code, in the finished rows
    counts: Mapped[Json]
    #: the new dataset
    result_id: Mapped[str | None] = mapped_column(Id)


class BatchChunk(SqlTable):
    """A finished part of the rows, whose new columns are a blob."""

    __tablename__ = "batch_chunks"

    batch_id: Mapped[str] = mapped_column(
        Id, ForeignKey("batch_predictions.id", ondelete="CASCADE"), primary_key=True
    )
    #: 1..n
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    rows: Mapped[int]
    #: errors, and warnings by code
    counts: Mapped[Json]
    sha256: Mapped[str] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int]


@dataclass(frozen=True)
class BatchOrder:
    """A checked request: rows of a dataset version, predicted by a version of a model."""

    name: str
    on_problem: str
    dataset: DatasetVersion
    model: str
    version: int
    alias: str | None
    #: the columns of the result that the dataset does not have
    added: list[Body]
    #: the columns of the dataset that the model does not read
    ignored: list[str]


@dataclass(frozen=True)
class Chunk:
    """Finished rows: the number of the chunk, from 1, and its counts."""

    number: int
    rows: int
    counts: Body


def submit(session: Session, order: BatchOrder) -> BatchPrediction:
    """Store the job as queued."""
    job = BatchPrediction(
        id=new_id("batch"),
        name=order.name,
        on_problem=order.on_problem,
        dataset_id=order.dataset.dataset_id,
        dataset_version=order.dataset.version,
        model_name=order.model,
        model_version=order.version,
        alias=order.alias,
        added=order.added,
        ignored=order.ignored,
        counts=total([]),
        progress=_progress(0, order.dataset.rows),
    )
    return life.enqueue(session, job)


def chunks_of(session: Session, job_id: str) -> Sequence[BatchChunk]:
    """Return the finished chunks, in order."""
    return session.scalars(
        select(BatchChunk).where(BatchChunk.batch_id == job_id).order_by(BatchChunk.number)
    ).all()


def add_chunk(session: Session, job_id: str, attempt: int, chunk: Chunk, held: HeldBlob) -> None:
    """Add a chunk whose bytes are stored; a chunk that exists already stays as it is."""
    job = queue.hold(session, BatchPrediction, job_id, attempt)
    last = select(func.max(BatchChunk.number)).where(BatchChunk.batch_id == job_id)
    done = session.scalar(last) or 0
    if chunk.number > done + 1:
        raise Fenced(f"chunk {chunk.number} of {job_id}, but the last one is {done}")
    if chunk.number == done + 1:
        session.add(
            BatchChunk(
                batch_id=job_id,
                number=chunk.number,
                attempt=attempt,
                rows=chunk.rows,
                counts=chunk.counts,
                sha256=held.sha256,
                bytes=held.bytes,
            )
        )
        session.flush()
        rows = (job.progress or {}).get("rows", 0)
        values = _values(chunks_of(session, job_id), rows) | {"crash_streak": 0}
        session.execute(update(BatchPrediction).where(BatchPrediction.id == job_id).values(values))


def drop_chunks(session: Session, job_id: str, attempt: int, first: int) -> None:
    """Delete the chunks from number `first` on, because the bytes of that chunk are damaged."""
    job = queue.hold(session, BatchPrediction, job_id, attempt)
    session.execute(
        delete(BatchChunk).where(BatchChunk.batch_id == job_id, BatchChunk.number >= first)
    )
    rows = (job.progress or {}).get("rows", 0)
    values = _values(chunks_of(session, job_id), rows)
    session.execute(update(BatchPrediction).where(BatchPrediction.id == job_id).values(values))


def succeed(
    session: Session, job_id: str, attempt: int, profiles: list[Body], held: HeldBlob
) -> None:
    """Make the stored result a dataset and end the job; the chunks are no longer needed."""
    job = queue.hold(session, BatchPrediction, job_id, attempt)
    source = session.get_one(DatasetVersion, (job.dataset_id, job.dataset_version))
    columns = [*source.columns, *profiles]
    made = Dataset(
        id=new_id("ds"),
        name=job.name,
        state="ready",
        media_type=PARQUET,
        sha256=held.sha256,
        bytes=held.bytes,
        version=1,
    )
    session.add(made)
    session.flush()
    session.add(
        DatasetVersion(
            dataset_id=made.id,
            version=1,
            # The types of the file stay, even if an upload would get others.
            options={"types": {column["name"]: column["type"] for column in columns}},
            rows=source.rows,
            columns=columns,
            warnings=[],
            table_sha256=held.sha256,
        )
    )
    reach("batch.succeed.made")
    values = _values(chunks_of(session, job_id), source.rows)
    session.execute(delete(BatchChunk).where(BatchChunk.batch_id == job_id))
    life.succeed(session, job_id, attempt, values | {"result_id": made.id})


def total(counts: Sequence[Body]) -> Body:
    """Return the sum of the counts of chunks."""
    warnings: Counter[str] = Counter()
    for each in counts:
        warnings.update(each["warnings"])
    errors = sum(each["errors"] for each in counts)
    return {"errors": errors, "warnings": dict(sorted(warnings.items()))}


def _values(chunks: Sequence[BatchChunk], rows: int) -> Body:
    done = sum(chunk.rows for chunk in chunks)
    counts = total([chunk.counts for chunk in chunks])
    return {"progress": _progress(done, rows), "counts": counts}


def _progress(done: int, rows: int) -> Body:
    return {"done": done, "rows": rows, "fraction": done / rows if rows else 1.0}


def make_order(session: Session, asked: BatchPredictionRequest, most_columns: int) -> BatchOrder:
    """Check a request; raise NotFound, Conflict or Invalid if it cannot be carried out.

    Model and dataset are locked until the transaction ends, so that they exist when the job does.
    """
    model = asked.model if isinstance(asked.model, ModelRef) else ModelRef(name=asked.model)
    versions.find_model(session, model.name, lock=True)
    version = versions.find_version(session, model.name, _number(session, model))
    wanted = asked.dataset
    wanted = wanted if isinstance(wanted, DatasetRef) else DatasetRef(id=wanted)
    dataset = ready_version(session, wanted.id, wanted.version)
    name = session.get_one(Dataset, wanted.id).name
    return BatchOrder(
        name=asked.name or f"{name} predicted by {model.name} {version.version}",
        on_problem=asked.on_problem,
        dataset=dataset,
        model=model.name,
        version=version.version,
        alias=model.alias,
        ignored=ignored(version, dataset),
        added=added(version, dataset, most_columns, asked.interval),
    )


def _number(session: Session, model: ModelRef) -> int:
    if model.version is not None:
        return model.version
    if model.alias is not None:
        return versions.find_alias(session, model.name, model.alias).version
    number: int = versions.target_of_model(session, model.name).named["version"]
    return number


def added(
    model: ModelVersion, dataset: DatasetVersion, most: int, level: float | None = None
) -> list[Body]:
    """Return the new columns, with names that no column of the dataset has.

    With a level also those of intervals or sets; raises `levels.NotCalibrated` and
    `levels.LevelTooHigh`.
    """
    if level is not None:
        known = model.metrics.get("calibration") or {}
        most_level = 1.0 if known.get("method") == "exact" else known.get("most_level")
        levels.check(level, most_level)
    taken = {column["name"] for column in dataset.columns}
    found = []
    for column in _wanted(model, level):
        column["name"] = free_name(column["name"], taken)
        taken.add(column["name"])
        found.append(column)
    if len(taken) > most:
        detail = (
            f"The result would have {len(taken)} columns, more than {most}: raise"
            " DESCENT_MAX_COLUMNS, or predict for a dataset with fewer."
        )
        raise Invalid(detail, code="too_many_columns")
    return found


def ignored(model: ModelVersion, dataset: DatasetVersion) -> list[str]:
    """Return the columns that the model does not read; raise Invalid if it reads none."""
    inputs = {column["name"] for column in model.signature["inputs"]}
    names = [column["name"] for column in dataset.columns]
    rest = [name for name in names if name not in inputs]
    if len(rest) == len(names):
        detail = (
            f"The dataset has no column that the model reads, which are {listed(sorted(inputs))}."
        )
        raise invalid_at("/dataset", "no_inputs", detail)
    return rest


def _wanted(model: ModelVersion, level: float | None) -> Iterator[Body]:
    why = f"predicted by version {model.version} of {model.model_name}"
    outputs = model.signature["outputs"]
    for output in outputs:
        name = "prediction" if len(outputs) == 1 else f"prediction.{output['name']}"
        yield {
            "name": name,
            "holds": "prediction",
            "target": output["name"],
            "type": output["type"],
            "why": why,
        }
        if level is not None:
            sure = {"target": output["name"], "level": level, "why": f"{why}, {level:g} sure"}
            if output.get("classes"):
                yield {"name": "set", "holds": "set", "type": "text"} | sure
            else:
                yield {"name": f"{name}_low", "holds": "low", "type": "number"} | sure
                yield {"name": f"{name}_high", "holds": "high", "type": "number"} | sure
        for label in output.get("classes") or []:
            text = ("false", "true")[label] if isinstance(label, bool) else str(label)
            yield {
                "name": f"probability.{text}",
                "holds": "probability",
                "target": output["name"],
                "class": label,
                "type": "number",
                "why": why,
            }
    yield {"name": "warnings", "holds": "warnings", "type": "text", "why": why}
    yield {"name": "error", "holds": "error", "type": "text", "why": why}
