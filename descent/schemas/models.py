"""The bodies of models, their metrics and predictions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from descent.fields import WHOLE, Strict
from descent.schemas.common import (
    BatchId,
    CheckpointId,
    DatasetVersionRef,
    DescribedBy,
    Notice,
    Problem,
    RunId,
    RunState,
    Scalar,
    Wire,
)
from descent.schemas.datasets import TopValue
from descent.spec import ColumnType, DatasetRef, Name


class Model(Wire):
    """A name with its versions."""

    name: str
    #: the newest existing version
    latest_version: int | None = None
    aliases: dict[str, int] = Field(default_factory=dict)
    created_at: datetime


class ValueRange(Wire):
    """The smallest and the greatest value."""

    min: float
    max: float


class InputColumn(Wire):
    """A column that the model reads; numbers of a datetime are seconds since 1970, UTC."""

    name: str
    type: ColumnType
    #: whether every training row had a value
    required: bool = False
    #: the number of training rows without a value
    missing: int = 0
    #: the replacement of a missing value: the mean of the training rows, the category of values
    #: that were missing or rare in training, or the categories' shares of the training rows
    missing_as: Literal["mean", "other", "shares"] | None = None
    mean: float | None = None
    std: float | None = None
    #: of the training rows; a value outside causes a warning
    min: float | None = None
    max: float | None = None
    #: values outside are clipped, with a warning
    clip: ValueRange | None = None
    #: the categories of the training rows, most frequent first
    categories: list[TopValue] | None = None
    #: the number of training rows with a category that is not in the list
    rare: int | None = None
    #: how the text of a cell is read: its type, and the marks that differ from the default; null
    #: in versions that were made before readings were stored
    reading: dict[str, Any] | None = None


class OutputColumn(Wire):
    """A column that the model predicts."""

    name: str
    type: ColumnType
    classes: list[Scalar] | None = None
    #: of the training rows
    min: float | None = None
    max: float | None = None


class Signature(Wire):
    """The columns that a model reads and predicts."""

    inputs: list[InputColumn]
    outputs: list[OutputColumn]


class Imported(Wire):
    """The bundle that a version was imported from, and the origin that it names."""

    #: of the bundle
    sha256: str
    #: the version of Descent that exported it
    descent: str
    #: the name of the model where it was exported
    model: str
    version: int
    run: str | None = None
    dataset: dict[str, Any] | None = None
    created_at: str


class ColumnImportance(Wire):
    """The increase of the error when a column is shuffled, over several shuffles."""

    column: str
    mean: float
    std: float


class Importance(Wire):
    """The permutation importance of each column."""

    #: the split of the rows; `train` if no rows were held out
    split: str
    #: the measured cost: the fall of `r2`, or for classes the rise of `cross_entropy`
    metric: Literal["r2", "cross_entropy"]
    rows: int
    shuffles: int
    #: the most important one first
    columns: list[ColumnImportance]


class RegressionMetrics(Wire):
    """The errors of predicted numbers in the target's own units; null if not finite.

    For several targets these are means over the targets, and `targets` holds each target's.
    """

    sse: float | None
    mse: float | None
    mae: float | None
    rmse: float | None
    #: null if all rows have the same value
    r2: float | None
    targets: dict[str, "RegressionMetrics"] | None = None


class ClassMetrics(Wire):
    """How well one class is recognised; a metric that the rows do not define is null."""

    precision: float | None
    recall: float | None
    f1: float | None
    #: the number of rows of the class
    support: int


class Confusion(Wire):
    """Counts of rows: `matrix[i][j]` rows of class `labels[i]` were predicted as `labels[j]`."""

    labels: list[str]
    matrix: list[list[int]]


class ClassificationMetrics(Wire):
    """How well classes are predicted; a metric that the rows do not define is null."""

    accuracy: float | None
    cross_entropy: float | None
    #: only for two classes
    auc: float | None
    #: the mean over the classes
    f1: float | None
    classes: dict[str, ClassMetrics]
    confusion: Confusion


class BaselineMetrics(Wire):
    """The metrics of predictions without a network, on one split."""

    split: str
    #: for the mean of the training rows, or for their classes' shares
    constant: RegressionMetrics | ClassificationMetrics
    #: for least squares; only for a regression on a table that is small enough
    linear: RegressionMetrics | None = None


class Coverage(Wire):
    """The share of rows whose interval or set held the true value, for one level."""

    level: float
    reached: float
    #: the rows that it was measured on, which the calibration did not use
    rows: int


class ConfidenceBin(Wire):
    """The rows whose predicted class had a probability within one tenth of 0 to 1."""

    from_: float = Field(alias="from")
    to: float
    rows: int
    #: the mean probability, and the share of right predictions
    confidence: float
    accuracy: float


class Reliability(Wire):
    """How well probabilities agree with the share of right predictions."""

    rows: int
    #: the expected calibration error: the mean distance over the rows
    ece: float
    bins: list[ConfidenceBin]


class Calibration(Wire):
    """The calibration of a model's intervals and sets, which `?interval=` adds to predictions."""

    #: `conformal` by the errors of held-out rows, or `exact` for a line of least squares; absent
    #: if there are only probabilities
    method: Literal["conformal", "exact"] | None = None
    #: the rows that calibrate
    split: str | None = None
    rows: int | None = None
    #: the highest level for which these rows suffice
    most_level: float | None = None
    coverage: list[Coverage] = Field(default_factory=list)
    #: only for classes
    reliability: Reliability | None = None


