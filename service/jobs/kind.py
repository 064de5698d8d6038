"""A kind of job: everything that a worker needs to do such jobs, declared once in its own room."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.jobs.tables import Job
from service.settings import Settings
from service.storage.blobs import BlobStore
from service.storage.references import Stored

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
    write: Callable[[Session, Tenure, Any, Stored | None], None]
    #: the device that a job asks for, such as `auto` or `cuda:1`; None where it can use no GPU
    device: Callable[[JobT], str | None] = lambda _job: None
