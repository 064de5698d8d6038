"""The tables of datasets, versions and parses; reading and removing a dataset."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, Index, String, delete, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.datasets import rejected
from service.datasets.messages import CSV, TSV, VersionReading
from service.datasets.originals import OriginalFile, text_options
from service.datasets.sandbox import Limits, Task
from service.errors import BlobCorrupt, Conflict, Invalid, NotFound, invalid_at
from service.jobs.kind import InputUnavailable, Job, Site
from service.storage.columns import BlobDigest, Id, Json, SqlTable, utc_now
from service.storage.database import reading

GONE = "deleted"  # the state of a dataset that runs outlive


class Dataset(SqlTable):
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
    #: the format of the bytes, such as text/csv
    media_type: Mapped[str]
    #: the SHA-256 of the bytes as uploaded (after decompression), which is their blob
    sha256: Mapped[str | None] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int | None]
    #: the newest version that is ready, 0 before the first
    version: Mapped[int] = mapped_column(default=0)
    #: the options of the first version: delimiter, header, missing_values
    options: Mapped[Json | None]
    #: a problem object if the dataset was rejected
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DatasetVersion(SqlTable):
    """One reading of a dataset's bytes: its options, its typed columns and its profile."""

    __tablename__ = "dataset_versions"

    dataset_id: Mapped[str] = mapped_column(
        Id, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    #: the fields of `messages.ReadOptions` that were given
    options: Mapped[Json]
    #: how the file was read: its encoding, delimiter, header and the like; NULL in old versions
    reading: Mapped[Json | None]
    rows: Mapped[int]
    columns: Mapped[list[Any]]
    warnings: Mapped[list[Any]]
    #: the Parquet file with the typed columns; NULL once the dataset is deleted
    table_sha256: Mapped[str | None] = mapped_column(BlobDigest, index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Parse(Job, SqlTable):
    """The job that reads the bytes of a dataset and makes a version of it."""

    prefix = "parse"
    noun = "parse"
    plural = "parses"
    verbs = frozenset()
    deaths = rejected.DEATHS
    most_deaths = rejected.MOST_DEATHS
    most_losses = 3

    __tablename__ = "parses"
    __table_args__ = (
        Index("ix_parses_queue", "state", "queued_at", "id"),
        Index("ix_parses_caller", "caller", "claimed_at"),
    )

    #: deleting the dataset deletes the job and so stops its process
    dataset_id: Mapped[str] = mapped_column(
        Id, ForeignKey("datasets.id", ondelete="CASCADE"), index=True
    )
    #: the version that the job makes: 1, or the next one when columns get other types
    version: Mapped[int]
    #: the fields of `messages.ReadOptions` that were given
    options: Mapped[Json]
    #: the caller of the request, because callers take turns
    caller: Mapped[str] = mapped_column(Id)
    #: whether it seems to take little work, so that it need not wait for large files
    is_small: Mapped[bool]

    def settle(self, session: Session, state: str, error: Json | None) -> None:
        """Reject the dataset if its first parse has failed."""
        if self.version > 1 or state == "succeeded":
            return
        problem = rejected.from_problem(error).problem() if error else None
        session.execute(
            update(Dataset)
            .where(Dataset.id == self.dataset_id, Dataset.state == "ingesting")
            .values(state="rejected", error=problem)
        )


class DatasetUnavailable(InputUnavailable):
    """The dataset is gone or damaged: upload it again."""

    code = "dataset_unavailable"


def ready_version(session: Session, dataset_id: str, version: int | None) -> DatasetVersion:
    """Return a version of a dataset, the newest by default.

    Raises NotFound, Conflict `dataset_not_ready`, or Invalid for a version that does not exist.
    The dataset is locked against deletion until the transaction ends.
    """
    dataset = session.scalars(
        select(Dataset)
        .where(Dataset.id == dataset_id, Dataset.state != GONE)
        .with_for_update(read=True)
    ).one_or_none()
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id[:60]!r}.")
    if dataset.state != "ready":
        raise Conflict(
            f"The dataset {dataset_id} is {dataset.state}: wait until it is ready.",
            code="dataset_not_ready",
            state=dataset.state,
        )
    wanted = dataset.version if version is None else version
    found = None
    if 1 <= wanted <= dataset.version:
        found = session.get(DatasetVersion, (dataset_id, wanted))
    if found is None:
        detail = (
            f"The dataset {dataset_id} has no version {wanted}: its newest is {dataset.version}."
        )
        # Runs and batch predictions name a version in this field.
        raise invalid_at("/dataset/version", "unknown_version", detail)
    return found


def reading_of(version: DatasetVersion) -> VersionReading:
    """Return how a version was read."""
    return VersionReading.of(version.columns, version.reading)


def table_digest(version: DatasetVersion) -> str:
    """Return the digest of a version's table. Raises NotFound once the dataset is deleted."""
    if version.table_sha256 is None:
        raise NotFound(f"The dataset {version.dataset_id} is deleted.")
    return version.table_sha256


def fetch_table(
    site: Site, dataset_id: str, version: int | None, scratch: Path
) -> tuple[DatasetVersion, Path]:
    """Return a version and its table as a local file. Raises DatasetUnavailable."""
    try:
        with reading(site.engine) as session:
            found = ready_version(session, dataset_id, version)
        return found, site.blobs.fetch(table_digest(found), scratch)
    except (BlobCorrupt, NotFound, Conflict, Invalid) as error:
        raise DatasetUnavailable(f"{error} Upload the dataset again.") from error


def fetch_original(
    site: Site, version: DatasetVersion, scratch: Path, formats: Collection[str] = (CSV, TSV)
) -> OriginalFile | None:
    """Return the file of a version, to be read as text; None if it has another format."""
    with reading(site.engine) as session:
        dataset = session.get(Dataset, version.dataset_id)
    if dataset is None or dataset.sha256 is None or dataset.media_type not in formats:
        return None
    try:
        path = site.blobs.fetch(dataset.sha256, scratch)
    except BlobCorrupt:
        return None
    limits = Limits(site.settings.parse_memory_bytes, site.settings.parse_timeout_s)
    task = Task(
        path=str(path),
        folder="",
        media_type=dataset.media_type,
        options=text_options(
            version.options,
            [each["name"] for each in version.columns],
            (version.reading or {}).get("header"),
        ),
        max_columns=site.settings.max_columns,
    )
    return OriginalFile(task=task, limits=limits, rows=version.rows)


def lock_parses(session: Session, dataset_id: str) -> None:
    """Lock the parses of a dataset. A change of a dataset locks its parses before its row."""
    session.execute(select(Parse.id).where(Parse.dataset_id == dataset_id).with_for_update())


def remove(session: Session, dataset_id: str) -> None:
    """Delete a dataset that no unfinished job reads, and stop the process that parses it.

    If finished runs refer to a version, the rows of the tables stay, without bytes.
    """
    session.execute(delete(Parse).where(Parse.dataset_id == dataset_id))
    session.execute(
        update(DatasetVersion)
        .where(DatasetVersion.dataset_id == dataset_id)
        .values(table_sha256=None)
    )
    try:
        with session.begin_nested():
            session.execute(delete(Dataset).where(Dataset.id == dataset_id))
    except IntegrityError:
        gone = update(Dataset).where(Dataset.id == dataset_id).values(state=GONE, sha256=None)
        session.execute(gone)
