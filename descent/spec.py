"""The configuration of a run, one class per choice.

The API, the command line, the client and the training process all use these classes, so that a
configuration means the same everywhere. They know nothing of HTTP, SQL or torch.
"""

from collections import Counter
from operator import itemgetter
from typing import Annotated, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from descent.fields import WHOLE, Fraction, Strict, name_object_defaults, with_type
from descent.presets import CHOSEN, PresetName, fields_of
from models.architectures import ModelSpec
from models.architectures.dense import Mlp

MAX_EPOCHS = 1_000_000

ColumnType = Literal["number", "integer", "boolean", "category", "datetime", "text", "id"]
#: The types whose values are text.
TEXTUAL: frozenset[ColumnType] = frozenset({"category", "text", "id"})
Task = Literal["regression", "binary", "multiclass"]
LossName = Literal["mse", "sse", "mae", "huber", "cross_entropy"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ColumnName = Annotated[str, Field(min_length=1, max_length=1024)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
# Not a `const`: generated clients test a `const` of a union first and then refuse a number.
Full = Annotated[Literal["full"], WithJsonSchema({"type": "string", "enum": ["full"]})]
Tags = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=256)]],
    Field(max_length=64),
]


# ---- optimizers and schedules ---------------------------------------------------------------


class Sgd(Strict):
    """Gradient descent, plain or with momentum."""

    type: Literal["sgd"] = "sgd"
    learning_rate: Rate = 0.01
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            msg = "nesterov needs a momentum above 0, got momentum 0"
            raise ValueError(msg)
        return self


class Adam(Strict):
    """Adam (Kingma & Ba, 2015); `weight_decay` is added to the gradient."""

    type: Literal["adam"] = "adam"
    learning_rate: Rate = 0.01
    weight_decay: Decay = 0.0


class AdamW(Strict):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    type: Literal["adamw"] = "adamw"
    learning_rate: Rate = 0.01
    weight_decay: Decay = 0.01


class RmsProp(Strict):
    """RMSprop (Tieleman & Hinton, 2012)."""

    type: Literal["rmsprop"] = "rmsprop"
    learning_rate: Rate = 0.01
    momentum: Fraction = 0.0
    weight_decay: Decay = 0.0


class Lbfgs(Strict):
    """L-BFGS, a quasi-Newton method; one step is up to 20 evaluations of the loss."""

    type: Literal["lbfgs"] = "lbfgs"
    learning_rate: Rate = 1.0


OptimizerSpec = Annotated[
    Annotated[Sgd | Adam | AdamW | RmsProp | Lbfgs, Field(discriminator="type")],
    with_type("adam"),
]

Weight = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
ClassWeights = (
    Annotated[Literal["balanced"], WithJsonSchema({"type": "string", "enum": ["balanced"]})]
    | Annotated[
        dict[Annotated[str, Field(max_length=1024)], Weight], Field(min_length=1, max_length=1000)
    ]
)

WarmupEpochs = Annotated[int, Field(ge=0, le=MAX_EPOCHS), WHOLE]


class Constant(Strict):
    """The learning rate does not change."""

    type: Literal["constant"] = "constant"
    warmup_epochs: WarmupEpochs = 0


class Cosine(Strict):
    """The learning rate falls along half a cosine to `final` times its start."""

    type: Literal["cosine"] = "cosine"
    warmup_epochs: WarmupEpochs = 0
    final: Annotated[float, Field(ge=0, le=1, title="Final fraction")] = 0.0


class OneCycle(Strict):
    """The learning rate rises for `peak_at` of the run, then falls to near zero (Smith, 2018)."""

    type: Literal["one_cycle"] = "one_cycle"
    warmup_epochs: WarmupEpochs = 0
    peak_at: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Step(Strict):
    """The learning rate is multiplied by `factor` every `every_epochs`."""

    type: Literal["step"] = "step"
    warmup_epochs: WarmupEpochs = 0
    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS), WHOLE] = 30
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1


class Plateau(Strict):
    """The learning rate is multiplied by `factor` after `patience` epochs without progress."""

    type: Literal["plateau"] = "plateau"
    warmup_epochs: WarmupEpochs = 0
    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS), WHOLE] = 10
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


