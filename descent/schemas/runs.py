"""The bodies of runs, their curves, events and checkpoints."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from descent.fields import Strict
from descent.schemas.common import (
    CheckpointId,
    DatasetVersionRef,
    DescribedBy,
    EventKind,
    ModelVersionRef,
    Notice,
    Number,
    Problem,
    RunId,
    RunState,
    Split,
    SweepId,
    Wire,
)
from descent.schemas.models import Calibration, ModelMetrics
from descent.spec import Name, RunConfig, Tags


class Progress(Wire):
    """The progress of a run."""

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
    """The durations of a run's phases."""

    queued_s: float | None = None
    start_s: float | None = None
    training_s: float | None = None
    #: the part of the training time that was spent on checkpoints
    saving_s: float | None = None


class SweepMember(Wire):
    """The place of a run in a sweep."""

    id: SweepId
    trial: int


class Run(Wire):
    """One training job and its results."""

    id: RunId
    name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    state: RunState
    state_reason: str | None = None
    #: the number of the attempt; it grows when another worker takes over the run
    attempt: int
    dataset: DatasetVersionRef
    #: complete: every field has a value
    config: Annotated[dict[str, Any], DescribedBy(RunConfig)]
    progress: Progress | None = None
    #: the latest value by split and metric
    latest: dict[str, dict[str, Number]] | None = None
    best: Best | None = None
    #: the metrics of the kept model, once the run has ended
    evaluation: Annotated[dict[str, Any], DescribedBy(ModelMetrics)] | None = None
    device: str | None = None
    #: kernel (compiled), chunked (torch) or autograd (any net)
    engine: str | None = None
    queue_position: int | None = None
    not_before: datetime | None = None
    timings: Timings = Field(default_factory=Timings)
    warnings: list[Notice] = Field(default_factory=list)
    error: Problem | None = None
    model: ModelVersionRef | None = None
    retry_of: RunId | None = None
    #: the sweep that the run is a member of
    sweep: SweepMember | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class RunPatch(Strict):
    """The fields of a run that can change: its name and tags."""

    name: Annotated[str, Field(max_length=256)] | None = None
    tags: Tags | None = None


class Estimate(Wire):
    """The estimated cost of a run."""

    parameters: int
    steps: int
    memory_bytes: int = Field(
        description="The most resident memory of the training process, libraries included."
    )
    disk_bytes: int = Field(
        0,
        description="Bytes of the worker's disk for the encoded rows, if they need more memory than"
        " a training may take; 0 if they stay in memory.",
    )
    seconds: float


class RunPlan(Wire):
    """A validated, complete configuration; no run is made."""

    config: Annotated[dict[str, Any], DescribedBy(RunConfig)]
    warnings: list[Notice] = Field(default_factory=list)
    estimate: Estimate
    #: the network: its `operations` in order, each with the names of what it reads and its result
    net: dict[str, Any] = Field(default_factory=dict)


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
    """The rows as arrays, one per field of `MetricRow`."""

    seq: list[int]
    attempt: list[int]
    epoch: list[int]
    step: list[int]
    split: list[Split]
    name: list[str]
    value: list[Number]
    at_s: list[float]


class Rewind(Wire):
    """Rows of this attempt replaced all rows with a greater `seq`."""

    attempt: int
    after_seq: int


class MetricsPage(Wire):
    """Live rows of a run's curves, and the place to continue reading."""

    data: list[MetricRow] | MetricColumns
    next_after: int
    attempt: int
    rewinds: list[Rewind]
    is_final: bool
    downsampled: bool
    #: the latest event at that time; an event stream from here on brings every later row
    last_event_id: int | None = None


class TargetPoints(Wire):
    """The actual and the predicted values of a target, row by row."""

    target: str
    actual: list[float]
    predicted: list[float]


class RocCurve(Wire):
    """The ROC curve of a class: both rates at each threshold."""

    #: the class; of two classes the second one
    label: str
    auc: float | None = None
    false_positive_rate: list[float]
    true_positive_rate: list[float]
    threshold: list[float]


