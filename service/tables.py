"""Every SQL table. Nothing here knows what the rows are for; the module of each noun does."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.columns import Json, Table, utc_now

__all__ = [
    "Alias",
    "AliasMove",
    "Blob",
    "BlobPin",
    "Checkpoint",
    "Dataset",
    "DatasetVersion",
    "Event",
    "Id",
    "IdempotencyKey",
    "Json",
    "Key",
    "Metric",
    "Model",
    "ModelChange",
    "ModelVersion",
    "Run",
    "Table",
    "Worker",
    "utc_now",
]

Id = String(40)


class Dataset(Table):
    """A table that a client uploaded: the bytes as received, and its versions."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    #: receiving, ingesting, ready, rejected
    state: Mapped[str] = mapped_column(String(16))
    #: how the bytes are written, such as text/csv
    media_type: Mapped[str]
    #: the SHA-256 of the bytes as uploaded (after decompression), which is their blob
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
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
    #: the SHA-256 of the Parquet file with the typed columns
    table_sha256: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Job:
    """What every kind of work has in the queue: its state, its owner, and its times."""

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
    #: unclean deaths, since it was last saved, of a child whose supervisor outlived it
    crash_streak: Mapped[int] = mapped_column(default=0)
    #: when it may be tried again, by the clock of leases, and for people by the wall's
    not_before: Mapped[float | None]
    waits_until: Mapped[datetime | None]
    #: the number of the last event: whoever waits for news waits for it to grow
    event_seq: Mapped[int] = mapped_column(default=0)
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(default=utc_now)
    claimed_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Run(Job, Table):
    """One training job, and its place in the queue."""

    __tablename__ = "runs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "dataset_version"],
            ["dataset_versions.dataset_id", "dataset_versions.version"],
            name="fk_runs_dataset",
        ),
        Index("ix_runs_queue", "state", "queued_at", "id"),
    )

    name: Mapped[str | None]
    tags: Mapped[Json]
    config: Mapped[Json]
    dataset_id: Mapped[str] = mapped_column(Id, index=True)
    dataset_version: Mapped[int]
    retry_of: Mapped[str | None] = mapped_column(Id)
    #: the checkpoint to go on from, and the one to predict with
    resume_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    best_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    #: the last live metric row
    metric_seq: Mapped[int] = mapped_column(default=0)
    latest: Mapped[Json | None]
    best: Mapped[Json | None]
    evaluation: Mapped[Json | None]
    device: Mapped[str | None]
    warnings: Mapped[list[Any]]
    #: the version that the run made
    model_name: Mapped[str | None] = mapped_column(String(128), index=True)
    model_version: Mapped[int | None]


class Metric(Table):
    """One value of a curve. Live rows of a run are 1..n; see `runs.metrics`."""

    __tablename__ = "metrics"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    attempt: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    step: Mapped[int]
    split: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    #: NULL where the value is not finite: SQLite keeps NaN as NULL, so `kind` says which
    value: Mapped[float | None]
    #: finite, nan, inf, -inf
    kind: Mapped[str] = mapped_column(String(6))
    at_s: Mapped[float]
    #: the attempt that replaced this row; NULL means that the row is live
    superseded_by: Mapped[int | None]
    #: in how large a block of rows this is the least or the greatest of its curve: `runs.levels`
    level: Mapped[int] = mapped_column(default=0)


Index(
    "ix_metrics_level",
    Metric.run_id,
    Metric.level,
    Metric.seq,
    sqlite_where=Metric.level > 0,
    postgresql_where=Metric.level > 0,
)
Index(
    "uq_metrics_live",
    Metric.run_id,
    Metric.seq,
    unique=True,
    sqlite_where=Metric.superseded_by.is_(None),
    postgresql_where=Metric.superseded_by.is_(None),
)


