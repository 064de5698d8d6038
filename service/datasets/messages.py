"""What the process that parses a file is given, and the messages that it sends."""

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
    """One attempt at a file: what to parse, how, and within which limits."""

    task: Task
    limits: Limits
    #: seconds after which the process gives up its place; None: it has no need to
    patience_s: float | None
    scratch: Path


class Parsed(FileMessage):
    """The file as a typed Parquet file, and what is known of it."""

    type: Literal["parsed"] = "parsed"
    is_last: ClassVar[bool] = True

    rows: int
    #: the profile of each column
    columns: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    #: the name that the file gives itself
    name: str | None


class ParseRefusal(Message):
    """The file cannot be read as a table, and why; see `rejected.Rejected`."""

    type: Literal["refused"] = "refused"
    is_last: ClassVar[bool] = True

    code: ErrorCode
    detail: str
    errors: list[dict[str, Any]]
    status: int


class TookLong(Message):
    """The file takes more work than it seemed to: parse it where large ones are parsed."""

    type: Literal["took_long"] = "took_long"
    is_last: ClassVar[bool] = True
