"""The tables of sweeps, of their trials and events, and of the suggestions of a sampler."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.jobs.kind import Job, JobEvent
from service.storage.columns import Id, Json, SqlTable


class Sweep(Job, SqlTable):
    """A search over settings. It has the states of a job, but no worker claims it.

    Its state follows its members, see `sweeps.steering`.
    """

    prefix = "sweep"
    noun = "sweep"
    plural = "sweeps"
    verbs = frozenset({"cancel", "pause", "resume"})
    reads = frozenset({"dataset_id"})

    __tablename__ = "sweeps"
    __table_args__ = (
        Index("ix_sweeps_newest", "created_at", "id"),
        Index("ix_sweeps_state", "state", "created_at", "id"),
        Index("ix_sweeps_dataset", "dataset_id", "created_at", "id"),
    )

    name: Mapped[str | None]
    tags: Mapped[Json]
    #: no foreign key: the members refer to the dataset version
    dataset_id: Mapped[str] = mapped_column(Id)
    dataset_version: Mapped[int]
    #: the fields that the request gave, and the complete configuration without the space
    base: Mapped[Json]
    config: Mapped[Json]
    #: path → its dimension, as in the request
    space: Mapped[Json]
    #: complete: `type` and its fields
    strategy: Mapped[Json]
    #: split, name, direction
    metric: Mapped[Json]
    budget: Mapped[Json | None]
    seed: Mapped[int]
    #: how many trials the sweep makes
    trials: Mapped[int]
    #: the epochs after which a halving compares its members
    rungs: Mapped[list[Any]]
    register_best_as: Mapped[str | None] = mapped_column(String(128))
    warnings: Mapped[list[Any]]
    #: whether something happened that only a steering step sees
    is_due: Mapped[bool] = mapped_column(default=False)
    #: when the budget of time is used up, while the sweep runs; and the seconds that are left of it
    ends_at: Mapped[datetime | None]
    left_s: Mapped[float | None]
    #: the trial that won, and the model version that it became
    best_trial: Mapped[int | None]
    model_name: Mapped[str | None] = mapped_column(String(128))
    model_version: Mapped[int | None]


class SweepEvent(JobEvent, SqlTable):
    """An event of a sweep, for clients that poll or stream."""

    __tablename__ = "sweep_events"

    job_id: Mapped[str] = mapped_column(
        "sweep_id", Id, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True
    )


Sweep.event_table = SweepEvent


class Trial(SqlTable):
    """A choice of parameters, and what the steering has last seen of its run."""

    __tablename__ = "sweep_trials"
    __table_args__ = (Index("ix_sweep_trials_run_id", "run_id"),)

    sweep_id: Mapped[str] = mapped_column(
        Id, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True
    )
    #: 1..n
    number: Mapped[int] = mapped_column(primary_key=True)
    #: path → value
    parameters: Mapped[Json]
    #: None if the parameters do not fit together, or once the run is deleted
    run_id: Mapped[str | None] = mapped_column(Id, ForeignKey("runs.id", ondelete="SET NULL"))
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str | None]
    #: the metric of the sweep when the run ended or paused
    value: Mapped[float | None]
    epochs: Mapped[int] = mapped_column(default=0)
    error: Mapped[Json | None]
    #: of a halving: the place in `Sweep.rungs` that the run trains for
    rung: Mapped[int] = mapped_column(default=0)


class Suggestion(Job, SqlTable):
    """The job of a process that chooses the next trials of a sweep from those that have ended."""

    prefix = "suggest"
    noun = "suggestion"
    plural = "suggestions"

    __tablename__ = "suggestions"
    __table_args__ = (
        Index("ix_suggestions_queue", "state", "queued_at", "id"),
        Index("ix_suggestions_sweep_id", "sweep_id"),
    )

    sweep_id: Mapped[str] = mapped_column(Id, ForeignKey("sweeps.id", ondelete="CASCADE"))
    #: the number of the first trial to choose, and how many
    first: Mapped[int]
    count: Mapped[int]

    def settle(self, session: Session, state: str, error: Json | None) -> None:  # noqa: ARG002
        """Let the next step of the sweep see that this job has ended."""
        session.execute(update(Sweep).where(Sweep.id == self.sweep_id).values(is_due=True))
