"""What the process of a proof is given: the model, and the rows to prove it by."""

from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from service.blobs import BlobStore
from service.database import reading
from service.datasets.versions import ready_version
from service.errors import BlobCorrupt, Conflict, Invalid, NotFound
from service.inference import registry
from service.inference.lineage import training_of
from service.jobs.handout import ModelDamaged
from service.jobs.pipe import Message
from service.jobs.tables import Proof
from service.settings import Settings
from service.tables import DatasetVersion, ModelVersion

log = structlog.get_logger("worker")


def make_job(
    engine: Engine, blobs: BlobStore, _settings: Settings, job: Proof, scratch: Path
) -> Message:
    """Return the job, with all that its process reads as local files."""
    with reading(engine) as session:
        version = registry.find_version(session, job.model_name, job.model_version)
        training = training_of(session, version)
    try:
        model = blobs.fetch(version.sha256, scratch)
    except BlobCorrupt as error:
        log.error("checkpoint_corrupt", job_id=job.id, reason=str(error))  # noqa: TRY400  told by its reason
        raise ModelDamaged from error
    return {
        "work": "proof",
        "run_id": job.id,
        "attempt": job.attempt,
        "model": str(model),
        "config": version.config,
        "training": training,
        "table": _table(engine, blobs, version, scratch),
        "scratch": str(scratch),
    }


def _table(
    engine: Engine, blobs: BlobStore, version: ModelVersion, scratch: Path
) -> dict[str, Any] | None:
    """Return the table that the version was trained on, or None where it is not to be had.

    Golden rows take its place then: nobody has to keep a dataset for a proof.
    """
    if version.dataset_id is None:
        return None
    try:
        with reading(engine) as session:
            found: DatasetVersion = ready_version(
                session, version.dataset_id, version.dataset_version
            )
        path = blobs.fetch(found.table_sha256, scratch)
    except (NotFound, Conflict, Invalid, BlobCorrupt) as error:
        log.warning("proof by golden rows", model=version.model_name, reason=str(error))
        return None
    return {
        "path": str(path),
        "types": {column["name"]: column["type"] for column in found.columns},
    }
