"""The bodies of models and predictions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from descent.schemas.datasets import TopValue
from descent.schemas.runs import DatasetVersionRef
from descent.schemas.wire import CheckpointId, ColumnType, Notice, RunId, Scalar, Wire
from descent.strict import WHOLE, Strict


class Model(Wire):
    """A name under which versions are published."""

    name: str
    #: the newest version that exists
    latest_version: int | None = None
    aliases: dict[str, int] = Field(default_factory=dict)
    created_at: datetime


class Limits(Wire):
    """The least and the greatest value."""

    min: float
    max: float


class InputColumn(Wire):
    """A column that the model reads; datetimes are told in seconds since 1970, UTC."""

    name: str
    type: ColumnType
    #: whether every training row had a value
    required: bool = False
    #: how many training rows had none
    missing: int = 0
    #: what stands in for a missing value: the training rows' mean, the column of those that were
    #: missing or rare in training, or the training rows' share of each category
    missing_as: Literal["mean", "other", "shares"] | None = None
    mean: float | None = None
    std: float | None = None
    #: of the training rows; a value outside gets a warning
    min: float | None = None
    max: float | None = None
    #: beyond these, values are clipped, with a warning
    clip: Limits | None = None
    #: the categories of the training rows, most frequent first
    categories: list[TopValue] | None = None
    #: how many training rows had a category that is not listed
    rare: int | None = None


class OutputColumn(Wire):
    """A column that the model predicts."""

    name: str
    type: ColumnType
    classes: list[Scalar] | None = None
    #: of the training rows
    min: float | None = None
    max: float | None = None


class Signature(Wire):
    """What goes in and what comes out."""

    inputs: list[InputColumn]
    outputs: list[OutputColumn]


class Imported(Wire):
    """Which bundle a version came from, and what that said of its origin."""

    #: of the bundle
    sha256: str
    #: the version of Descent that exported it
    descent: str
    #: what it was called there
    model: str
    version: int
    run: str | None = None
    dataset: dict[str, Any] | None = None
    created_at: str


class ColumnImportance(Wire):
    """What shuffling a column costs the predictions, over several shuffles."""

    column: str
    mean: float
    std: float


class Importance(Wire):
    """How much each column is worth to the model: its permutation importance."""

    #: where the rows come from; `train` where none were held out
    split: str
    #: what shuffling costs: the fall of `r2`, or the rise of `cross_entropy` for classes
    metric: Literal["r2", "cross_entropy"]
    rows: int
    shuffles: int
    #: the most important one first
    columns: list[ColumnImportance]


class ProofDetails(Wire):
    """What a version was proved by: rows that went through every way of asking it."""

    rows: int
    #: held-out rows; training rows where none were; golden rows where the table was not at hand
    source: Literal["held_out", "training", "golden"]
    #: by way the largest difference from what training computes: of a number in units of the larger
    #: of it and its target's standard deviation, of a share itself; null where an answer is lacking
    ways: dict[str, float | None]
    #: by way the rows that it has no words for
    left_out: dict[str, int] = Field(default_factory=dict)
    #: the largest of all ways
    largest: float | None
    #: what each difference may be at most
    tolerance: float
    seconds: float
    finished_at: datetime


class ModelVersion(Wire):
    """An immutable trained model with its lineage."""

    model: str
    version: int
    aliases: list[str] = Field(default_factory=list)
    #: these three are null where the version was imported
    run_id: RunId | None = None
    checkpoint_id: CheckpointId | None = None
    dataset: DatasetVersionRef | None = None
    imported: Imported | None = None
    config: dict[str, Any]
    signature: Signature
    metrics: dict[str, Any]
    #: null for a checkpoint that is not its run's result, or where it would have taken too long
    importance: Importance | None = None
    bytes: int
    sha256: str
    #: whether it answers the same whichever way it is asked; no alias points to it before
    proof: Literal["pending", "passed", "failed"] = "pending"
    proof_details: ProofDetails | None = None
    #: why the proof failed: a problem object
    proof_error: dict[str, Any] | None = None
    created_at: datetime


class ClosedForm(Wire):
    """The least-squares solution."""

    weights: dict[str, Any]
    bias: Any
    sse: Any


class Parameters(Wire):
    """The numbers of a linear model in the columns' own units, by target if there are several."""

    weights: dict[str, Any]
    bias: Any
    #: null where the training rows were not at hand when the version was made
    sse: Any = None
    closed_form: ClosedForm | None = None


class Canary(Wire):
    """The version that answers a share of an alias's requests in its place."""

    version: int
    percent: float


class Shadow(Wire):
    """The version that computes an alias's answers too, and is only compared."""

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
    """What an alias was made to point to, when, and by whom."""

    #: counts the moves of the alias
    revision: int
    how: Literal["put", "rollback"]
    version: int
    canary: Canary | None = None
    shadow: Shadow | None = None
    #: the API key that did it; null without one, or with that of DESCENT_API_KEY
    key_id: str | None = None
    moved_at: datetime


VersionNumber = Annotated[int, Field(ge=1, lt=2**31), WHOLE]


class CanaryPut(Strict):
    """The version that shall answer this share of the requests, and how large it is."""

    version: VersionNumber
    percent: Annotated[float, Field(gt=0, lt=100)]


class ShadowPut(Strict):
    """The version that shall compute the same answers, to be compared."""

    version: VersionNumber


class AliasPut(Strict):
    """What the alias shall point to; a canary or shadow that is not named ends."""

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
    """Rows, or the same column by column. An absent key and null mean missing."""

    rows: list[dict[str, Scalar]] | None = None
    columns: dict[str, list[Scalar]] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "PredictRequest":
        if (self.rows is None) == (self.columns is None):
            raise ValueError("send either rows or columns")
        return self


class PredictionError(Wire):
    """Why this row could not be predicted."""

    code: str
    detail: str
    column: str | None = None


class Explanation(Wire):
    """How the columns led to a number: base and contributions add up to it.

    The number is the value of a regression, and the log-odds, log(p / (1 - p)), of the class that
    was predicted. The base is that number for a row of which nothing is known.
    """

    base: float
    contributions: dict[str, float]


class Prediction(Wire):
    """The answer to one row."""

    #: of the target's own type; an object where there are several targets; null with an `error`
    value: Scalar | dict[str, Scalar]
    #: class → probability
    probabilities: dict[str, float] | dict[str, dict[str, float]] | None = None
    #: with `explain=true`; by target where there are several
    explanation: Explanation | dict[str, Explanation] | None = None
    warnings: list[Notice] | None = None
    error: PredictionError | None = None


class Predictions(Wire):
    """One prediction for each row, in order."""

    #: null where a run was asked that made no version
    model: str | None = None
    version: int | None = None
    #: only where a run was asked
    run: str | None = None
    checkpoint: str | None = None
    predictions: list[Prediction]
