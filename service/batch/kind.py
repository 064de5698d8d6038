"""Batch predictions as a kind of job: the input of the process, and the writes of its messages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter
from sqlalchemy.orm import Session

from models.reading import Reading
from service.batch import lifecycle
from service.batch.lifecycle import BatchChunk, BatchPrediction
from service.batch.messages import BatchJob, ChunkFile, ResultFile
from service.datasets.originals import MIXED, TEXTS, is_certain, is_spelled_otherwise
from service.datasets.versions import (
    Dataset,
    DatasetVersion,
    fetch_original,
    fetch_table,
    reading_of,
)
from service.errors import BlobCorrupt
from service.jobs import life
from service.jobs.kind import Kind, Site, Tenure
from service.jobs.pipe import Began, Failure, Heartbeat, Obeyed
from service.registry import versions
from service.registry.versions import fetch_model
from service.storage.database import reading, writing
from service.storage.references import HeldBlob

log = structlog.get_logger("worker")

Messages = Annotated[
    Began | ChunkFile | ResultFile | Heartbeat | Obeyed | Failure, Field(discriminator="type")
]


def prepare(site: Site, job: BatchPrediction, scratch: Path) -> BatchJob:
    """Return the input of the process, whose files are local.

    Raises InputUnavailable if the dataset or the model is gone.
    """
    with reading(site.engine) as session:
        model = versions.find_version(session, job.model_name, job.model_version)
        chunks = lifecycle.chunks_of(session, job.id)
        dataset = session.get(Dataset, job.dataset_id)
        is_mixed = dataset is not None and dataset.media_type in MIXED
    version, table = fetch_table(site, job.dataset_id, job.dataset_version, scratch)
    reread = _read_otherwise(model.signature, version, is_mixed=is_mixed)
    return BatchJob(
        run_id=job.id,
        attempt=job.attempt,
        table=table,
        types={column["name"]: column["type"] for column in version.columns},
        rows=version.rows,
        original=fetch_original(site, version, scratch, TEXTS | MIXED) if reread else None,
        reread=reread,
        model=fetch_model(site, model.sha256, scratch),
        on_problem=job.on_problem,
        added=job.added,
        done=_fetch_chunks(site, job, chunks, scratch),
        scratch=scratch,
    )


def _read_otherwise(
    signature: Mapping[str, Any], version: DatasetVersion, *, is_mixed: bool
) -> list[str]:
    """Return the columns of the dataset that the model reads by other marks."""
    readings = reading_of(version).readings()
    types = {column["name"]: column["type"] for column in version.columns}
    named = version.options.get("missing_values")
    found = []
    for column in signature["inputs"]:
        name, wanted = column["name"], column.get("reading")
        if name not in types or not wanted:
            continue
        stored = readings.get(name) or Reading(types[name])
        if is_mixed and is_certain(stored):
            continue
        if is_spelled_otherwise(Reading.from_json(wanted), stored, named):
            found.append(name)
    return found


def _fetch_chunks(
    site: Site, job: BatchPrediction, chunks: Sequence[BatchChunk], scratch: Path
) -> list[Path]:
    """Return the chunks before the first damaged one, as files; drop all others."""
    found = []
    for chunk in chunks:
        try:
            found.append(site.blobs.fetch(chunk.sha256, scratch))
        except BlobCorrupt as error:
            log.error("chunk_corrupt", job_id=job.id, reason=str(error))  # noqa: TRY400  the reason is enough
            with writing(site.engine) as session:
                lifecycle.drop_chunks(session, job.id, job.attempt, chunk.number)
            break
    return found


def write(
    session: Session, tenure: Tenure, message: ChunkFile | ResultFile, held: HeldBlob | None
) -> None:
    """Make a chunk or the result visible; its bytes are stored."""
    if held is None:
        raise TypeError(f"a {message.type} brings a file")
    job_id, attempt = tenure.job_id, tenure.attempt
    if isinstance(message, ChunkFile):
        chunk = lifecycle.Chunk(message.number, message.rows, message.counts)
        lifecycle.add_chunk(session, job_id, attempt, chunk, held)
    else:
        lifecycle.succeed(session, job_id, attempt, message.columns, held)


BATCHES = Kind(
    table=BatchPrediction,
    module="service.batch.predict",
    slots=lambda _settings: 1,
    claim=lambda session, owner, lease_s: life.claim(
        session, BatchPrediction, owner, lease_s=lease_s
    ),
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
)
