"""The columns that the tables of all jobs share, and the declaration of a kind of job.

Each kind is declared once, in its own room: its table inherits from `Job`, and its `Kind` holds
everything that a worker needs to do such jobs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Engine, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.errors import DeathCode, ServiceError
from service.settings import Settings
from service.storage.blobs import BlobStore
from service.storage.columns import Id, Json, SqlTable, utc_now
from service.storage.references import HeldBlob

#: Code of the last death → how many deaths without saved progress between them fail a job.
MOST: dict[DeathCode, int] = {"worker_lost": 3, "out_of_memory": 3, "stalled": 2}
#: code of the last death → the error of a job that failed by deaths
SENTENCES = {
    "worker_lost": "The process died {streak} times without progress ({words}). Check the"
    " worker's log, then try again.",
    "out_of_memory": "The machine ran out of memory, so its kernel killed the process;"
    " it died {streak} times without progress ({words}). Use a smaller model, or a worker with"
    " more memory.",
    "stalled": "The process stalled, and died {streak} times without progress ({words}). Check the"
    " worker, then try again; DESCENT_STALL_S sets how long a process may be silent.",
}
#: prefix of an id → the table of such jobs; each table adds itself
JOB_TABLES: dict[str, type["Job"]] = {}

JobT = TypeVar("JobT", bound="Job")


class JobEvent:
    """The columns of a table of events; the events of a job are ordered by `seq`."""

    #: each table declares its foreign key, so that deleting a job deletes its events
    job_id: Mapped[str]
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    #: state, metrics, checkpoint, log, rewind, trial, end
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[Json]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class Job:
    """The columns that the table of each kind of job has: its state, its owner, and its times.

    The class variables of a table hold the names and the rules of its jobs.
    """

    #: the part of their ids before the underscore
    prefix: ClassVar[str]
    #: the word for such a job in a sentence, and the name of a list of such jobs
    noun: ClassVar[str]
    plural: ClassVar[str]
    #: the table of the events of these jobs; None if events are only counted
    event_table: ClassVar["type[JobEvent] | None"] = None
    #: the requests that a client may make for such a job
    verbs: ClassVar[frozenset[str]] = frozenset({"cancel"})
    #: the columns that name a dataset or a model that the job reads until it has ended
    reads: ClassVar[frozenset[str]] = frozenset()
    #: code of the last death → the error of a job that failed by deaths
    deaths: ClassVar[Mapping[str, str]] = SENTENCES
    #: code of the last death → how many deaths fail the job
    most_deaths: ClassVar[Mapping[DeathCode, int]] = MOST
    #: How many deaths fail the job if the last one was the loss of its worker; None if no number
    #: does, because the job saves its progress.
    most_losses: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        JOB_TABLES[cls.prefix] = cls

    def settle(self, session: Session, state: str, error: Json | None) -> None:
        """Write the consequences of the job's end, in the transaction that ends it."""

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    #: see `jobs.life`
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str | None]
    #: the fencing token, which grows by one with each claim
    attempt: Mapped[int] = mapped_column(default=0)
    #: the supervisor that holds the lease
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires: Mapped[float | None]
    boot_id: Mapped[str | None] = mapped_column(String(40))
    #: unclean deaths of its process since it was last saved, while the supervisor lived on
    crash_streak: Mapped[int] = mapped_column(default=0)
    #: when it may start again: by the clock of leases, and as a time of day for people
    not_before: Mapped[float | None]
    waits_until: Mapped[datetime | None]
    #: the number of the last event; waiting requests wait until it grows
    event_seq: Mapped[int] = mapped_column(default=0)
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(default=utc_now)
    claimed_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Worker(SqlTable):
    """A supervisor that reports its presence."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    devices: Mapped[list[Any]]
    capacity: Mapped[int]
    #: false until the warm parent, from which attempts are forked, has loaded torch
    is_warm: Mapped[bool]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)


class InputUnavailable(ServiceError):
    """A file that the job needs is gone: start the job again with another file."""


@dataclass(frozen=True)
class Site:
    """The settings, the database and the storage of a worker."""

    settings: Settings
    engine: Engine
    blobs: BlobStore


@dataclass(frozen=True)
class Tenure:
    """A job that a worker holds: its id and its attempt, which is the fencing token."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Together(Generic[JobT]):
    """How several jobs of a kind share one process: each with its own attempt, lease and folder."""

    #: gives the jobs that may join the process of a claimed job to its owner
    claim: Callable[[Site, Session, JobT, str], Sequence[JobT]]
    #: Makes the input of a job that joins, from the input of the first job, whose files it may
    #: share.
    prepare: Callable[[Site, JobT, Path, Any], BaseModel]
    #: makes the input of the process from the inputs of its jobs, which are two or more
    join: Callable[[Sequence[Any]], BaseModel]


@dataclass(frozen=True)
class Kind(Generic[JobT]):
    """A kind of job, as a worker needs it; the names of its jobs are in its table."""

    table: type[JobT]
    #: The module whose `main(end, job)` does an attempt, in its own process. It is given by name,
    #: because its import may load torch, which a supervisor must not.
    module: str
    #: how many of these jobs one worker does at a time
    slots: Callable[[Settings], int]
    #: gives the next job to an owner for some seconds
    claim: Callable[[Session, str, float], JobT | None]
    #: makes the input of the process, whose files go into the scratch folder
    prepare: Callable[[Site, JobT, Path], BaseModel]
    #: validates the messages of the process
    messages: TypeAdapter[Any]
    #: Writes a message of this kind in the session's transaction; the supervisor writes those that
    #: all kinds share. Raises Fenced if the job has another owner. The bytes of a `FileMessage` are
    #: stored before.
    write: Callable[[Session, Tenure, Any, HeldBlob | None], None]
    #: the device that a job requests, such as `auto` or `cuda:1`; None if it can use no GPU
    device: Callable[[JobT], str | None] = lambda _job: None
    #: None if each job has a process of its own
    together: Together[JobT] | None = None
