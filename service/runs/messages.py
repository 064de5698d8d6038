"""What a trainer is given, and the messages that it sends. Knows no database."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from descent.spec import ColumnType
from models.training.interface import Best, Frame, MetricRow, Progress
from service.jobs.pipe import Began, FileMessage, Heartbeat, Message

BYTES = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class TrainingJob(BaseModel):
    """One attempt at a run: its configuration, and its files in the scratch folder."""

    run_id: str
    attempt: int
    config: dict[str, Any]
    #: name of each column of the table → its type
    columns: dict[str, ColumnType]
    table: Path
    scratch: Path
    #: the checkpoint to go on from
    resume: Path | None
    #: the last metric row that is stored at `resume`
    seq: int
    #: seconds that earlier attempts trained, and that they waited for checkpoints
    elapsed_s: float
    saving_s: float
    #: seconds between two checkpoints; None weighs their cost
    checkpoint_s: float | None


class TrainingBegan(Began):
    """The first step is about to be made."""

    model_config = BYTES

    device: str
    warnings: list[dict[str, Any]]
    #: the columns and nets that the frames are of; None where the net is too large for frames
    subject: dict[str, Any] | None
    frames: list[Frame]


class MetricRows(Message):
    """Rows of the curves, and the progress by now."""

    model_config = BYTES

    type: Literal["metrics"] = "metrics"
    rows: list[MetricRow]
    frames: list[Frame]
    progress: Progress
    best: Best | None


class TrainingHeartbeat(Heartbeat):
    """The training makes steps but has no new rows."""

    progress: Progress


class CheckpointFile(FileMessage):
    """A checkpoint that is complete on disk; see `models.training.state.interface.Saved`."""

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
    """A line for the run's log."""

    type: Literal["log"] = "log"
    line: str


class TrainingEnded(Message):
    """The training is over, with a result."""

    type: Literal["finished"] = "finished"
    is_last: ClassVar[bool] = True

    #: why it ended before its last epoch
    reason: str | None
    evaluation: dict[str, Any] | None
    parameters: dict[str, Any] | None
    warnings: list[dict[str, Any]]
    #: the inputs and outputs of the best checkpoint's model
    signature: dict[str, Any] | None
