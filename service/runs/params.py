"""The query strings that the routes of runs accept."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement

from descent import schemas
from service.http.paging import OneOf
from service.runs import metrics
from service.runs.tables import Run


class RunFilter(BaseModel):
    """The filters of the list of runs."""

    state: list[schemas.RunState] = Field([], description="Only runs in one of these states.")
    dataset: str | None = Field(None, description="Only runs on the dataset with this id.")
    model: str | None = Field(None, description="Only runs that made a version of this model.")
    tag: list[str] = Field([], description="Only runs with this tag: `name` or `name:value`.")

    def states(self) -> OneOf | None:
        return OneOf(Run.state, self.state) if self.state else None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.dataset is not None:
            yield Run.dataset_id == self.dataset
        if self.model is not None:
            yield Run.model_name == self.model
        for text in self.tag:
            name, colon, value = text.partition(":")
            stored = Run.tags[name].as_string()
            yield stored == value if colon else stored.is_not(None)


class MetricsParams(BaseModel):
    """Selects rows of the curves, and their form."""

    after: int = Field(0, ge=0, lt=2**63, description="Only rows after this `seq`.")
    limit: int | None = Field(None, ge=1, le=metrics.MAX_ROWS, description="At most so many rows.")
    names: str = Field("", max_length=1024, description="Only these names, comma-separated.")
    splits: str = Field("", max_length=256, description="Only these splits, comma-separated.")
    max_points: int | None = Field(
        None,
        ge=2,
        le=100_000,
        description=(
            "Thin each curve, that is each name of each split, to about so many rows; without"
            " `names` and `splits` an answer has so many of each of them."
        ),
    )
    attempt: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description=(
            "The `attempt` of the answer before, to be told of all rows that were replaced since."
            " Without it the row at `after` is taken for the one that is live now."
        ),
    )
    layout: Literal["rows", "columns"] = "rows"

    def query(self) -> metrics.Query:
        return metrics.Query(
            self.after,
            self.limit,
            tuple(filter(None, self.names.split(","))),
            tuple(filter(None, self.splits.split(","))),
            self.max_points,
            self.attempt,
        )
