"""The bodies of runs, their curves, events and checkpoints."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from descent.schemas.wire import (
    CheckpointId,
    DatasetId,
    EventKind,
    Notice,
    Number,
    Problem,
    RunId,
    RunState,
    Split,
    Wire,
)
from descent.spec import Name
from descent.strict import Strict


class DatasetVersionRef(Wire):
    """Which version of which dataset."""

    id: DatasetId
    version: int


class ModelVersionRef(Wire):
    """Which version of which model."""

    name: str
    version: int


class Progress(Wire):
    """How far a run is."""

    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float
    eta_s: float | None = None


class Best(Wire):
    """The best epoch so far."""

    epoch: int
    split: str
    name: str
    value: Number


class Timings(Wire):
    """Where the time went."""

    queued_s: float | None = None
    start_s: float | None = None
    training_s: float | None = None
    #: how much of it went into checkpoints
    saving_s: float | None = None


class Run(Wire):
    """One training job and all that it leaves."""

    id: RunId
    name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    state: RunState
    state_reason: str | None = None
    #: the number of the try; it grows when another worker takes the run over
    attempt: int
    dataset: DatasetVersionRef
    #: the normalised `RunConfig`
    config: dict[str, Any]
    progress: Progress | None = None
    #: split → metric → newest value
    latest: dict[str, dict[str, Number]] | None = None
    best: Best | None = None
    #: split → metrics of the model that is kept, once the run has ended
    evaluation: dict[str, Any] | None = None
    device: str | None = None
    queue_position: int | None = None
    not_before: datetime | None = None
    timings: Timings = Timings()
    warnings: list[Notice] = Field(default_factory=list)
    error: Problem | None = None
    model: ModelVersionRef | None = None
    retry_of: RunId | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class RunPatch(Strict):
    """What of a run may be changed: how it is called."""

    name: Annotated[str, Field(max_length=256)] | None = None
    tags: (
        Annotated[
            dict[
                Annotated[str, Field(min_length=1, max_length=64)],
                Annotated[str, Field(max_length=256)],
            ],
            Field(max_length=64),
        ]
        | None
    ) = None


class Estimate(Wire):
    """What a run would cost."""

    parameters: int
    steps: int
    memory_bytes: int
    seconds: float


class RunPlan(Wire):
    """A validated configuration; no run is made."""

    config: dict[str, Any]
    warnings: list[Notice] = Field(default_factory=list)
    estimate: Estimate


class MetricRow(Wire):
    """One value of a curve."""

    seq: int
    attempt: int
    epoch: int
    step: int
    split: Split
    name: str
    value: Number
    at_s: float


class MetricColumns(Wire):
    """The same as arrays, one per field of `MetricRow`."""

    seq: list[int]
    attempt: list[int]
    epoch: list[int]
    step: list[int]
    split: list[Split]
    name: list[str]
    value: list[Number]
    at_s: list[float]


class Rewind(Wire):
    """Rows with a greater `seq` were replaced by those of this attempt."""

    attempt: int
    after_seq: int


class MetricsPage(Wire):
    """Live rows of a run's curves and where to read on."""

    data: list[MetricRow] | MetricColumns
    next_after: int
    attempt: int
    rewinds: list[Rewind]
    is_final: bool
    downsampled: bool
    #: the newest event then: a stream from after it brings every later row, so none is missed
    last_event_id: int | None = None


class TargetPoints(Wire):
    """What was predicted for each row, beside what is true; a row in each list."""

    target: str
    actual: list[float]
    predicted: list[float]


class RocCurve(Wire):
    """How many of the others are taken for a class at each threshold, and how many of its own."""

    #: the class; of two the second one
    label: str
    auc: float | None = None
    false_positive_rate: list[float]
    true_positive_rate: list[float]
    threshold: list[float]


class Evaluation(Wire):
    """How a run's best checkpoint does on rows of one split, for pictures."""

    split: Split
    #: of the split
    rows: int
    #: how many of them are in here
    shown: int
    #: of a regression
    points: list[TargetPoints]
    #: of classes
    curves: list[RocCurve]


class NamedShape(Wire):
    """A parameter of a net: its place in the net, and how many numbers it is."""

    name: str
    shape: list[int]


class Axis(Wire):
    """A column of numbers that a picture may have as an axis."""

    column: str
    #: which number of an encoded row it is
    place: int
    min: float
    max: float


class TargetUnits(Wire):
    """How the net's outputs become values: output · scale + center, or softmax for classes."""

    classes: list[str] | None = None
    center: list[float]
    scale: list[float]


class EncodedRows(Wire):
    """Rows as the net sees them."""

    x: list[list[float]]
    #: numbers in the target's own units, by row and target; or the number of the class, by row
    truth: list[Any]
    split: list[Split]


class LineFacts(Wire):
    """What needs no training for a linear model."""

    #: output → `{"weights", "bias"}` in the columns' own units; null for classes
    closed_form: dict[str, Any] | None = None
    #: of plain gradient descent on all rows, for a loss whose surface is a parabola
    largest_learning_rate: float | None = None


class TrajectorySubject(Wire):
    """What the frames of a trajectory are frames of.

    An encoded number is (value - center) / scale of the column that its label names.
    """

    #: the layers, input side first
    net: dict[str, Any]
    parameters: list[NamedShape]
    labels: list[str]
    centers: list[float]
    scales: list[float]
    axes: list[Axis]
    #: the targets, or the classes
    outputs: list[str]
    target: TargetUnits
    loss: str
    steps_per_epoch: int
    #: how many rows each split has
    rows: dict[str, int]
    #: some of them: all, where they are few
    sample: EncodedRows
    #: null unless the model is linear and the rows are few enough
    line: LineFacts | None = None


class Trajectory(Wire):
    """All parameters of a small net after each epoch, or after some, evenly spread."""

    attempt: int
    #: null for a net that is too large, or before the first attempt has started
    subject: TrajectorySubject | None = None
    epochs: list[int]
    #: steps that were made by then
    steps: list[int]
    #: the parameters at each of the epochs, in the order of the subject's `parameters`
    frames: list[list[float]]
    #: the epoch to read on from; null where these are all that there are by now
    next_after: int | None = None
    is_final: bool


class RunEvent(Wire):
    """Something that happened to a run."""

    #: 1, 2, 3, … per run: the `id` of the event in a stream
    seq: int
    event: EventKind
    attempt: int
    data: dict[str, Any]
    created_at: datetime


class Checkpoint(Wire):
    """The state of a run at one step, with the parameters of the best epoch until then.

    `epoch` and `step` are where training goes on from; `metrics` and predictions are those of
    `metrics_epoch`, which is null before the first epoch has ended.
    """

    id: CheckpointId
    run_id: RunId
    attempt: int
    epoch: int
    step: int
    metrics: dict[str, Any]
    metrics_epoch: int | None = None
    bytes: int
    sha256: str
    is_best: bool
    created_at: datetime


class CheckpointRegister(Strict):
    """The model that the checkpoint becomes a version of."""

    model: Name