class LearningRates(Wire):
    """The result of a test of learning rates, `lr_range`."""

    learning_rates: list[float]
    #: the loss of the batch at each rate, before its step
    losses: list[float]
    #: where the smoothed loss falls fastest; null if it falls nowhere
    suggested: float | None = None
    #: the least and the largest rate around it at which the loss falls at least half as fast
    range: list[float] | None = None
    #: whether the fall is large, and larger than its noise
    is_sure: bool
    detail: str


class ModelMetrics(Wire):
    """The metrics of a model on each split that has rows, beside those of baselines."""

    train: RegressionMetrics | ClassificationMetrics | None = None
    validation: RegressionMetrics | ClassificationMetrics | None = None
    test: RegressionMetrics | ClassificationMetrics | None = None
    baseline: BaselineMetrics | None = None
    #: absent if it would take too long to compute
    importance: Importance | None = None
    #: absent without held-out rows, except for a line of least squares
    calibration: Calibration | None = None
    #: only of a run with `lr_range`, which has no other metrics
    lr_range: LearningRates | None = None


class ProofDetails(Wire):
    """The comparison of all prediction paths of a version, row by row."""

    rows: int
    #: held-out rows, else training rows; golden rows of the bundle if the table is missing
    source: Literal["held_out", "training", "golden"]
    #: the largest difference from the training process's predictions, by path. For numbers it is
    #: relative to the larger of the value and the target's standard deviation, for probabilities
    #: absolute; null if a prediction is missing
    ways: dict[str, float | None]
    #: the number of rows that a path cannot represent, by path
    left_out: dict[str, int] = Field(default_factory=dict)
    #: the largest difference of all paths
    largest: float | None
    #: the largest difference that passes
    tolerance: float
    seconds: float
    finished_at: datetime


class ModelVersion(Wire):
    """An immutable trained model with its lineage."""

    model: str
    version: int
    aliases: list[str] = Field(default_factory=list)
    #: null for an imported version, as the next two
    run_id: RunId | None = None
    checkpoint_id: CheckpointId | None = None
    dataset: DatasetVersionRef | None = None
    imported: Imported | None = None
    #: the run's `RunConfig`; for an imported version the bundle's, of whichever release made it
    config: dict[str, Any]
    signature: Signature
    #: `ModelMetrics` without the importance; for an imported version as the bundle has them
    metrics: dict[str, Any]
    #: null for a checkpoint that is not its run's result, or if it would take too long to compute
    importance: Importance | None = None
    bytes: int
    sha256: str
    #: whether all prediction paths agree; only then can an alias point to the version
    proof: Literal["pending", "passed", "failed"] = "pending"
    proof_details: ProofDetails | None = None
    #: the reason why the proof failed
    proof_error: Annotated[dict[str, Any], DescribedBy(Problem)] | None = None
    created_at: datetime


class ClosedForm(Wire):
    """The least-squares solution."""

    weights: dict[str, Any]
    bias: Any
    sse: Any


class Parameters(Wire):
    """The parameters of a linear model in the columns' own units, by target for several targets."""

    weights: dict[str, Any]
    bias: Any
    #: the sum of squared errors; null if the training rows were missing when the version was made
    sse: Any = None
    closed_form: ClosedForm | None = None


class Canary(Wire):
    """The version that answers a share of the alias's requests."""

    version: int
    percent: float


class Shadow(Wire):
    """The version that gets copies of the alias's requests; its answers are only compared."""

    version: int


class Alias(Wire):
    """A name such as `champion` that points to a version."""

    model: str
    alias: str
    version: int
    canary: Canary | None = None
    shadow: Shadow | None = None
    created_at: datetime
    updated_at: datetime


class AliasMove(Wire):
    """A move of an alias: its new target, the time and the API key."""

    #: counts the moves of the alias
    revision: int
    how: Literal["put", "rollback"]
    version: int
    canary: Canary | None = None
    shadow: Shadow | None = None
    #: the API key of the request; null without one, or for DESCENT_API_KEY of the service
    key_id: str | None = None
    moved_at: datetime


VersionNumber = Annotated[int, Field(ge=1, lt=2**31), WHOLE]


