"""The bodies of datasets."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from descent.fields import Strict
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
from descent.spec import ColumnName, ColumnType

#: a cell that means missing
Marker = Annotated[str, Field(max_length=200)]


class Histogram(Wire):
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: list[float]
    counts: list[int]


class TopValue(Wire):
    """A frequent value."""

    value: Scalar
    count: int


class ColumnReading(Wire):
    """How the text of a column's cells is read; an absent field has its usual value.

    Training, predictions in every format, and exported models read cells by this document.
    """

    type: ColumnType
    #: the mark before decimals, `.` unless another is named
    decimal: str | None = None
    #: the mark between thousands
    thousands: str | None = None
    #: the unit beside each number; 12 % is the number 12
    unit: str | None = None
    #: the form of dates, as `strptime` writes it; `%Y-%m-%d` (ISO 8601) unless another is named
    form: str | None = None
    #: the texts that mean missing, if they are not those of the table
    missing: list[str] | None = None
    #: the texts of true and false
    true: str | None = None
    false: str | None = None
    #: whether 1.0 and 1 are stored as the category 1
    merges_numbers: bool | None = None


class FileReading(Wire):
    """How a file is read; a field that does not apply to its format is absent."""

    encoding: str | None = None
    delimiter: str | None = None
    #: lines above the header, or above the first row
    skip_lines: int | None = None
    #: whether a row names the columns
    header: bool | None = None
    missing_values: list[str] | None = None
    #: the sheet of a workbook
    sheet: str | None = None
    #: the reason of each choice that needs one, by its field
    why: dict[str, str] | None = None


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
    #: how its cells are read; null in versions that are older than this field
    reading: ColumnReading | None = None
    #: the reason for the type, the reading and the role
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
    #: how the file is read; null in versions that are older than this field
    reading: FileReading | None = None
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
    """How to read a column, instead of the inferred way; null leaves a choice to the parser.

    `decimal`, `thousands` and `unit` make a number of the column, `form` and `day_first` a date.
    """

    type: ColumnType | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal["", ",", ".", " ", "'", "_"] | None = None
    #: a sign such as `%` or `€` beside each number
    unit: Annotated[str, Field(max_length=8)] | None = None
    #: the form of dates, such as `%d/%m/%Y`
    form: Annotated[str, Field(max_length=16)] | None = None
    #: whether the day stands before the month, in dates that can be read both ways
    day_first: bool | None = None
    #: further texts that mean missing
    missing: Annotated[list[Marker], Field(max_length=100)] | None = None


class FileOverride(Strict):
    """How to read a file, instead of the inferred way; null leaves a choice to the parser."""

    encoding: Annotated[str, Field(max_length=32)] | None = None
    delimiter: Literal[",", ";", "\t", "|", " "] | None = None
    skip_lines: Annotated[int, Field(ge=0, le=1000)] | None = None
    header: Literal["auto", "present", "absent"] | None = None
    missing_values: Annotated[list[Marker], Field(max_length=100)] | None = None
    sheet: Annotated[str, Field(max_length=256)] | None = None


class DatasetPatch(Strict):
    """Another way to read columns or the file; it makes a new version."""

    columns: dict[ColumnName, ColumnOverride] = Field(default_factory=dict)
    #: a change here drops the earlier changes of columns, whose names may differ
    reading: FileOverride | None = None


class DatasetPreview(Wire):
    """The first rows of a dataset, as another way of reading would give them.

    The types are inferred from the first rows only; the new version looks at all rows.
    """

    reading: FileReading | None = None
    columns: list[Column]
    warnings: list[Notice]
    rows: list[dict[str, Scalar]]


class DatasetRowsPage(Page[dict[str, Scalar]]):
    """Rows of a dataset, in the order of the file."""
