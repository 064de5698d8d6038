"""The bodies of sweeps: the space of a search, its strategy, and its leaderboard."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from descent.fields import WHOLE, Strict
from descent.schemas.common import (
    DatasetVersionRef,
    DescribedBy,
    ModelVersionRef,
    Notice,
    Number,
    Problem,
    RunId,
    RunState,
    SweepEventKind,
    SweepId,
    Wire,
)
from descent.schemas.runs import Estimate
from descent.spec import Name, RunConfig, Tags

MAX_TRIALS = 1000
MAX_KEYS = 50
MAX_VALUES = 100

Bound = Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e300, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53), WHOLE]
Values = Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_VALUES)]


class GridDimension(Strict):
    """Each of these values; a grid search combines them with those of the other fields."""

    grid: Values


class ChoiceDimension(Strict):
    """One of these values."""

    choice: Values


class UniformDimension(Strict):
    """A number between two bounds."""

    uniform: Annotated[list[Bound], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        _check_bounds("uniform", *self.uniform)
        return self


class LogUniformDimension(Strict):
    """A number between two bounds above 0; its logarithm is uniform."""

    log_uniform: Annotated[list[Positive], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        _check_bounds("log_uniform", *self.log_uniform)
        return self


class IntDimension(Strict):
    """A whole number between two bounds, which are possible values too."""

    int: Annotated[list[Whole], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        _check_bounds("int", *self.int)
        return self


def _check_bounds(name: str, low: float, high: float) -> None:
    if low >= high:
        msg = f"{name} needs a lower bound below the upper one, got {low} and {high}"
        raise ValueError(msg)


KINDS: dict[str, type[Strict]] = {
    "grid": GridDimension,
    "choice": ChoiceDimension,
    "uniform": UniformDimension,
    "log_uniform": LogUniformDimension,
    "int": IntDimension,
}


def _kind_of(value: object) -> str | None:
    """Return the kind of a dimension: the only key of its object."""
    keys = list(value) if isinstance(value, dict) else list(getattr(value, "model_fields_set", ()))
    return keys[0] if len(keys) == 1 and keys[0] in KINDS else None


Dimension = Annotated[
    Annotated[GridDimension, Tag("grid")]
    | Annotated[ChoiceDimension, Tag("choice")]
    | Annotated[UniformDimension, Tag("uniform")]
    | Annotated[LogUniformDimension, Tag("log_uniform")]
    | Annotated[IntDimension, Tag("int")],
    Discriminator(
        _kind_of,
        custom_error_type="dimension",
        custom_error_message=(
            'a field of the space is {"grid": […]}, {"choice": […]}, {"uniform": [low, high]},'
            ' {"log_uniform": [low, high]} or {"int": [low, high]}'
        ),
    ),
]


class GridSearch(Strict):
    """Every combination of the values, in order; each field is a `grid` or a `choice`."""

    type: Literal["grid"] = "grid"


class RandomSearch(Strict):
    """Each trial draws its own value of each field."""

    type: Literal["random"] = "random"


class Tpe(Strict):
    """Tree-structured Parzen estimator (Bergstra et al., 2011).

    The first 10 trials are random. Later trials are chosen near the best ones, `parallel` at a
    time.
    """

    type: Literal["tpe"] = "tpe"
    parallel: Annotated[int, Field(ge=1, le=64), WHOLE] = 4


class Halving(Strict):
    """Successive halving (Jamieson & Talwalkar, 2016) of random trials.

    All members pause after the epochs of a rung; the best of them, one in `factor`, continue
    exactly where they paused, for `factor` times as many epochs. The others are cancelled.
    """

    type: Literal["halving"] = "halving"
    factor: Annotated[int, Field(ge=2, le=10), WHOLE] = 3
    min_epochs: Annotated[
        int | None, Field(ge=1, description="The least epochs of the first rung.")
    ] = None


StrategyName = Literal["grid", "random", "tpe", "halving"]
Strategy = Annotated[GridSearch | RandomSearch | Tpe | Halving, Field(discriminator="type")]

MetricName = Literal[
    "loss", "sse", "mse", "mae", "rmse", "r2", "accuracy", "cross_entropy", "auc", "f1"
]


class SweepMetric(Strict):
    """The metric by which trials are compared.

    `loss` is the loss that chose the kept epoch of a run: on validation rows, or on training rows
    if no rows are held out. All others are metrics of the run's `evaluation`.
    """

    name: MetricName = "loss"
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="Default: `validation`, or `train` if no rows are held out."
    )
    direction: Literal["min", "max"] | None = Field(
        None, description="Default: `max` for r2, accuracy, auc and f1, else `min`."
    )


class SweepBudget(Strict):
    """Limits of a sweep. It ends with the best member so far."""

    time_s: Annotated[
        float | None,
        Field(
            gt=0,
            le=31_536_000,
            allow_inf_nan=False,
            description="No member starts after this time, and none trains for longer than it.",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**53,
            description="The most epochs of all members together; fewer trials are made if they"
            " would need more.",
        ),
    ] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.time_s is None and self.epochs is None:
            msg = "give time_s, epochs or both"
            raise ValueError(msg)
        return self


class SweepRequest(Strict):
    """A search: a run's configuration, and the fields in which its members differ."""

    base: RunConfig
    space: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=200)], Dimension],
        Field(
            min_length=1,
            max_length=MAX_KEYS,
            description="The path of a field of the configuration, such as"
            " `optimizer.learning_rate`, and its values.",
        ),
    ]
    trials: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_TRIALS,
            description="Default: 16, or all combinations in a grid search.",
        ),
    ] = None
    strategy: StrategyName | Strategy | None = Field(
        None, description="Default: `grid` if each field of the space is a `grid`, else `random`."
    )
    metric: SweepMetric | None = Field(None, description="Default: the loss.")
    budget: SweepBudget | None = None
    register_best_as: Name | None = Field(
        None, description="The model whose next version the best member becomes."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32), WHOLE] = 0
    name: Annotated[str, Field(max_length=256)] | None = None
    tags: Annotated[Tags, Field(default_factory=dict)]


