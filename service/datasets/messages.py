"""The input and the messages of the process that parses a file, and the media types of files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from descent.codes import ErrorCode
from descent.spec import ColumnType
from models.reading import Reading, TableReading
from service.datasets.sandbox import Limits, Task
from service.jobs.pipe import FileMessage, Message

CSV, TSV, NDJSON = "text/csv", "text/tab-separated-values", "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.file"
JSON = "application/json"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ZIP = "application/zip"
MULTIPART = "multipart/form-data"
TYPED = frozenset({PARQUET, ARROW})  # formats that bring the types of their columns
MEDIA_TYPES = (CSV, TSV, NDJSON, PARQUET, ARROW, JSON, XLSX, ZIP)


class ColumnOptions(BaseModel):
    """How to read one column; None means that the parser decides."""

    type: ColumnType | None = None
    #: fields of `models.reading.Reading`
    decimal: str | None = None
    thousands: str | None = None
    unit: str | None = None
    form: str | None = None
    #: whether the day stands before the month, in dates that can be read both ways
    day_first: bool | None = None
    #: texts that mean missing, besides those of the table
    missing: list[str] | None = None


class ReadOptions(BaseModel):
    """How to read a file; None means that the parser decides."""

    delimiter: str | None = None
    header: Literal["auto", "present", "absent"] = "auto"
    encoding: str | None = None
    #: lines above the header, or above the first row
    skip_lines: int | None = None
    #: the sheet of a workbook
    sheet: str | None = None
    missing_values: list[str] | None = None
    columns: dict[str, ColumnOptions] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_types(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Read the key `types` of earlier versions, which maps names to types."""
        types = options.get("types") or {}
        columns = {name: {"type": each} for name, each in types.items()}
        return {k: v for k, v in options.items() if k != "types"} | {
            "columns": columns | (options.get("columns") or {})
        }


class VersionReading(BaseModel):
    """How a dataset version was read; empty for a version of before readings were stored."""

    #: column → the fields of its `models.reading.Reading`
    columns: dict[str, dict[str, Any]] = Field(default_factory=dict)
    #: the fields of `models.reading.TableReading`
    table: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, columns: list[dict[str, Any]], reading: Mapping[str, Any] | None
    ) -> "VersionReading":
        """Return the reading of a version with these profiles of columns."""
        stored = {each["name"]: each["reading"] for each in columns if each.get("reading")}
        if not stored:
            return cls()
        found: dict[str, Any] = {"names": [each["name"] for each in columns]}
        for field, key in (("delimiter", "delimiter"), ("header", "header")):
            if reading and reading.get(key) is not None:
                found[field] = reading[key]
        if reading and reading.get("missing_values") is not None:
            found["missing"] = ["", *(each for each in reading["missing_values"] if each)]
            # The markers of the table are those of each column that names no others.
            common = {"missing": found["missing"]}
            stored = {name: common | each for name, each in stored.items()}
        return cls(columns=stored, table=TableReading.from_json(found).to_json())

    def readings(self) -> dict[str, Reading]:
        """Return the reading of each column."""
        return {name: Reading.from_json(each) for name, each in self.columns.items()}

    def table_reading(self) -> TableReading | None:
        return None if self.table is None else TableReading.from_json(self.table)


class ParseJob(BaseModel):
    """One attempt at a parse: the task and its limits."""

    task: Task
    limits: Limits
    #: seconds after which the process gives up its slot; None if it may keep the slot
    patience_s: float | None
    scratch: Path


class Parsed(FileMessage):
    """The typed Parquet file, its profile and its warnings."""

    type: Literal["parsed"] = "parsed"
    is_last: ClassVar[bool] = True

    rows: int
    #: the profile of each column, with its reading
    columns: list[dict[str, Any]]
    #: how the file was read: its encoding, delimiter, header and the like
    reading: dict[str, Any] = Field(default_factory=dict)
    warnings: list[dict[str, Any]]
    #: the name of the dataset in the file, if it has one
    name: str | None


class ParseRefusal(Message):
    """The file cannot be read as a table; the fields are those of `rejected.Rejected`."""

    type: Literal["refused"] = "refused"
    is_last: ClassVar[bool] = True

    code: ErrorCode
    detail: str
    errors: list[dict[str, Any]]
    status: int


class TookLong(Message):
    """The file takes more work than expected: it must wait with the large files."""

    type: Literal["took_long"] = "took_long"
    is_last: ClassVar[bool] = True
