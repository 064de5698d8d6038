"""What the bodies share: pages, problems, notices, ids. Responses may gain fields."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")
#: A value of a table as JSON carries it; null means missing.
Scalar = bool | int | float | str | None
#: Non-finite numbers travel as these words.
Number = float | Literal["NaN", "Infinity", "-Infinity"]
ColumnType = Literal["number", "integer", "boolean", "category", "datetime", "text", "id"]
ColumnRole = Literal["feature", "ignored"]
DatasetState = Literal["receiving", "ingesting", "ready", "rejected"]
RunState = Literal[
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "cancelling",
    "interrupted",
    "succeeded",
    "failed",
    "cancelled",
]
TERMINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
EventKind = Literal["state", "metrics", "checkpoint", "log", "rewind", "end"]
Split = Literal["train", "validation", "test"]

# The documents show the patterns; readers do not enforce them, so that ids stay opaque.
_ID = "^{prefix}_[0-9a-hjkmnp-tv-z]{{26}}$"


def _pattern(prefix: str) -> Any:  # noqa: ANN401  what pydantic's Field returns
    return Field(json_schema_extra={"pattern": _ID.format(prefix=prefix)})


DatasetId = Annotated[str, _pattern("ds")]
RunId = Annotated[str, _pattern("run")]
KeyId = Annotated[str, _pattern("key")]
CheckpointId = Annotated[str, _pattern("ckpt")]


class Wire(BaseModel):
    """A response: frozen, and open for fields that a newer server adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Page(Wire, Generic[Item]):
    """One page of a list, newest first."""

    data: list[Item]
    has_more: bool
    #: send it as `after` to get the next page
    next_cursor: str | None = None


class ErrorItem(Wire):
    """One thing that is wrong with the input."""

    #: JSON pointer into the body, or `/query/<name>`, `/path/<name>`, `/header/<name>`
    pointer: str | None = None
    code: str
    detail: str
    #: of the data, from 1
    row: int | None = None
    column: str | None = None
    #: of the file, from 1, where the bytes tell no rows
    line: int | None = None


class Problem(BaseModel):
    """RFC 9457 `application/problem+json`; further members depend on `code`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    #: stable snake_case
    code: str
    detail: str
    instance: str | None = None
    request_id: str | None = None
    errors: list[ErrorItem] | None = None
    #: the detail once more, where the Open Inference Protocol asks for it
    error: str | None = None
    #: with 409: the states from which this is possible, or what is possible now
    allowed: list[str] | None = None


class Notice(Wire):
    """Something that the caller should know but that stops nothing."""

    code: str
    detail: str
    column: str | None = None
