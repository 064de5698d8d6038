"""The life of a batch prediction: what it has beside that of every job (`jobs.life`).

Its rows are done in chunks; each that is committed is done for good, whoever goes on after it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.batch.tables import BatchChunk, BatchPrediction
from service.datasets.tables import Dataset, DatasetVersion
from service.errors import Fenced
from service.ids import new_id
from service.jobs import life, queue
from service.storage.references import Stored

PARQUET = "application/vnd.apache.parquet"

Body = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What is to be predicted: rows of a dataset version, by a version of a model."""

    name: str
    on_problem: str
    dataset: DatasetVersion
    model: str
    version: int
    alias: str | None
    #: the columns that the result will have beside those of the dataset
    added: list[Body]
    #: the columns of the dataset that the model does not read
    ignored: list[str]


@dataclass(frozen=True)
class Chunk:
    """Rows that are done: their number in the order of chunks, from 1, and what was counted."""

    number: int
    rows: int
    counts: Body


def submit(session: Session, order: Order) -> BatchPrediction:
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
    """Return the chunks that are done, in order."""
    return session.scalars(
        select(BatchChunk).where(BatchChunk.batch_id == job_id).order_by(BatchChunk.number)
    ).all()


def add_chunk(session: Session, job_id: str, attempt: int, chunk: Chunk, held: Stored) -> None:
    """Add a chunk whose bytes are stored; one that was added already is left as it is."""
    job = queue.hold(session, BatchPrediction, job_id, attempt)
    last = select(func.max(BatchChunk.number)).where(BatchChunk.batch_id == job_id)
    done = session.scalar(last) or 0
    if chunk.number > done + 1:
        raise Fenced(f"chunk {chunk.number} of {job_id}, but only {done} are there")
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
    """Give up the chunks from number `first` on, because the bytes of that one are damaged."""
    job = queue.hold(session, BatchPrediction, job_id, attempt)
    session.execute(
        delete(BatchChunk).where(BatchChunk.batch_id == job_id, BatchChunk.number >= first)
    )
    rows = (job.progress or {}).get("rows", 0)
    values = _values(chunks_of(session, job_id), rows)
    session.execute(update(BatchPrediction).where(BatchPrediction.id == job_id).values(values))


def succeed(
    session: Session, job_id: str, attempt: int, profiles: list[Body], held: Stored
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
            # The types are those of the file, however it would be read as an upload.
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
    """Return the sum of what the chunks counted."""
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
