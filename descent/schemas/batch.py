"""The bodies of batch predictions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from descent.schemas.common import BatchId, DatasetVersionRef, Problem, RunState, Wire
from descent.spec import DatasetRef, Name
from descent.strict import WHOLE, Strict


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


class PredictingVersion(Wire):
    """The version of a model that predicts."""

    name: str
    version: int
    #: the alias in the request
    alias: str | None = None


class AddedColumn(Wire):
    """A column that the batch prediction adds to those of the dataset."""

    name: str
    holds: Literal["prediction", "probability", "warnings", "error"]
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
