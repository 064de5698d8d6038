"""Proofs (export verifications) as a kind of job: the input of the process, and how one ends."""

from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field, TypeAdapter
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.datasets.versions import (
    DatasetUnavailable,
    fetch_original,
    fetch_table,
    reading_of,
)
from service.jobs import life, queue
from service.jobs.kind import Kind, Site, Tenure
from service.jobs.pipe import Failure, Heartbeat, Obeyed
from service.proofs.messages import Compared, ProofJob, StoredTable
from service.registry import versions
from service.registry.tables import ModelVersion, Proof
from service.registry.versions import fetch_model, training_of
from service.storage.database import reading
from service.storage.references import HeldBlob

log = structlog.get_logger("worker")

Messages = Annotated[Compared | Heartbeat | Obeyed | Failure, Field(discriminator="type")]


def prepare(site: Site, proof: Proof, scratch: Path) -> ProofJob:
    """Return the job of a claimed proof, with its inputs as local files.

    Raises InputUnavailable if the model is damaged.
    """
    with reading(site.engine) as session:
        version = versions.find_version(session, proof.model_name, proof.model_version)
        training = training_of(session, version)
    return ProofJob(
        run_id=proof.id,
        attempt=proof.attempt,
        model=fetch_model(site, version.sha256, scratch),
        config=version.config,
        training=training,
        table=_table(site, version, scratch),
        scratch=scratch,
    )


def _table(site: Site, version: ModelVersion, scratch: Path) -> StoredTable | None:
    """Return the table that the version was trained on, or None if it is damaged or deleted.

    The process then compares golden rows, so that no dataset must be kept for a proof.
    """
    if version.dataset_id is None:
        return None
    try:
        found, path = fetch_table(site, version.dataset_id, version.dataset_version, scratch)
    except DatasetUnavailable as error:
        log.warning("verification_by_golden_rows", model=version.model_name, reason=str(error))
        return None
    types = {column["name"]: column["type"] for column in found.columns}
    read = reading_of(found)
    original = fetch_original(site, found, scratch) if read.table else None
    return StoredTable(path=path, types=types, reading=read, original=original)


def write(session: Session, tenure: Tenure, message: Compared, _held: HeldBlob | None) -> None:
    """End a proof with the details of the comparison and, if paths differ, with the failure."""
    proof_id, attempt = tenure.job_id, tenure.attempt
    queue.hold(session, Proof, proof_id, attempt)
    session.execute(update(Proof).where(Proof.id == proof_id).values(details=message.details))
    if message.failure is None:
        life.succeed(session, proof_id, attempt, {})
    else:
        problem = life.problem("proof_failed", message.failure)
        life.fail(session, proof_id, attempt, problem)


PROOFS = Kind(
    table=Proof,
    module="service.proofs.prove",
    slots=lambda _settings: 1,
    claim=lambda session, owner, lease_s: life.claim(session, Proof, owner, lease_s=lease_s),
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
)