ScheduleSpec = Annotated[
    Annotated[Constant | Cosine | OneCycle | Step | Plateau, Field(discriminator="type")],
    with_type("constant"),
]

# ---- split, stopping, budget ------------------------------------------------------------------


class Shares(Strict):
    """The shares of held-out rows; all other rows are training rows."""

    validation: Annotated[Fraction, Field(title="Validation fraction")] = 0.2
    test: Annotated[Fraction, Field(title="Test fraction")] = 0.0

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.validation + self.test >= 1:
            msg = (
                "validation and test leave no training rows: "
                f"{self.validation} + {self.test} is not below 1"
            )
            raise ValueError(msg)
        return self


class RandomSplit(Shares):
    """A random split, for classes stratified by class."""

    type: Literal["random"] = "random"


class TimeSplit(Shares):
    """By time in `column`: the latest rows are test rows, the rows before them validation rows."""

    type: Literal["time"] = "time"
    column: ColumnName


class GroupSplit(Shares):
    """A random split of groups: rows with the same value in `column` stay together."""

    type: Literal["group"] = "group"
    column: ColumnName


class ColumnSplit(Strict):
    """The split that `column` names for each row: `train`, `validation` or `test`."""

    type: Literal["column"] = "column"
    column: ColumnName


class NoSplit(Strict):
    """Every row is a training row."""

    type: Literal["none"] = "none"


#: The folds of a cross-validation that names none: with few rows each fold leaves out fewer.
FOLDS, MANY_FOLDS, FEW_ROWS = 5, 10, 1000
MAX_FOLDS = 20


class KFoldSplit(Strict):
    """Cross-validation: each member trains on all folds but one; together they are the model.

    For classes the folds are stratified. With `column`, rows with the same value in it are in one
    fold.
    """

    type: Literal["kfold"] = "kfold"
    folds: Annotated[
        Annotated[int, Field(ge=2, le=MAX_FOLDS), WHOLE] | None,
        Field(
            description=f"The count of folds: by default {FOLDS}, and {MANY_FOLDS} below"
            f" {FEW_ROWS} rows."
        ),
    ] = None
    repeats: Annotated[
        int,
        Field(ge=1, le=10, description="How often the rows are divided anew, each into folds."),
        WHOLE,
    ] = 1
    column: Annotated[ColumnName | None, Field(title="Group column")] = None

    def count(self, rows: int) -> int:
        """Return the count of folds of so many rows with a target."""
        if self.folds is not None:
            return self.folds
        return FOLDS if rows >= FEW_ROWS else max(2, min(MANY_FOLDS, rows))

    def members(self, rows: int) -> int:
        """Return how many trainings there are."""
        return self.count(rows) * self.repeats


SplitSpec = Annotated[
    Annotated[
        RandomSplit | TimeSplit | GroupSplit | ColumnSplit | KFoldSplit | NoSplit,
        Field(discriminator="type"),
    ],
    with_type("random"),
]


class EarlyStopping(Strict):
    """Stop after `patience` epochs without a new minimum of the validation loss."""

    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS), WHOLE] = 20


class Budget(Strict):
    """Limits at which the run ends with its best model so far."""

    time_s: Annotated[
        float,
        Field(gt=0, le=31_536_000, allow_inf_nan=False, title="Time limit in seconds"),
    ]


class LearningRateRange(Strict):
    """A test of learning rates: the rate rises by one factor per batch, until the loss explodes."""

    min: Rate = 1e-7
    max: Rate = 10.0

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.min >= self.max:
            msg = f"min must be below max: {self.min:g} is not below {self.max:g}"
            raise ValueError(msg)
        return self


class DatasetRef(Strict):
    """A version of a dataset; without a number the newest one."""

    id: str
    version: Annotated[int, Field(ge=1), WHOLE] | None = None


# ---- the run ------------------------------------------------------------------------------------


