"""What a training is asked for, and what it tells while it goes on. Knows no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from descent.spec import LossName, RunConfig, Task
from models.data import Table

SplitName = Literal["train", "validation", "test"]
#: Why a training was asked to stop.
StopReason = Literal["cancel", "pause", "handback"]
#: Why a training ended before its last epoch.
EndReason = Literal["early_stopping", "budget", "diverged", "cancel", "pause", "handback"]


@dataclass(frozen=True)
class Job:
    """One attempt at a run."""

    #: Task, loss and features are decided, nothing but the device says "auto".
    config: RunConfig
    table: Table
    #: A folder that this attempt alone writes in.
    scratch: Path
    #: The checkpoint to continue from.
    resume: Path | None = None
    attempt: int = 1
    #: The last metric row that is durable at `resume`; the next row is seq + 1.
    seq: int = 0
    #: Seconds of training that earlier attempts have spent, and how many of them on checkpoints.
    #: Not part of the checkpoint, so that equal trainings make equal files.
    elapsed_s: float = 0.0
    saving_s: float = 0.0
    #: Seconds between two looks at whether to stop or to save.
    poll_s: float = 0.02
    #: Seconds between two signs of life.
    sign_s: float = 1.0
    #: Seconds between two checkpoints; None weighs their cost against what a crash would lose.
    checkpoint_s: float | None = None

    @property
    def task(self) -> Task:
        if self.config.task == "auto":
            raise ValueError("the job's task must be decided, got 'auto'")
        return self.config.task

    @property
    def loss(self) -> LossName:
        if self.config.loss == "auto":
            raise ValueError("the job's loss must be decided, got 'auto'")
        return self.config.loss

    @property
    def features(self) -> list[str]:
        if self.config.features is None:
            raise ValueError("the job's features must be decided, got None")
        return self.config.features


@dataclass(frozen=True)
class MetricRow:
    """One point of a curve."""

    seq: int
    #: Epochs done, so the first is 1.
    epoch: int
    step: int
    split: SplitName
    name: str
    #: In the target's own units; may be NaN or infinite.
    value: float
    #: Seconds of training, earlier attempts included.
    at_s: float


@dataclass(frozen=True)
class Progress:
    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float
    eta_s: float | None
    #: Seconds of training, and how many of them it waited for checkpoints; earlier attempts
    #: included.
    elapsed_s: float
    saving_s: float


@dataclass(frozen=True)
class Best:
    """The epoch whose parameters predict."""

    epoch: int
    split: SplitName
    name: str
    value: float


@dataclass(frozen=True)
class Frame:
    """All parameters of a small net after an epoch."""

    epoch: int
    step: int
    #: float32, little-endian, in the order of the net's parameters
    values: bytes


@dataclass(frozen=True)
class Started:
    device: str
    parameters: int
    #: Rows per split.
    rows: dict[SplitName, int]
    steps: int
    epochs: int
    #: `{"code", "column"?, "detail"}` each.
    warnings: list[dict[str, Any]]
    #: What the frames are frames of, and the first of them; None for a net that is too large.
    subject: dict[str, Any] | None = None
    frame: Frame | None = None


@dataclass(frozen=True)
class Metrics:
    """What an epoch gave, or at the end the test rows."""

    rows: list[MetricRow]
    progress: Progress
    best: Best | None
    frame: Frame | None = None


@dataclass(frozen=True)
class Alive:
    """A sign that steps are made, now and then, however long an epoch takes."""

    progress: Progress


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete on disk; whoever reads the events may move or delete it."""

    path: Path
    sha256: str
    bytes: int
    #: Epochs done by the state; a checkpoint in the middle of an epoch has steps beyond them.
    epoch: int
    step: int
    #: The last metric row that a training resumed from here does not give again.
    seq: int
    #: By split, the figures of the parameters that predict; empty before the first epoch's end.
    metrics: dict[str, dict[str, float]]
    #: The epoch whose parameters predict; None before the first epoch's end.
    metrics_epoch: int | None
    #: The last one of an attempt: its parameters to predict with are the run's best.
    is_best: bool
    #: Whether it is a state that training can go on from; that of a diverged run is not.
    resumable: bool
    progress: Progress


@dataclass(frozen=True)
class Noted:
    """Something that went wrong and is tried again, for the run's log."""

    code: str
    detail: str


@dataclass(frozen=True)
class Finished:
    """The end, for all but an error."""

    reason: EndReason | None
    #: Figures by split, and "baseline"; None where the training may go on later or was cancelled.
    evaluation: dict[str, Any] | None
    #: A linear model's numbers in the columns' own units, beside the closed form; else None.
    parameters: dict[str, Any] | None = field(default=None)
    #: `{"code", "detail"}` each.
    warnings: list[dict[str, Any]] = field(default_factory=list)


Event: TypeAlias = Started | Metrics | Alive | Saved | Noted | Finished
