"""The tables of datasets and their versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

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
    #: the fencing token of the process that parses; it grows with each try
    attempt: Mapped[int] = mapped_column(default=0)
    #: when another process may take the parsing over (see `database.clock`)
    lease_expires: Mapped[float | None]
    boot_id: Mapped[str | None] = mapped_column(String(40))
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