class SweepTrial(Wire):
    """One row of a leaderboard."""

    #: 1, 2, 3, … in the order in which the trials were chosen
    trial: int
    #: null if the parameters do not fit together, or after the run was deleted
    run: RunId | None = None
    #: path → value
    parameters: dict[str, Any]
    state: RunState
    #: `pruned` for a member that a halving has ended
    state_reason: str | None = None
    #: the metric; of an unfinished member the best so far
    value: Number | None = None
    epochs: int
    error: Problem | None = None


class TrialCounts(Wire):
    """The number of trials by what became of them."""

    #: how many the sweep makes in total
    total: int
    queued: int
    running: int
    paused: int
    succeeded: int
    pruned: int
    failed: int
    cancelled: int


class SweepLimits(Wire):
    """The budget of a sweep."""

    time_s: float | None = None
    epochs: int | None = None


class ChosenMetric(Wire):
    """The metric of the leaderboard, complete."""

    name: str
    split: str
    direction: Literal["min", "max"]


class Sweep(Wire):
    """A search over settings, and its leaderboard."""

    id: SweepId
    name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    state: RunState
    state_reason: str | None = None
    dataset: DatasetVersionRef
    #: complete: every field has a value; members differ from it in the fields of the space
    base: Annotated[dict[str, Any], DescribedBy(RunConfig)]
    #: path → dimension, as requested
    space: dict[str, dict[str, Any]]
    #: complete: `type` and its fields
    strategy: dict[str, Any]
    metric: ChosenMetric
    #: the epochs after which a halving compares its members
    rungs: list[int] = Field(default_factory=list)
    budget: SweepLimits | None = None
    seed: int
    trials: TrialCounts
    #: the first row of the leaderboard that has a value
    best: SweepTrial | None = None
    #: best first; null in lists
    leaderboard: list[SweepTrial] | None = None
    register_best_as: str | None = None
    #: the version that the best member became
    model: ModelVersionRef | None = None
    warnings: list[Notice] = Field(default_factory=list)
    error: Problem | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class SweepPlan(Wire):
    """A validated, complete sweep; nothing is made."""

    base: Annotated[dict[str, Any], DescribedBy(RunConfig)]
    strategy: dict[str, Any]
    metric: ChosenMetric
    rungs: list[int] = Field(default_factory=list)
    #: the parameters of each trial; of `tpe` those of the first ones
    parameters: list[dict[str, Any]]
    #: how many trials the sweep makes
    trials: int
    warnings: list[Notice] = Field(default_factory=list)
    #: steps and seconds of all members together, parameters and memory of the largest
    estimate: Estimate


class SweepEvent(Wire):
    """An event of a sweep: `state`, `trial` or `end`."""

    #: 1, 2, 3, … per sweep: the `id` of the event in a stream
    seq: int
    event: SweepEventKind
    data: dict[str, Any]
    created_at: datetime
