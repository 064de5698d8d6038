"""The tables of runs and of their metrics, events, checkpoints and trajectories."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.jobs.kind import Job, JobEvent
from service.storage.columns import BlobDigest, Id, Json, SqlTable, utc_now

#: code of a crash → the message of a run that failed because of it
DEATHS = {
    "worker_lost": "The training process died {streak} times without a new checkpoint ({words})."
    " Check the run's log, then retry the run.",
    "out_of_memory": "The machine ran out of memory, so its kernel killed the training process;"
    " it died {streak} times without a new checkpoint ({words}). Use a smaller table, network or"
    " batch_size, or a worker with more memory.",
    "stalled": "The training process stalled and ended {streak} times without a new checkpoint"
    " ({words}). Check the worker and its device, then retry the run; the setting DESCENT_STALL_S"
    " limits how long it may send nothing.",
}


class Run(Job, SqlTable):
    """A training run, with its position in the queue."""

    prefix = "run"
    noun = "run"
    plural = "runs"
    verbs = frozenset({"cancel", "pause", "resume", "retry"})
    reads = frozenset({"dataset_id"})
    deaths = DEATHS

    __tablename__ = "runs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_id", "dataset_version"],
            ["dataset_versions.dataset_id", "dataset_versions.version"],
            name="fk_runs_dataset",
        ),
        Index("ix_runs_queue", "state", "queued_at", "id"),
        # One index for the list of all runs, and one for each filter.
        Index("ix_runs_newest", "created_at", "id"),
        Index("ix_runs_state", "state", "created_at", "id"),
        Index("ix_runs_dataset", "dataset_id", "created_at", "id"),
        Index("ix_runs_model", "model_name", "created_at", "id"),
        Index("ix_runs_sweep", "sweep_id", "created_at", "id"),
        Index("ix_runs_group", "group", "state", "queued_at", "id"),
    )

    name: Mapped[str | None]
    tags: Mapped[Json]
    config: Mapped[Json]
    dataset_id: Mapped[str] = mapped_column(Id)
    dataset_version: Mapped[int]
    retry_of: Mapped[str | None] = mapped_column(Id)
    #: the sweep that the run is a member of, and the number of its trial there
    sweep_id: Mapped[str | None] = mapped_column(Id)
    trial: Mapped[int | None]
    #: runs of one group may train in one process: see `runs.groups`
    group: Mapped[str | None] = mapped_column(String(64))
    #: the epoch at whose end the training pauses by itself
    pause_after: Mapped[int | None]
    #: the checkpoint to resume from, and the one to predict with
    resume_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    best_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    #: the number of the last live metric row
    metric_seq: Mapped[int] = mapped_column(default=0)
    latest: Mapped[Json | None]
    best: Mapped[Json | None]
    evaluation: Mapped[Json | None]
    device: Mapped[str | None]
    engine: Mapped[str | None] = mapped_column(String(16))
    warnings: Mapped[list[Any]]
    #: the model version that the run registered
    model_name: Mapped[str | None] = mapped_column(String(128))
    model_version: Mapped[int | None]
    #: `signature` and `parameters` of the result, for as long as its sweep may register it
    outcome: Mapped[Json | None]


class Metric(SqlTable):
    """One value of a curve. Live rows of a run are numbered 1..n; see `runs.metrics`."""

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
    #: NULL if the value is not finite: SQLite stores NaN as NULL, so `kind` holds which it is
    value: Mapped[float | None]
    #: finite, nan, inf, -inf
    kind: Mapped[str] = mapped_column(String(6))
    at_s: Mapped[float]
    #: the attempt that replaced this row; NULL in live rows
    superseded_by: Mapped[int | None]
    #: the level of the largest block in which this value is an extreme; see `runs.metrics.SIZES`
    level: Mapped[int] = mapped_column(default=0)


class Event(JobEvent, SqlTable):
    """An event of a run, for clients that poll or stream."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(
        "run_id", Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )


Run.event_table = Event


class Checkpoint(SqlTable):
    """The state of a run at one step; its bytes are a blob."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("ix_checkpoints_newest", "run_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    epoch: Mapped[int]
    step: Mapped[int]
    #: the number of the last metric row that the state covers
    metric_seq: Mapped[int]
    metrics: Mapped[Json]
    #: the epoch of `metrics` and of the parameters that predict
    metrics_epoch: Mapped[int | None]
    sha256: Mapped[str] = mapped_column(BlobDigest, index=True)
    bytes: Mapped[int]
    is_best: Mapped[bool]
    #: whether training can resume from it; a checkpoint of a diverged run is not resumable
    is_resumable: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


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


class TrainingSpeed(SqlTable):
    """How fast a machine trains; see `runs.speeds`."""

    __tablename__ = "training_speeds"

    host: Mapped[str] = mapped_column(String(255), primary_key=True)
    #: the kind of training; see `models.training.cost`
    shape: Mapped[str] = mapped_column(String(32), primary_key=True)
    #: its seconds, divided by those of a usual machine
    ratio: Mapped[float]
    noted_at: Mapped[datetime] = mapped_column(default=utc_now)


class Trajectory(SqlTable):
    """The columns and the net that the frames of a run show; see `models.training.outcome`."""

    __tablename__ = "trajectories"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    subject: Mapped[Json]


class Frame(SqlTable):
    """All parameters of a small net after an epoch, as float32."""

    __tablename__ = "frames"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    epoch: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int]
    parameters: Mapped[bytes]