class RunConfig(Strict):
    """The configuration of a run. Only `dataset` and `target` are required."""

    model_config = ConfigDict(json_schema_extra=name_object_defaults)

    dataset: str | DatasetRef
    target: ColumnName | Annotated[list[ColumnName], Field(min_length=1, max_length=1000)]
    features: Annotated[list[ColumnName], Field(min_length=1, max_length=100_000)] | None = None
    task: Literal["auto", Task] = "auto"
    preset: Annotated[
        PresetName | None,
        Field(
            description="Chooses the model, and each of optimizer, schedule, epochs, batch_size and"
            " early_stopping that the request leaves out. `fast`: one network, seconds."
            " `balanced`: such a network for each fold of a cross-validation, a minute."
        ),
    ] = None
    model: ModelSpec = Mlp()
    loss: Literal["auto", LossName] = "auto"
    class_weight: Annotated[
        ClassWeights | None,
        Field(
            description="The weight of each class in the training loss, by its name; a class that"
            " is not named has weight 1. `balanced` gives each class the same total weight."
        ),
    ] = None
    weight: Annotated[
        ColumnName | None,
        Field(
            description="The column with the weight of each row in the training loss: numbers from"
            " 0 up. It is no feature."
        ),
    ] = None
    optimizer: OptimizerSpec = Adam()
    schedule: ScheduleSpec = Constant()
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS), WHOLE] = 200
    batch_size: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | Full = 32
    split: SplitSpec = RandomSplit()
    early_stopping: EarlyStopping | None = EarlyStopping()
    standardize: bool = True
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,3})$")] = "auto"
    on_divergence: Annotated[
        Literal["fail", "keep_best"],
        Field(
            description="If the loss is not finite, the run fails, or it ends with its best epoch."
        ),
    ] = "fail"
    seed: Annotated[int, Field(ge=0, lt=2**32), WHOLE] = 0
    budget: Budget | None = None
    lr_range: Annotated[
        LearningRateRange | None,
        Field(
            description="Test learning rates instead of training: the result suggests one. Such a"
            " run makes no model."
        ),
    ] = None
    register_as: Name | None = None
    name: Annotated[Annotated[str, Field(max_length=256)] | None, Field(title="Run name")] = None
    tags: Tags = {}  # noqa: RUF012  pydantic copies it

    @field_validator("weight")
    @classmethod
    def _weighs_by_another_column(cls, value: str | None, info: ValidationInfo) -> str | None:
        target = info.data.get("target", [])
        used = [target] if isinstance(target, str) else target
        if value in [*used, *(info.data.get("features") or [])]:
            msg = f"names {value!r}, which is a target or a feature of the run"
            raise ValueError(msg)
        return value

    @field_validator("register_as")
    @classmethod
    def _makes_a_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("lr_range") is not None:
            msg = f"names the model {value!r}, but a run with lr_range makes none"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _has_a_preset_or_a_model(self) -> Self:
        # A complete configuration names the preset that it came from.
        given = self.model_fields_set
        if self.preset and "model" in given and not given.issuperset(CHOSEN):
            msg = (
                f"the preset {self.preset!r} chooses the model, but the request names a model too:"
                " leave out model or preset"
            )
            raise ValueError(msg)
        return self

    def completed(self, rows: int) -> Self:
        """Return the configuration with the fields that it leaves to its preset or architecture.

        `rows` is the count of rows with a target.
        """
        recipe = fields_of(self.preset, rows) if self.preset else self.model.recipe(rows)
        left = {name: recipe[name] for name in recipe if name not in self.model_fields_set}
        if not left:
            return self
        return self.model_validate(self.model_dump(mode="json", exclude_unset=True) | left)

    @property
    def targets(self) -> list[str]:
        """The target columns as a list."""
        return [self.target] if isinstance(self.target, str) else self.target

    @property
    def dataset_ref(self) -> DatasetRef:
        return DatasetRef(id=self.dataset) if isinstance(self.dataset, str) else self.dataset

    @field_validator("target", "features")
    @classmethod
    def _names_a_column_once(
        cls, value: str | list[str] | None, info: ValidationInfo
    ) -> str | list[str] | None:
        names = [value] if isinstance(value, str) else value or []
        name, count = max(Counter(names).items(), key=itemgetter(1), default=("", 0))
        if count > 1:
            msg = f"names the column {name!r} more than once"
            raise ValueError(msg)
        target = info.data.get("target", []) if info.field_name == "features" else []
        both = {target} if isinstance(target, str) else set(target)
        for name in sorted(both & set(names)):
            msg = f"names the target {name!r}, which cannot be a feature too"
            raise ValueError(msg)
        return value