class Event(Table):
    """What happened to a run, in order, for pollers and streams."""

    __tablename__ = "events"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    #: state, metrics, checkpoint, log, rewind, end
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[Json]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class Checkpoint(Table):
    """The state of a run at one step; the bytes are a blob."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int]
    epoch: Mapped[int]
    step: Mapped[int]
    #: the last metric row that the state covers
    metric_seq: Mapped[int]
    metrics: Mapped[Json]
    #: the epoch that `metrics` are of, and whose parameters predict
    metrics_epoch: Mapped[int | None]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int]
    is_best: Mapped[bool]
    #: whether training can go on from it; from that of a diverged run it cannot
    is_resumable: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Model(Table):
    """A name under which versions are published."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    #: the number of the newest version ever made; a deleted number is never used again
    last_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ModelVersion(Table):
    """An immutable trained model: a checkpoint with its signature, metrics and lineage."""

    __tablename__ = "model_versions"

    model_name: Mapped[str] = mapped_column(
        String(128), ForeignKey("models.name", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True)
    #: where it was trained; NULL where it was imported
    run_id: Mapped[str | None] = mapped_column(Id, index=True)
    checkpoint_id: Mapped[str | None] = mapped_column(Id)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int]
    signature: Mapped[Json]
    metrics: Mapped[Json]
    config: Mapped[Json]
    dataset_id: Mapped[str | None] = mapped_column(Id)
    dataset_version: Mapped[int | None]
    #: which bundle it came from, and what that said of its origin
    imported: Mapped[Json | None]
    #: trained and closed-form parameters of a linear model
    parameters: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Alias(Table):
    """A name such as `champion` that points to a version of a model."""

    __tablename__ = "aliases"
    __table_args__ = tuple(
        ForeignKeyConstraint(
            ["model_name", column],
            ["model_versions.model_name", "model_versions.version"],
            name=f"fk_aliases_{column}",
        )
        for column in ("version", "canary_version", "shadow_version")
    )

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int]
    #: who answers `canary_percent` of the requests in its place
    canary_version: Mapped[int | None]
    canary_percent: Mapped[float | None]
    #: who computes the same answers and is not heard
    shadow_version: Mapped[int | None]
    #: grows with each move; the ETag of the alias
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class AliasMove(Table):
    """What an alias was made to point to at one of its revisions."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_name", "alias"],
            ["aliases.model_name", "aliases.alias"],
            name="fk_alias_moves_alias",
            ondelete="CASCADE",
        ),
    )

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    #: put, rollback
    how: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    canary_version: Mapped[int | None]
    canary_percent: Mapped[float | None]
    shadow_version: Mapped[int | None]
    #: the revision that a rollback from here looks at first
    before: Mapped[int | None]
    #: the API key that did it, where there was one
    key_id: Mapped[str | None] = mapped_column(Id)
    moved_at: Mapped[datetime] = mapped_column(default=utc_now)


class ModelChange(Table):
    """When a model, its versions or its aliases changed last; the row stays when the model goes.

    The row of no name holds the newest revision of all (see `registry.changed`).
    """

    __tablename__ = "model_changes"

    model_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    revision: Mapped[int] = mapped_column(index=True)


class Blob(Table):
    """An object in the blob store, or one that is about to be there; see `references`."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class BlobPin(Table):
    """A writer that needs a blob and has no row yet that refers to it."""

    __tablename__ = "blob_pins"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    #: when the writer is taken for dead (see `database.clock`)
    expires: Mapped[float]
    boot_id: Mapped[str] = mapped_column(String(40))


class Key(Table):
    """An API key; only the SHA-256 of its secret is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    #: the first characters of the secret, to recognise it by
    prefix: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class IdempotencyKey(Table):
    """A request that may be sent again: its fingerprint and, once known, its response."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    #: NULL while the first request is in flight
    status: Mapped[int | None]
    headers: Mapped[Json | None]
    body: Mapped[str | None]
    #: until when the first request owns the key, and until when the response is kept
    lease_until: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Worker(Table):
    """A supervisor that said it is there."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    devices: Mapped[list[Any]]
    capacity: Mapped[int]
    #: warming until the process that trainers are forked from has torch loaded
    is_warm: Mapped[bool]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)
