"""What the process of a proof is given, and the messages that it sends. Knows no database."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from descent.spec import ColumnType
from service.jobs.pipe import Message


class StoredTable(BaseModel):
    """The table of a dataset version as a local file."""

    path: Path
    #: name of each column → its type
    types: dict[str, ColumnType]


class ProofJob(BaseModel):
    """One attempt at a proof: the model, and the rows to compare."""

    run_id: str
    attempt: int
    #: the checkpoint of the version
    model: Path
    config: dict[str, Any]
    #: what the version's bundle says of its training
    training: dict[str, Any]
    #: the table that the version was trained on; without it golden rows are compared
    table: StoredTable | None
    scratch: Path


class Compared(Message):
    """All ways of predicting were compared."""

    type: Literal["compared"] = "compared"
    is_last: ClassVar[bool] = True

    details: dict[str, Any]
    #: a sentence that names the ways that differ
    failure: str | None
