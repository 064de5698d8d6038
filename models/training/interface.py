"""The input of a training and the events that it yields. Knows no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from descent.codes import WarningCode
from models.engine import EngineName

SplitName = Literal["train", "validation", "test"]
#: Why the caller stops a training.
StopReason = Literal["cancel", "pause", "handback"]
#: Why a training ended before its last epoch.
EndReason = Literal["early_stopping", "budget", "diverged", "cancel", "pause", "handback"]


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
    """The present place of a training, and an estimate of the rest."""

    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float
    eta_s: float | None
    #: Seconds of training, and how many of them went into checkpoints, earlier attempts included.
    elapsed_s: float
    saving_s: float


@dataclass(frozen=True)
class Best:
    """The best epoch: its parameters predict."""

    epoch: int
    split: SplitName
    name: str
    value: float


@dataclass(frozen=True)
class Frame:
    """All parameters of a small net after an epoch, for a picture of their way."""

    epoch: int
    step: int
    #: float32, little-endian, in the order of the net's parameters
    values: bytes


@dataclass(frozen=True)
class Started:
    """The first event, before the first step."""

    device: str
    #: The name of the engine that makes the steps.
    engine: EngineName
    parameters: int
    #: Rows per split.
    rows: dict[SplitName, int]
    steps: int
    epochs: int
    #: `{"code", "column"?, "detail"}` each.
    warnings: list[dict[str, Any]]
    #: The description that frames need, and the first frame; None if the net is too large.
    subject: dict[str, Any] | None = None
    frame: Frame | None = None


@dataclass(frozen=True)
class Metrics:
    """The metrics of an epoch, or at the end those of the test rows."""

    rows: list[MetricRow]
    progress: Progress
    best: Best | None
    frame: Frame | None = None


@dataclass(frozen=True)
class Piece:
    """The end of a short piece of work, where the caller may let another training go on."""


@dataclass(frozen=True)
class Alive:
    """A regular sign that the training makes steps, however long an epoch takes."""

    progress: Progress


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose file is complete; the caller may move or delete it."""

    path: Path
    sha256: str
    bytes: int
    #: Epochs that are complete; a checkpoint within an epoch has steps beyond them.
    epoch: int
    step: int
    #: The last metric row before this state; a training resumed from here yields the rows after it.
    seq: int
    #: The best epoch's metrics, by split; empty before the first epoch ends.
    metrics: dict[str, dict[str, float]]
    #: The best epoch; None before the first epoch ends.
    metrics_epoch: int | None
    #: Whether this is the last checkpoint of the attempt; its best parameters are the run's.
    is_best: bool
    #: Whether a training can continue from it; false for a run that diverged.
    resumable: bool
    progress: Progress


@dataclass(frozen=True)
class Noted:
    """A problem that the training will try again, for the run's log."""

    code: WarningCode
    detail: str


@dataclass(frozen=True)
class Speed:
    """How fast a training was."""

    #: The kind of training; see `models.training.cost`.
    shape: str
    #: Its seconds, divided by those of a usual machine.
    ratio: float


@dataclass(frozen=True)
class Finished:
    """The end of a training without an error."""

    reason: EndReason | None
    #: Scores by split, "baseline" and "importance"; None after a cancel, a pause or a handback.
    evaluation: dict[str, Any] | None
    #: A linear model's weights in the columns' units and the closed form; None for other models.
    parameters: dict[str, Any] | None = field(default=None)
    #: `{"code", "detail"}` each.
    warnings: list[dict[str, Any]] = field(default_factory=list)
    #: None if the training was too short to tell.
    speed: Speed | None = None


TrainingEvent: TypeAlias = Started | Metrics | Piece | Alive | Saved | Noted | Finished
