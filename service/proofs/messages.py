"""The input of an export verification and the messages that it sends. Knows no database."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from descent.spec import ColumnType
from service.datasets.messages import VersionReading
from service.datasets.originals import OriginalFile
from service.jobs.pipe import Message


class StoredTable(BaseModel):
    """The table of a dataset version as a local file."""

    path: Path
    #: column name → its type
    types: dict[str, ColumnType]
    reading: VersionReading = Field(default_factory=VersionReading)
    #: the file that the version was made from; None if it is not read as text
    original: OriginalFile | None = None


class ProofJob(BaseModel):
    """One attempt at a proof: the model and the source of the rows."""

    run_id: str
    attempt: int
    #: the checkpoint of the version
    model: Path
    config: dict[str, Any]
    #: the member training.json of the version's bundle
    training: dict[str, Any]
    #: the table that the version was trained on; None compares golden rows
    table: StoredTable | None
    scratch: Path


class Compared(Message):
    """All prediction paths were compared."""

    type: Literal["compared"] = "compared"
    is_last: ClassVar[bool] = True

    details: dict[str, Any]
    #: names the paths that differ; None if all agree
    failure: str | None