class Evaluation(Wire):
    """Predictions of a run's best checkpoint on rows of one split, for plots."""

    split: Split
    #: the number of rows of the split
    rows: int
    #: the number of rows in `points` or `curves`
    shown: int
    #: for a regression
    points: list[TargetPoints]
    #: for a classification
    curves: list[RocCurve]


class Bounded(Wire):
    """A number with its bootstrap interval; the bounds are null for a single row."""

    value: float
    low: float | None = None
    high: float | None = None


class ComparedBaseline(Wire):
    """A simple model, fitted to the same training rows and scored on the same held-out rows."""

    #: the same prediction for every row; a closed-form linear model; a few boosted trees
    name: Literal["constant", "linear", "trees"]
    score: Bounded
    #: the score of the run's model less that of the baseline: below 0 the model is better
    difference: Bounded
    verdict: Literal["better", "not_distinguishable", "worse"]


class Report(Wire):
    """How a run's model compares with simple ones, and what makes its scores doubtful."""

    split: Split
    #: the rows that were compared; of a large split evenly spaced ones
    rows: int
    #: the level of the intervals of scores, and of those of differences
    level: float
    difference_level: float
    #: less is better; `nrmse` of several targets is in standard deviations of each
    metric: Literal["rmse", "nrmse", "cross_entropy"]
    score: Bounded
    baselines: list[ComparedBaseline]
    findings: list[Notice]
    calibration: Calibration | None = None


class NamedShape(Wire):
    """A parameter of a network, with the shape of its array."""

    name: str
    shape: list[int]


class Axis(Wire):
    """A numeric column that a plot can use as an axis."""

    column: str
    #: its index in an encoded row
    place: int
    min: float
    max: float


class TargetUnits(Wire):
    """The decoding of the network's outputs: output · scale + center, or softmax for classes."""

    classes: list[str] | None = None
    center: list[float]
    scale: list[float]


class EncodedRows(Wire):
    """Rows as the network's input."""

    x: list[list[float]]
    #: by row: the targets' values in their own units, or the index of the class
    truth: list[Any]
    split: list[Split]


class LineFacts(Wire):
    """Exact results for a linear model, computed without training."""

    #: `{"weights", "bias"}` in the columns' own units by output; null for classes
    closed_form: dict[str, Any] | None = None
    #: for full-batch gradient descent on a quadratic loss; above it, training diverges
    largest_learning_rate: float | None = None


class TrajectorySubject(Wire):
    """The network of a trajectory, and a sample of its rows.

    An encoded number is (value - center) / scale, for the column that its label names.
    """

    #: its `operations` in order, each with the names of what it reads and its result
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
    #: the number of rows by split
    rows: dict[str, int]
    #: a sample of the rows, or all if they are few
    sample: EncodedRows
    #: null unless the model is linear and the table small enough
    line: LineFacts | None = None


class Trajectory(Wire):
    """All parameters of a small network after every epoch, or after evenly spaced epochs."""

    attempt: int
    #: null if the network is too large, or before the first attempt starts
    subject: TrajectorySubject | None = None
    epochs: list[int]
    #: the number of steps until each of the epochs
    steps: list[int]
    #: the parameters after each of the epochs, in the order of the subject's `parameters`
    frames: list[list[float]]
    #: the epoch to continue reading from; null if no more epochs exist yet
    next_after: int | None = None
    is_final: bool


class RunEvent(Wire):
    """An event of a run."""

    #: 1, 2, 3, … per run: the `id` of the event in a stream
    seq: int
    event: EventKind
    attempt: int
    data: dict[str, Any]
    created_at: datetime


class Checkpoint(Wire):
    """The state of a run at one step, with the parameters of the best epoch until then.

    Training resumes at `epoch` and `step`. `metrics` and predictions belong to `metrics_epoch`,
    which is null before the end of the first epoch.
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
    """The model to register the checkpoint under."""

    model: Name
