"""The input and the messages of the process that parses a file, and the media types of files."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from descent.codes import ErrorCode
from service.datasets.sandbox import Limits, Task
from service.jobs.pipe import FileMessage, Message

CSV, TSV, NDJSON = "text/csv", "text/tab-separated-values", "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.file"
JSON = "application/json"
MULTIPART = "multipart/form-data"
TYPED = frozenset({PARQUET, ARROW})  # formats that bring the types of their columns
MEDIA_TYPES = (CSV, TSV, NDJSON, PARQUET, ARROW, JSON)


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
    #: the profile of each column
    columns: list[dict[str, Any]]
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
