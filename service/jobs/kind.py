"""A kind of job: everything that a worker needs to do such jobs, declared once in its own room."""

from collections.abc import Callable, Mapping
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

#: Deaths without a new checkpoint between them that end a run, by the code of the last one.
MOST: dict[DeathCode, int] = {"worker_lost": 3, "out_of_memory": 3, "stalled": 2}
#: code → the sentence of a job that fails by deaths of that code
SENTENCES = {
    "worker_lost": "The process died {streak} times and got no further ({words}). Check"
    " the worker's log, then ask again.",
    "out_of_memory": "The machine ran out of memory, so its kernel killed the process;"
    " it died {streak} times and got no further ({words}). Use a smaller model, or a worker with"
    " more memory.",
    "stalled": "The process stood still, and ended {streak} times and got no further"
    " ({words}). Check the worker, then ask again; the setting DESCENT_STALL_S says how long it may"
    " be silent.",
}
#: prefix of an id → the table of such jobs; each table adds itself
JOB_TABLES: dict[str, type["Job"]] = {}


class JobEvent:
    """The columns of a table of events of jobs, in order."""

    #: each table declares its foreign key, so that deleting a job deletes its events
    job_id: Mapped[str]
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    #: state, metrics, checkpoint, log, rewind, end
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[Json]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class Job:
    """The columns that each kind of job has in its table: its state, its owner, and its times.

    A table that inherits them says in class variables how its jobs are named.
    """

    #: how the ids of these jobs begin, before the underscore
    prefix: ClassVar[str]
    #: the word for such a job in a sentence, and the name of a list of them
    noun: ClassVar[str]
    plural: ClassVar[str]
    #: the table of the events of these jobs; None where events are counted and not kept
    event_table: ClassVar["type[JobEvent] | None"] = None
    #: the requests that a client may make for such a job
    verbs: ClassVar[frozenset[str]] = frozenset({"cancel"})
    #: the columns that name a dataset or a model that the job reads until it has ended
    reads: ClassVar[frozenset[str]] = frozenset()
    #: code of a death → the sentence of a job that failed by deaths of that code
    deaths: ClassVar[Mapping[str, str]] = SENTENCES
    #: code of a death → how many deaths end the job, if the last one has that code
    most_deaths: ClassVar[Mapping[DeathCode, int]] = MOST
    #: How many deaths end the job, if the last one was the loss of its worker; None: a job that
    #: saves its place goes on, however often it has to.
    most_losses: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401  Python's signature
        super().__init_subclass__(**options)
        JOB_TABLES[cls.prefix] = cls

    def settle(self, session: Session, state: str, error: Json | None) -> None:
        """Write what the end of the job means to others, in the transaction that ends it."""

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    #: see `jobs.life`
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str | None]
    #: the fencing token: it grows by one with each claim
    attempt: Mapped[int] = mapped_column(default=0)
    #: the supervisor that holds the lease
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires: Mapped[float | None]
    boot_id: Mapped[str | None] = mapped_column(String(40))
    #: unclean deaths of its process since it was last saved, while the supervisor lived on
    crash_streak: Mapped[int] = mapped_column(default=0)
    #: when it may start again, by the clock of leases, and as a time of day for people
    not_before: Mapped[float | None]
    waits_until: Mapped[datetime | None]
    #: the number of the last event: waiting requests wait until it grows
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
    #: false until the process that trainers are forked from has loaded torch
    is_warm: Mapped[bool]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)


JobT = TypeVar("JobT", bound=Job)


class InputUnavailable(ServiceError):
    """A file that the job needs is gone: start it again with another one."""


@dataclass(frozen=True)
class Site:
    """The settings, the database and the storage that a worker works with."""

    settings: Settings
    engine: Engine
    blobs: BlobStore


@dataclass(frozen=True)
class Tenure:
    """A job that a worker holds: its id and its attempt, which is the fencing token."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Kind(Generic[JobT]):
    """A kind of job: how its jobs are done. `jobs.tables.Job` says how they are named."""

    table: type[JobT]
    #: The module whose `main(end, job)` does an attempt, in a process of its own. It is named and
    #: not imported, because it may load torch, which a supervisor must not.
    module: str
    #: how many of these jobs one worker does at a time
    slots: Callable[[Settings], int]
    #: gives the next job to an owner for some seconds
    claim: Callable[[Session, str, float], JobT | None]
    #: makes the input of the process; its files go into the scratch folder
    prepare: Callable[[Site, JobT, Path], BaseModel]
    #: validates the messages of the process
    messages: TypeAdapter[Any]
    #: Writes a message in the session's transaction, where it is none that all kinds share. Raises
    #: Fenced where the job has another owner. The bytes of a `FileMessage` are stored by then.
    write: Callable[[Session, Tenure, Any, HeldBlob | None], None]
    #: the device that a job asks for, such as `auto` or `cuda:1`; None where it can use no GPU
    device: Callable[[JobT], str | None] = lambda _job: None
