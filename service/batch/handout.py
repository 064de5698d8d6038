"""What the process of a batch prediction is given: the table, the model, and what is done."""

from collections.abc import Sequence
from pathlib import Path

import structlog
from sqlalchemy import Engine

from service.batch import lifecycle
from service.blobs import BlobStore
from service.database import reading, writing
from service.datasets.sandbox import Limits, memory_for_queries
from service.datasets.versions import ready_version
from service.errors import BlobCorrupt
from service.inference import registry
from service.jobs.handout import ModelDamaged
from service.jobs.pipe import Message
from service.jobs.tables import BatchChunk, BatchPrediction
from service.settings import Settings

log = structlog.get_logger("worker")


def make_job(
    engine: Engine, blobs: BlobStore, settings: Settings, job: BatchPrediction, scratch: Path
) -> Message:
    """Return the job, with all that its process reads as local files."""
    with reading(engine) as session:
        version = ready_version(session, job.dataset_id, job.dataset_version)
        target = registry.target_of_version(session, job.model_name, job.model_version)
        chunks = lifecycle.chunks_of(session, job.id)
    try:
        model = blobs.fetch(target.sha256, scratch)
    except BlobCorrupt as error:
        log.error("checkpoint_corrupt", job_id=job.id, reason=str(error))  # noqa: TRY400  told by its reason
        raise ModelDamaged from error
    limits = Limits(settings.parse_memory_bytes, settings.parse_timeout_s)
    return {
        "work": "batch",
        "run_id": job.id,
        "attempt": job.attempt,
        "table": str(blobs.fetch(version.table_sha256, scratch)),
        "types": {column["name"]: column["type"] for column in version.columns},
        "rows": version.rows,
        "model": str(model),
        "on_problem": job.on_problem,
        "added": job.added,
        "done": [str(path) for path in _fetch_chunks(engine, blobs, job, chunks, scratch)],
        "memory_bytes": memory_for_queries(limits),
        "scratch": str(scratch),
    }


def _fetch_chunks(
    engine: Engine,
    blobs: BlobStore,
    job: BatchPrediction,
    chunks: Sequence[BatchChunk],
    scratch: Path,
) -> list[Path]:
    """Return the chunks up to the first that is damaged, as files; those behind it go too."""
    found = []
    for chunk in chunks:
        try:
            found.append(blobs.fetch(chunk.sha256, scratch))
        except BlobCorrupt as error:
            log.error("chunk_corrupt", job_id=job.id, reason=str(error))  # noqa: TRY400  told by its reason
            with writing(engine) as session:
                lifecycle.drop_chunks(session, job.id, job.attempt, chunk.number)
            break
    return found
