"""The tables of datasets, their versions, and the parses that make these."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.datasets import refusals
from service.jobs.tables import Job
from service.storage.columns import BlobDigest, Id, Json, Table, utc_now


class Dataset(Table):
    """A table that a client uploaded: the bytes as received, and its versions."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index(
            "ix_datasets_newest",
            "created_at",
            "id",
            sqlite_where=text("state != 'deleted'"),
            postgresql_where=text("state != 'deleted'"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    #: ingesting, ready, rejected, deleted
    state: Mapped[str] = mapped_column(String(16))
    #: how the bytes are written, such as text/csv
    media_type: Mapped[str]
    #: the SHA-256 of the bytes as uploaded (after decompression), which is their blob
    sha256: Mapped[str | None] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int | None]
    #: the newest version that is ready, 0 before the first
    version: Mapped[int] = mapped_column(default=0)
    #: how the first version is to be read: delimiter, header, missing_values
    options: Mapped[Json | None]
    #: a problem object where the dataset was rejected
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DatasetVersion(Table):
    """One reading of a dataset's bytes: its options, its typed columns and its profile."""

    __tablename__ = "dataset_versions"

    dataset_id: Mapped[str] = mapped_column(
        Id, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    #: delimiter, header, missing_values, types
    options: Mapped[Json]
    rows: Mapped[int]
    columns: Mapped[list[Any]]
    warnings: Mapped[list[Any]]
    #: the Parquet file with the typed columns; NULL once the dataset is deleted
    table_sha256: Mapped[str | None] = mapped_column(BlobDigest, index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Parse(Job, Table):
    """The job that reads the bytes of a dataset and makes a version of it."""

    prefix = "parse"
    noun = "parse"
    plural = "parses"
    verbs = frozenset()
    deaths = refusals.DEATHS
    most_deaths = refusals.MOST_DEATHS
    most_losses = 3

    __tablename__ = "parses"
    __table_args__ = (
        Index("ix_parses_queue", "state", "queued_at", "id"),
        Index("ix_parses_caller", "caller", "claimed_at"),
    )

    #: with the dataset goes the job, and so its process
    dataset_id: Mapped[str] = mapped_column(
        Id, ForeignKey("datasets.id", ondelete="CASCADE"), index=True
    )
    #: the version that it makes: 1, or the next one where columns get other types
    version: Mapped[int]
    #: how the bytes are to be read: delimiter, header, missing_values, types
    options: Mapped[Json]
    #: who asked: callers take turns
    caller: Mapped[str] = mapped_column(Id)
    #: whether it seems to take little work, and so need not wait for those that take much
    is_small: Mapped[bool]

    def settle(self, session: Session, state: str, error: Json | None) -> None:
        """Reject the dataset where its first parse has failed."""
        if self.version > 1 or state == "succeeded":
            return
        problem = refusals.from_problem(error).problem() if error else None
        session.execute(
            update(Dataset)
            .where(Dataset.id == self.dataset_id, Dataset.state == "ingesting")
            .values(state="rejected", error=problem)
        )
