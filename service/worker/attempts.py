"""The processes of this worker and their attempts: scratch folders, messages and deaths.

A process computes one attempt, or several at once. Messages about one attempt that arrive together
are written in one transaction, which the attempt number fences.
"""

import json
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from models.training.interface import StopReason
from service.errors import BlobCorrupt
from service.jobs import life, queue
from service.jobs.kind import Job, Kind, Site, Tenure
from service.jobs.pipe import Began, Failure, FileMessage, Message, Obeyed, StopOrder
from service.settings import Settings
from service.storage import references
from service.storage.blobs import digest_of
from service.storage.database import reading, writing
from service.storage.references import HeldBlob
from service.worker.launch import OUTPUT, Child
from service.worker.machine import Gpu

LAST_WORDS = 2000  # bytes of a dead process's output that its error shows

log = structlog.get_logger("worker")


@dataclass
class Process:
    """The process of one attempt or several, until it has ended."""

    kind: Kind[Any]
    child: Child
    #: the folder of its input and its output, which is that of its first attempt
    scratch: Path
    #: job → its attempt, until the end of the attempt is written
    attempts: "dict[str, Attempt]" = field(default_factory=dict)
    #: the jobs that it began with
    job_ids: tuple[str, ...] = ()
    #: the GPU that it holds until it ends, if any
    gpu: Gpu | None = None
    #: whether it has closed its end of the pipe
    has_ended: bool = False
    #: whether its exit status is known, and the status
    is_reaped: bool = False
    code: int | None = None
    #: when it is killed, if it has not ended by then
    kill_at: float | None = None
    #: the reason why its further messages are ignored
    fault: str | None = None
    #: seconds without a message, and the limit if it was killed for exceeding it
    silent_s: float = 0.0
    stalled_s: float | None = None
    #: the count of `life.memory_kills` when it began
    memory_kills: int = field(default_factory=life.memory_kills)

    def begin(self, tenure: Tenure, scratch: Path) -> None:
        """Add an attempt that it begins with."""
        self.attempts[tenure.job_id] = Attempt(self, tenure, scratch)
        self.job_ids += (tenure.job_id,)

    def wait(self) -> int | None:
        """Wait for its end and return the exit status; None if the status is unknown."""
        if not self.is_reaped:
            self.code, self.is_reaped = self.child.exit_code(), True
        return self.code

    def attempt_of(self, message: Message) -> "Attempt | None":
        """Return the attempt that a message is about; None if its end is written."""
        return self.attempts.get(message.job_id or self.job_ids[0])

    def order_stop(self, attempt: "Attempt", reason: StopReason) -> None:
        """Order it to end one attempt."""
        is_only = len(self.job_ids) == 1
        job_id = None if is_only else attempt.tenure.job_id
        self.child.send(StopOrder(reason=reason, job_id=job_id))


@dataclass
class Attempt:
    """One attempt of a job on this worker."""

    process: Process
    tenure: Tenure
    scratch: Path
    inbox: deque[Message] = field(default_factory=deque)
    #: a thread that writes the first messages of the inbox, while it stores their files
    storing: Future[None] | None = None
    #: the type of the message that is written, or was written last
    writes: str = ""
    #: when the first message may be tried again
    retry_at: float = 0.0
    #: the reason of the order to stop, and when the process is killed if it does not obey
    stop_reason: str | None = None
    kill_at: float | None = None
    #: whether the end of the attempt is written
    is_settled: bool = False


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


def write(site: Site, attempt: Attempt, messages: Sequence[Message]) -> None:
    """Write the first messages of the inbox in order; they leave it once they are committed.

    One transaction writes the messages before a file and pins the file. The file is stored after
    it, and the message about the file begins the next transaction. Raises Fenced if the job has
    another owner.
    """
    held: HeldBlob | None = None
    try:
        for group, file in _parted(messages):
            held = _commit(site, attempt, group, held, file)
            if file is not None and held is not None:
                reach("blob.pinned")
                site.blobs.put(file.path, held.sha256)
                reach("blob.stored")
    except BaseException as error:
        if held is not None:
            references.unpin(site.engine, held)
        if not isinstance(error, BlobCorrupt):  # the file has other bytes than the process wrote
            raise
        with writing(site.engine) as session:
            life.crashed(session, attempt.tenure.job_id, attempt.tenure.attempt, str(error))
        attempt.is_settled = True
        attempt.process.child.kill()


def _parted(
    messages: Sequence[Message],
) -> Iterator[tuple[Sequence[Message], FileMessage | None]]:
    """Yield the messages up to each file and that file, whose message begins the next part."""
    part: list[Message] = []
    for message in messages:
        if isinstance(message, FileMessage):
            yield part, message
            part = []
        part.append(message)
    yield part, None


def _commit(
    site: Site,
    attempt: Attempt,
    messages: Sequence[Message],
    held: HeldBlob | None,
    file: FileMessage | None,
) -> HeldBlob | None:
    """Write messages, of which the first may be about the file `held`, and pin the next file."""
    measured = None if file is None else _measured(attempt, file)
    points = [f"{attempt.process.kind.table.prefix}.{message.type}" for message in messages]
    for point in points:
        reach(point)
    with writing(site.engine) as session:
        for message, point in zip(messages, points, strict=True):
            _write_one(session, attempt, message, held)
            reach(f"{point}.written")
        pinned = None if measured is None else references.pin(session, *measured)
    for message, point in zip(messages, points, strict=True):
        attempt.inbox.popleft()
        reach(f"{point}.committed")
        if isinstance(message, FileMessage):
            message.path.unlink(missing_ok=True)
        if message.is_last:
            attempt.is_settled = True
            job_id, number = attempt.tenure.job_id, attempt.tenure.attempt
            log.info("attempt ended", job_id=job_id, attempt=number, how=message.type)
    return pinned


def _measured(attempt: Attempt, file: FileMessage) -> tuple[str, int]:
    """Return the digest and the size of a file."""
    # A malicious file may control its process, which must not publish other files.
    if not file.path.resolve().is_relative_to(attempt.scratch.resolve()):
        raise BlobCorrupt("The process named a file outside its folder.")
    return (file.sha256, file.path.stat().st_size) if file.sha256 else digest_of(file.path)


def _write_one(session: Session, attempt: Attempt, message: Message, held: HeldBlob | None) -> None:
    attempt.writes = message.type
    if type(message) in {Began, Obeyed, Failure}:
        _write_common(session, attempt.tenure, message)
    elif isinstance(message, FileMessage) and held is not None:
        attempt.process.kind.write(session, attempt.tenure, message, held)
        references.keep(session, held)
    else:
        attempt.process.kind.write(session, attempt.tenure, message, None)


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


def write_death(site: Site, attempt: Attempt, code: int | None) -> None:
    """Record that the process ended without a last message."""
    job_id, number = attempt.tenure.job_id, attempt.tenure.attempt
    death = _explain(attempt.process, code)
    log.warning("process died", job_id=job_id, exit_code=code, last_words=death.words)
    with writing(site.engine) as session:
        if attempt.stop_reason:  # killed because it did not obey in time
            life.stopped(session, job_id, number)
        else:
            life.crashed(session, job_id, number, death.words, code=death.code)


def _explain(process: Process, code: int | None) -> life.Death:
    if process.fault is not None:
        return life.Death(code="worker_lost", words=process.fault)
    return life.explain(
        code,
        _last_words(process.scratch / OUTPUT),
        stalled_s=process.stalled_s,
        memory_kills=life.memory_kills() - process.memory_kills,
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
