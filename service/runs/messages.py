"""The input of a training process and the messages that it sends. Knows no database."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from descent.spec import ColumnType
from models.engine import EngineName
from models.training.interface import Best, Frame, MetricRow, Progress, Speed
from service.datasets.messages import VersionReading
from service.jobs.pipe import Began, FileMessage, Heartbeat, Message

BYTES = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class TrainingJob(BaseModel):
    """One attempt at a run: its configuration, and its files in the scratch folder."""

    run_id: str
    attempt: int
    config: dict[str, Any]
    #: column name → its type
    columns: dict[str, ColumnType]
    reading: VersionReading = Field(default_factory=VersionReading)
    table: Path
    scratch: Path
    #: the checkpoint to resume from; None starts from the beginning
    resume: Path | None
    #: the number of the last metric row that `resume` covers
    seq: int
    #: seconds that earlier attempts spent on training, and on writing checkpoints
    elapsed_s: float
    saving_s: float
    #: seconds between two checkpoints; None chooses the interval by the cost of a checkpoint
    checkpoint_s: float | None
    #: the engine to use if it can; None chooses the fastest
    engine: EngineName | None = None
    #: the epoch at whose end the training pauses by itself
    pause_after: int | None = None
    #: the memory that the process may take; None: as much as the machine has free
    memory_bytes: int | None = None


class TrainingGroup(BaseModel):
    """Attempts at several runs, to train in one process."""

    jobs: list[TrainingJob]


class TrainingBegan(Began):
    """The training is about to make its first step."""

    model_config = BYTES

    device: str
    engine: EngineName
    warnings: list[dict[str, Any]]
    #: describes the columns and the net of the frames; None if the net is too large for frames
    subject: dict[str, Any] | None
    frames: list[Frame]


class MetricRows(Message):
    """New metric rows and the current progress."""

    model_config = BYTES

    type: Literal["metrics"] = "metrics"
    rows: list[MetricRow]
    frames: list[Frame]
    progress: Progress
    best: Best | None


class TrainingHeartbeat(Heartbeat):
    """The training advances but has no new metric rows."""

    progress: Progress


class CheckpointFile(FileMessage):
    """A checkpoint whose file is complete; see `models.training.interface.Saved`."""

    type: Literal["checkpoint"] = "checkpoint"
    bytes: int
    epoch: int
    step: int
    seq: int
    metrics: dict[str, dict[str, float]]
    metrics_epoch: int | None
    is_best: bool
    resumable: bool
    progress: Progress | None


class LogLine(Message):
    """A line of the run's log."""

    type: Literal["log"] = "log"
    line: str


class RungReached(Message):
    """The training has paused by itself, at the end of the epoch `pause_after`."""

    type: Literal["rung"] = "rung"
    is_last: ClassVar[bool] = True


class TrainingEnded(Message):
    """The training ended with a result."""

    type: Literal["finished"] = "finished"
    is_last: ClassVar[bool] = True

    #: why the training ended before its last epoch; None after the last epoch
    reason: str | None
    evaluation: dict[str, Any] | None
    parameters: dict[str, Any] | None
    warnings: list[dict[str, Any]]
    #: inputs and outputs of the best checkpoint's model
    signature: dict[str, Any] | None
    #: how fast the training was; None if it was too short to tell
    speed: Speed | None = None
