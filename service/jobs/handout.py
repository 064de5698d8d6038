"""What a process is given: its job and the files for it, in a scratch folder of the attempt."""

import shutil
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from service.blobs import BlobStore
from service.database import reading, writing
from service.datasets.versions import ready_version
from service.errors import BlobCorrupt, Conflict
from service.jobs import deaths, queue
from service.jobs.pipe import Message
from service.runs import lifecycle
from service.runs.fallback import fall_back
from service.settings import Settings
from service.tables import Checkpoint, Job, Run


class ModelDamaged(Conflict):
    """The stored model is damaged and is not used: predict with another one or train again."""

    code = "checkpoint_corrupt"


log = structlog.get_logger("worker")


def make_scratch(settings: Settings, job: Job) -> Path:
    """Make the folder that this attempt alone writes in."""
    scratch = settings.scratch_dir / f"{job.id}.{job.attempt}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    return scratch


def clear_scratch(engine: Engine, settings: Settings, own: set[Path]) -> None:
    """Remove what attempts that are over have left, because their supervisor died."""
    left = {f for kind in queue.TABLES for f in settings.scratch_dir.glob(f"{kind}_*.*")}
    for folder in left - own:
        job_id, _, number = folder.name.rpartition(".")
        with reading(engine) as session:
            is_over = not queue.states(session, {job_id: int(number)})
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)


def refusal(error: Exception) -> dict[str, Any]:
    """Return the problem object of a job whose files cannot be had."""
    if isinstance(error, ModelDamaged):
        return deaths.problem(error.code, error.detail)
    return deaths.problem("dataset_unavailable", f"{error} Upload the dataset again.")


def make_job(
    engine: Engine, blobs: BlobStore, settings: Settings, run: Run, scratch: Path
) -> Message:
    """Return the job of a claimed run, with its table and its checkpoint as local files.

    Raises what says that the dataset cannot be had; a damaged checkpoint is fallen back from.
    """
    with reading(engine) as session:
        version = ready_version(session, run.dataset_id, run.dataset_version)
        newest = lifecycle.resume_checkpoint(session, run)
    table = blobs.fetch(version.table_sha256, scratch)
    checkpoint, resume = _fetch_checkpoint(engine, blobs, run, newest, scratch)
    job: Message = {
        "work": "run",
        "run_id": run.id,
        "attempt": run.attempt,
        "config": run.config,
        "columns": {column["name"]: column["type"] for column in version.columns},
        "table": str(table),
        "scratch": str(scratch),
        "resume": None,
        "seq": 0,
        # What was lost since the checkpoint counts too: a budget limits what is spent.
        "elapsed_s": (run.progress or {}).get("elapsed_s", 0.0),
        "saving_s": (run.progress or {}).get("saving_s", 0.0),
        "checkpoint_s": settings.checkpoint_s,
    }
    if checkpoint is not None:
        job["resume"] = str(resume)
        job["seq"] = lifecycle.covered_seq(run.id, checkpoint)
    return job


def _fetch_checkpoint(
    engine: Engine, blobs: BlobStore, run: Run, checkpoint: Checkpoint | None, scratch: Path
) -> tuple[Checkpoint | None, Path | None]:
    """Return the newest checkpoint whose bytes are whole, as a file; None if there is none."""
    while checkpoint is not None:
        try:
            return checkpoint, blobs.fetch(checkpoint.sha256, scratch)
        except BlobCorrupt as error:
            log.error("checkpoint_corrupt", run_id=run.id, reason=str(error))  # noqa: TRY400  told by its reason
            with writing(engine) as session:
                checkpoint = fall_back(session, run.id, run.attempt, checkpoint)
    return None, None
