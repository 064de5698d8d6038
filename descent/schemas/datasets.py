"""The bodies of datasets."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from descent.schemas.common import (
    ColumnRole,
    DatasetId,
    DatasetState,
    Notice,
    Page,
    Problem,
    Scalar,
    Wire,
)
from descent.spec import ColumnName, ColumnType, Strict


class Histogram(Wire):
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: list[float]
    counts: list[int]


class TopValue(Wire):
    """A frequent value."""

    value: Scalar
    count: int


class Column(Wire):
    """The profile of one column."""

    name: str
    type: ColumnType
    role: ColumnRole
    missing: int
    distinct: int
    #: numbers, or RFC 3339 strings for datetimes; null for other types
    min: float | str | None = None
    max: float | str | None = None
    mean: float | None = None
    std: float | None = None
    histogram: Histogram | None = None
    #: the most frequent values, most frequent first
    top: list[TopValue] | None = None
    #: the reason for the type and the role
    why: str


class Dataset(Wire):
    """An uploaded table."""

    id: DatasetId
    name: str
    state: DatasetState
    version: int
    rows: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    columns: list[Column] = Field(default_factory=list)
    warnings: list[Notice] = Field(default_factory=list)
    #: why the file was rejected
    error: Problem | None = None
    created_at: datetime


class DatasetColumns(Strict):
    """A table as JSON, column by column."""

    name: Annotated[str, Field(min_length=1, max_length=256)] = "dataset"
    columns: Annotated[dict[ColumnName, list[Scalar]], Field(min_length=1)]


class DatasetRows(Strict):
    """A table as JSON, row by row; an absent key is a missing value."""

    name: Annotated[str, Field(min_length=1, max_length=256)] = "dataset"
    rows: Annotated[list[dict[ColumnName, Scalar]], Field(min_length=1)]


class ColumnOverride(Strict):
    """A type that replaces a column's inferred type."""

    type: ColumnType


class DatasetPatch(Strict):
    """New types for columns; they make a new version."""

    columns: Annotated[dict[ColumnName, ColumnOverride], Field(min_length=1)]


class DatasetRowsPage(Page[dict[str, Scalar]]):
    """Rows of a dataset, in the order of the file."""
