"""The bodies of batch predictions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from descent.schemas.runs import DatasetVersionRef
from descent.schemas.wire import BatchId, Problem, RunState, Wire
from descent.spec import DatasetRef, Name
from descent.strict import WHOLE, Strict


class ModelRef(Strict):
    """A version of a model, by its number or by an alias; neither means the newest."""

    name: Name
    version: Annotated[int, Field(ge=1, lt=2**31), WHOLE] | None = None
    alias: Name | None = None

    @model_validator(mode="after")
    def _not_both(self) -> "ModelRef":
        if self.version is not None and self.alias is not None:
            raise ValueError("name a version or an alias, not both")
        return self


class BatchPredictionRequest(Strict):
    """Which rows shall be predicted, and by which model."""

    #: a name alone means the newest version; what an alias points to is settled at once
    model: Name | ModelRef
    #: an id alone means the newest version
    dataset: str | DatasetRef
    #: of the dataset that is made
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    on_problem: Literal["warn", "error"] = "warn"


class PredictingVersion(Wire):
    """Which version of which model predicts."""

    name: str
    version: int
    #: by which it was asked for
    alias: str | None = None


class AddedColumn(Wire):
    """A column that the result has beside those of its dataset."""

    name: str
    holds: Literal["prediction", "probability", "warnings", "error"]
    #: the target that is predicted
    target: str | None = None
    #: the class whose probability it is
    class_: Any = Field(None, alias="class")


class BatchProgress(Wire):
    """How many rows are done."""

    done: int
    rows: int
    fraction: float


class BatchPrediction(Wire):
    """Predictions for all rows of a dataset, which become a new dataset."""

    id: BatchId
    name: str
    state: RunState
    state_reason: str | None = None
    #: the number of the try; it grows when another worker takes the job over
    attempt: int
    model: PredictingVersion
    dataset: DatasetVersionRef
    on_problem: Literal["warn", "error"]
    #: the new dataset, once it has succeeded
    result: DatasetVersionRef | None = None
    #: columns of the result beside those of the dataset
    added_columns: list[AddedColumn]
    #: columns of the dataset that the model does not read
    ignored_columns: list[str]
    progress: BatchProgress
    #: rows of the dataset
    rows: int
    #: rows so far that have no prediction; their column `error` says why
    errors: int
    #: code → rows so far that have such a warning
    warnings: dict[str, int]
    error: Problem | None = None
    not_before: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
