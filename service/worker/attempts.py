"""An attempt of a job on this worker, and how the death of its process is written."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from service.jobs import deaths, life
from service.jobs.kind import Kind, Tenure
from service.jobs.messages import Message
from service.storage.database import writing
from service.worker.launch import Child

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
    #: until when the first message is not tried again
    retry_at: float = 0.0
    #: why the process was ordered to stop, and when it is killed if it does not
    stop_reason: str | None = None
    kill_at: float | None = None
    #: whether its end is written, so that the end of the process means nothing more
    is_settled: bool = False
    has_ended: bool = False
    #: seconds without a message, and after how many of them it is killed
    silent_s: float = 0.0
    stalled_s: float | None = None
    #: how often the kernel had killed for want of memory when this began
    memory_kills: int = field(default_factory=deaths.memory_kills)


def write_death(engine: Engine, attempt: Attempt, code: int | None) -> None:
    """Write that the process ended without a last message."""
    words = _last_words(attempt.scratch / "output.log")
    job_id, number = attempt.tenure.job_id, attempt.tenure.attempt
    log.warning("process died", job_id=job_id, exit_code=code, last_words=words)
    with writing(engine) as session:
        if attempt.stop_reason:  # killed because it did not obey in time
            life.stopped(session, job_id, number)
        else:
            death = deaths.explain(
                code,
                words,
                stalled_s=attempt.stalled_s,
                memory_kills=deaths.memory_kills() - attempt.memory_kills,
            )
            life.crashed(session, job_id, number, death.words, code=death.code)


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()
