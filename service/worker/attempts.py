"""An attempt of a job on this worker: its scratch folder, its messages and its death.

Each message is written in one transaction, which the attempt number fences.
"""

import json
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.errors import BlobCorrupt
from service.jobs import life, queue
from service.jobs.kind import Job, Kind, Site, Tenure
from service.jobs.pipe import Began, Failure, FileMessage, Heartbeat, Message, Obeyed
from service.settings import Settings
from service.storage import references
from service.storage.database import reading, writing
from service.worker.launch import OUTPUT, Child
from service.worker.machine import Gpu

LAST_WORDS = 2000  # bytes of a dead process's output that its error shows

log = structlog.get_logger("worker")


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
    #: when the first message may be tried again
    retry_at: float = 0.0
    #: the reason of the order to stop, and when the process is killed if it does not obey
    stop_reason: str | None = None
    kill_at: float | None = None
    #: the GPU that the attempt holds until it ends, if any
    gpu: Gpu | None = None
    #: whether the end of the attempt is written, so that the process may end
    is_settled: bool = False
    has_ended: bool = False
    #: the reason why further messages of the process are ignored
    fault: str | None = None
    #: seconds without a message, and the limit if the process was killed for exceeding it
    silent_s: float = 0.0
    stalled_s: float | None = None
    #: the count of `life.memory_kills` when the attempt began
    memory_kills: int = field(default_factory=life.memory_kills)


def make_scratch(settings: Settings, job: Job) -> Path:
    """Make the folder in which only this attempt writes."""
    scratch = settings.scratch_dir / f"{job.id}.{job.attempt}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    return scratch


def clear_scratch(
    engine: Engine, settings: Settings, tables: Sequence[type[Job]], own: set[Path]
) -> None:
    """Remove the folders of ended attempts that dead supervisors left behind."""
    left = {f for table in tables for f in settings.scratch_dir.glob(f"{table.prefix}_*.*")}
    for folder in left - own:
        job_id, _, number = folder.name.rpartition(".")
        with reading(engine) as session:
            is_over = not queue.states(session, {job_id: int(number)})
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)


# ---- writing messages and deaths ----------------------------------------------------------------


def write(site: Site, attempt: Attempt, message: Message) -> None:
    """Write a message; raise Fenced if the job has another owner."""
    if type(message) is Heartbeat:
        return
    point = f"{attempt.kind.table.prefix}.{message.type}"
    reach(point)
    if isinstance(message, FileMessage):
        if not _store(site, attempt, message, point):
            return
    else:
        reach(f"{point}.begin")
        with writing(site.engine) as session:
            if type(message) in {Began, Obeyed, Failure}:
                _write_common(session, attempt.tenure, message)
            else:
                attempt.kind.write(session, attempt.tenure, message, None)
            reach(f"{point}.written")
    reach(f"{point}.committed")
    if message.is_last:
        attempt.is_settled = True
        tenure = attempt.tenure
        log.info("attempt ended", job_id=tenure.job_id, attempt=tenure.attempt, how=message.type)


def _write_common(session: Session, tenure: Tenure, message: Message) -> None:
    job_id, number = tenure.job_id, tenure.attempt
    match message:
        case Began():
            life.started(session, job_id, number, {})
        case Obeyed():
            life.stopped(session, job_id, number)
        case Failure():
            problem = life.problem(message.code, message.detail, where=message.where)
            life.fail(session, job_id, number, problem)


def _store(site: Site, attempt: Attempt, message: FileMessage, point: str) -> bool:
    """Store the file, then make it visible in one transaction; return whether it was intact."""
    tenure = attempt.tenure
    try:
        # A malicious file may control its process, which must not publish other files.
        if not message.path.resolve().is_relative_to(attempt.scratch.resolve()):
            raise BlobCorrupt("The process named a file outside its folder.")  # noqa: TRY301
        with (
            references.stored(site.engine, site.blobs, message.path, message.sha256) as held,
            writing(site.engine) as session,
        ):
            reach(f"{point}.begin")
            attempt.kind.write(session, tenure, message, held)
            references.keep(session, held)
            reach(f"{point}.written")
    except BlobCorrupt as error:  # the file has other bytes than the process wrote
        with writing(site.engine) as session:
            life.crashed(session, tenure.job_id, tenure.attempt, str(error))
        attempt.is_settled = True
        attempt.child.kill()
        return False
    message.path.unlink(missing_ok=True)
    return True


def write_death(site: Site, attempt: Attempt, code: int | None) -> None:
    """Record that the process ended without a last message."""
    job_id, number = attempt.tenure.job_id, attempt.tenure.attempt
    death = _explain(attempt, code)
    log.warning("process died", job_id=job_id, exit_code=code, last_words=death.words)
    with writing(site.engine) as session:
        if attempt.stop_reason:  # killed because it did not obey in time
            life.stopped(session, job_id, number)
        else:
            life.crashed(session, job_id, number, death.words, code=death.code)


def _explain(attempt: Attempt, code: int | None) -> life.Death:
    if attempt.fault is not None:
        return life.Death(code="worker_lost", words=attempt.fault)
    return life.explain(
        code,
        _last_words(attempt.scratch / OUTPUT),
        stalled_s=attempt.stalled_s,
        memory_kills=life.memory_kills() - attempt.memory_kills,
    )


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()


def describe(line: bytes, error: ValidationError) -> str:
    """Return a sentence about a message that is not valid, with its type if it has one."""
    try:
        name = json.loads(line)["type"]
    except (ValueError, TypeError, KeyError):
        name = None
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    sent = f"a message {name!r}" if isinstance(name, str) else "a line"
    return f"it sent {sent} that is not valid{f' at {place}' if place else ''}: {first['msg']}"
