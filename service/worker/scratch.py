"""The scratch folders of attempts: one for each, removed with it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from service.jobs import queue
from service.jobs.tables import Job
from service.settings import Settings
from service.storage.database import reading


def make_scratch(settings: Settings, job: Job) -> Path:
    """Make the folder that this attempt alone writes in."""
    scratch = settings.scratch_dir / f"{job.id}.{job.attempt}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    return scratch


def clear_scratch(
    engine: Engine, settings: Settings, tables: Sequence[type[Job]], own: set[Path]
) -> None:
    """Remove the folders of attempts that are over, because their supervisor died."""
    left = {f for table in tables for f in settings.scratch_dir.glob(f"{table.prefix}_*.*")}
    for folder in left - own:
        job_id, _, number = folder.name.rpartition(".")
        with reading(engine) as session:
            is_over = not queue.states(session, {job_id: int(number)})
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)
