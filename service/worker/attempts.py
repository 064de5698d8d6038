"""An attempt of a job on this worker, and its scratch folder."""

import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from service.jobs import deaths, queue
from service.jobs.kind import Kind, Tenure
from service.jobs.messages import Message
from service.jobs.tables import Job
from service.settings import Settings
from service.storage.database import reading
from service.worker.devices import Gpu
from service.worker.launch import Child


@dataclass
class Attempt:
    """One attempt of a job on this worker."""

    kind: Kind[Any]
    tenure: Tenure
    child: Child
    scratch: Path
    inbox: deque[Message] = field(default_factory=deque)
    #: the first message of the inbox, while a thread stores its file
    storing: Future[None] | None = None
    #: until when the first message is not tried again
    retry_at: float = 0.0
    #: why the process was ordered to stop, and when it is killed if it does not
    stop_reason: str | None = None
    kill_at: float | None = None
    #: the GPU that it holds until it ends, if it has one
    gpu: Gpu | None = None
    #: whether its end is written, so that the end of the process means nothing more
    is_settled: bool = False
    has_ended: bool = False
    #: why nothing that the process still sends is used
    fault: str | None = None
    #: seconds without a message, and the number of them after which it was killed
    silent_s: float = 0.0
    stalled_s: float | None = None
    #: how often the kernel had killed for want of memory when this began
    memory_kills: int = field(default_factory=deaths.memory_kills)


def make_scratch(settings: Settings, job: Job) -> Path:
    """Make the folder that this attempt alone writes in."""
    scratch = settings.scratch_dir / f"{job.id}.{job.attempt}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    return scratch


def clear_scratch(
    engine: Engine, settings: Settings, tables: Sequence[type[Job]], own: set[Path]
) -> None:
    """Remove the folders of attempts that are over, which supervisors that died have left."""
    left = {f for table in tables for f in settings.scratch_dir.glob(f"{table.prefix}_*.*")}
    for folder in left - own:
        job_id, _, number = folder.name.rpartition(".")
        with reading(engine) as session:
            is_over = not queue.states(session, {job_id: int(number)})
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)