class CanaryPut(Strict):
    """The version to answer a share of the requests, and that share."""

    version: VersionNumber
    percent: Annotated[float, Field(gt=0, lt=100)]


class ShadowPut(Strict):
    """The version to send copies of the requests to."""

    version: VersionNumber


class AliasPut(Strict):
    """The target of an alias. Without `canary` or `shadow`, an existing one ends."""

    version: VersionNumber
    canary: CanaryPut | None = None
    shadow: ShadowPut | None = None

    @model_validator(mode="after")
    def _others(self) -> "AliasPut":
        for name, other in (("canary", self.canary), ("shadow", self.shadow)):
            if other is not None and other.version == self.version:
                raise ValueError(f"the {name} must be another version than {self.version}")
        return self


class PredictRequest(Strict):
    """A table by rows or by columns. An absent key and null are missing values."""

    rows: list[dict[str, Scalar]] | None = None
    columns: dict[str, list[Scalar]] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "PredictRequest":
        if (self.rows is None) == (self.columns is None):
            raise ValueError("send either rows or columns")
        return self


class PredictionError(Wire):
    """The reason why a row has no prediction."""

    code: str
    detail: str
    column: str | None = None


class Explanation(Wire):
    """The contribution of each column to a prediction: base and contributions add up to it.

    They explain the value of a regression, or the log-odds, log(p / (1 - p)), of the predicted
    class. The base is the prediction for a row whose values are all unknown.
    """

    base: float
    contributions: dict[str, float]


class Prediction(Wire):
    """The prediction for one row."""

    #: of the target's type; an object for several targets; null with an `error`
    value: Scalar | dict[str, Scalar]
    #: the probability by class, or by target and class
    probabilities: dict[str, float] | dict[str, dict[str, float]] | None = None
    #: with `interval`: the lower and the upper bound; by target for several targets
    interval: list[float] | dict[str, list[float]] | None = None
    #: with `interval`: the classes that hold the true one at this level, likeliest first
    set: list[Scalar] | None = None
    #: with `explain=true`; by target for several targets
    explanation: Explanation | dict[str, Explanation] | None = None
    warnings: list[Notice] | None = None
    error: PredictionError | None = None


class Predictions(Wire):
    """One prediction for each row, in order."""

    #: null for a run that registered no version
    model: str | None = None
    version: int | None = None
    #: only for predictions of a run
    run: str | None = None
    checkpoint: str | None = None
    predictions: list[Prediction]


class ModelRef(Strict):
    """A version of a model, by number or by alias; with neither it is the newest version."""

    name: Name
    version: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = None
    alias: Name | None = None

    @model_validator(mode="after")
    def _not_both(self) -> "ModelRef":
        if self.version is not None and self.alias is not None:
            raise ValueError("name a version or an alias, not both")
        return self


class BatchPredictionRequest(Strict):
    """The rows to predict, and the model."""

    #: a name means the newest version; an alias is resolved when the request arrives
    model: Name | ModelRef
    #: an id means the newest version
    dataset: str | DatasetRef
    #: of the new dataset
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    on_problem: Literal["warn", "error"] = "warn"
    #: the level of intervals of numbers, or of sets of classes, which become columns
    interval: Annotated[float, Field(ge=0.5, le=0.99)] | None = None


class PredictingVersion(Wire):
    """The version of a model that predicts."""

    name: str
    version: int
    #: the alias in the request
    alias: str | None = None


class AddedColumn(Wire):
    """A column that the batch prediction adds to those of the dataset."""

    name: str
    holds: Literal["prediction", "low", "high", "set", "probability", "warnings", "error"]
    #: of the interval or the set
    level: float | None = None
    #: the target that is predicted
    target: str | None = None
    #: the class of the probability
    class_: Any = Field(None, alias="class")


class BatchProgress(Wire):
    """The number of rows that are done."""

    done: int
    rows: int
    fraction: float


class BatchPrediction(Wire):
    """Predictions for all rows of a dataset, which become a new dataset."""

    id: BatchId
    name: str
    state: RunState
    state_reason: str | None = None
    #: the number of the attempt; it grows when another worker takes over the job
    attempt: int
    model: PredictingVersion
    dataset: DatasetVersionRef
    on_problem: Literal["warn", "error"]
    #: the new dataset, once the job has succeeded
    result: DatasetVersionRef | None = None
    #: columns of the result that the dataset does not have
    added_columns: list[AddedColumn]
    #: columns of the dataset that the model does not read
    ignored_columns: list[str]
    progress: BatchProgress
    #: rows of the dataset
    rows: int
    #: rows so far without a prediction; their column `error` holds the reason
    errors: int
    #: rows so far with a warning, by its code
    warnings: dict[str, int]
    error: Problem | None = None
    not_before: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
