"""What a supervisor knows of a kind of work, and of an attempt of a job; how its death is written.

A supervisor itself knows nothing of what its processes do.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.blobs import BlobStore
from service.database import writing
from service.jobs import deaths, life
from service.jobs.launch import Child
from service.jobs.pipe import Message
from service.settings import Settings
from service.tables import Job

LAST_WORDS = 2000  # bytes of a dead process's output that its error shows

log = structlog.get_logger("worker")


@dataclass(frozen=True)
class Work:
    """A kind of work: how it is claimed and handed out, and what becomes of its messages."""

    table: type[Job]
    #: how many of them one supervisor does at a time
    slots: Callable[[Settings], int]
    #: gives the next job to an owner for some seconds
    claim: Callable[[Session, str, float], Job | None]
    #: makes what the process is told, with its files in the scratch folder
    make_job: Callable[[Engine, BlobStore, Settings, Any, Path], Message]
    #: writes one message in a fenced transaction
    write: "Callable[[Engine, BlobStore, Attempt, Message], None]"
    #: kinds of message whose file a thread stores: storage may be slow
    stored: frozenset[str]


@dataclass
class Attempt:
    """One attempt of a job on this supervisor."""

    work: Work
    job_id: str
    number: int
    child: Child
    scratch: Path
    inbox: deque[Message] = field(default_factory=deque)
    #: the first message of the inbox, where its file is being stored beside all else
    storing: Future[None] | None = None
    #: until when the first message is not tried again
    retry_at: float = 0.0
    #: what the process was told to do, and when it is killed if it does not
    stop_reason: str | None = None
    kill_at: float | None = None
    #: whether its end has been written, so that the end of the process means nothing more
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
    log.warning("process died", job_id=attempt.job_id, exit_code=code, last_words=words)
    with writing(engine) as session:
        if attempt.stop_reason:  # killed because it did not obey in time
            life.stopped(session, attempt.job_id, attempt.number)
        else:
            death = deaths.explain(
                code,
                words,
                stalled_s=attempt.stalled_s,
                memory_kills=deaths.memory_kills() - attempt.memory_kills,
            )
            life.crashed(
                session,
                attempt.job_id,
                attempt.number,
                death.words,
                code=death.code,
            )


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()
