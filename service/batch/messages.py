"""The input and the messages of the process of a batch prediction."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from descent.spec import ColumnType
from service.datasets.originals import OriginalFile
from service.jobs.pipe import FileMessage


class BatchJob(BaseModel):
    """One attempt at a batch prediction: the table, the model, and the finished chunks."""

    run_id: str
    attempt: int
    table: Path
    #: name of each column of the table → its type
    types: dict[str, ColumnType]
    rows: int
    #: the file of the dataset, if the model reads some of its columns in another way
    original: OriginalFile | None = None
    #: these columns
    reread: list[str] = Field(default_factory=list)
    model: Path
    on_problem: Literal["warn", "error"]
    #: the new columns: name, content, type
    added: list[dict[str, Any]]
    #: the finished chunks, in order
    done: list[Path]
    scratch: Path

    @property
    def level(self) -> float | None:
        """The level of the intervals or sets among the new columns."""
        return next((column["level"] for column in self.added if column.get("level")), None)


class ChunkFile(FileMessage):
    """The new columns of some rows, as an Arrow file."""

    type: Literal["chunk"] = "chunk"
    #: 1..n
    number: int
    rows: int
    #: errors, and warnings by code
    counts: dict[str, Any]


class ResultFile(FileMessage):
    """The whole result, as a Parquet file."""

    type: Literal["finished"] = "finished"
    is_last: ClassVar[bool] = True

    #: the profiles of the new columns
    columns: list[dict[str, Any]]
