"""Bodies of MLflow's scoring protocol, which `/invocations` and the predict routes speak too."""

from typing import Any

from descent.schemas.wire import Notice, Scalar, Wire
from descent.strict import Strict


class SplitTable(Strict):
    """A table as pandas splits it; without columns they are the model's, in order."""

    data: list[list[Scalar]]
    columns: list[str] | None = None
    #: ignored
    index: list[Any] | None = None


class ScoringRequest(Strict):
    """One table in one of MLflow's four ways. NaN is a missing value."""

    dataframe_split: SplitTable | None = None
    dataframe_records: list[dict[str, Scalar]] | None = None
    #: rows: objects, or lists in the order of the model's columns, or values of the only one
    instances: list[Any] | None = None
    #: lists by column, or rows as in `instances`
    inputs: dict[str, Any] | list[Any] | None = None
    #: ignored, with a warning
    params: dict[str, Any] | None = None


class RowsNotice(Notice):
    """Something to know of some rows, which are counted from 0."""

    rows: list[int] | None = None


class Scores(Wire):
    """The answer to a body of MLflow's: plain values, in order."""

    model: str | None = None
    version: int | None = None
    #: an object by target where there are several; null where `errors` says why
    predictions: list[Scalar | dict[str, Scalar]]
    warnings: list[RowsNotice] | None = None
    errors: list[RowsNotice] | None = None
