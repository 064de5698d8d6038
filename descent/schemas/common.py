"""What several bodies share: pages, problems, notices, ids, references."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Item = TypeVar("Item")
#: a value of a table in JSON; null means missing
Scalar = bool | int | float | str | None
#: NaN and infinities are strings, since JSON has no numbers for them
Number = float | Literal["NaN", "Infinity", "-Infinity"]
ColumnRole = Literal["feature", "ignored"]
#: The service keeps the row of a deleted dataset while runs refer to it, in a state `deleted` that
#: no response shows: to clients it is gone (404).
DatasetState = Literal["ingesting", "ready", "rejected"]
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

# The OpenAPI document shows the patterns. Clients do not enforce them, so that ids stay opaque.
_ID = "^{prefix}_[0-9a-hjkmnp-tv-z]{{26}}$"


def _pattern(prefix: str) -> Any:  # noqa: ANN401  pydantic's Field returns Any
    return Field(json_schema_extra={"pattern": _ID.format(prefix=prefix)})


DatasetId = Annotated[str, _pattern("ds")]
RunId = Annotated[str, _pattern("run")]
KeyId = Annotated[str, _pattern("key")]
BatchId = Annotated[str, _pattern("batch")]
CheckpointId = Annotated[str, _pattern("ckpt")]


@dataclass(frozen=True)
class DescribedBy:
    """Describes a plain JSON object by a model in the OpenAPI document.

    Neither side validates the object. So a client reads runs of a newer service, whose
    configurations and metrics have members that the client does not know.
    """

    model: type[BaseModel]

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)


class Wire(BaseModel):
    """A response body. Clients ignore fields that a newer server adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Page(Wire, Generic[Item]):
    """One page of a list, newest first."""

    data: list[Item]
    has_more: bool
    #: pass it as `after` to get the next page
    next_cursor: str | None = None


class ErrorItem(Wire):
    """One error in the input."""

    #: JSON pointer into the body, or `/query/<name>`, `/path/<name>`, `/header/<name>`
    pointer: str | None = None
    code: str
    detail: str
    #: row of the data, from 1
    row: int | None = None
    column: str | None = None
    #: line of the file, from 1, if the file cannot be split into rows
    line: int | None = None


class Problem(BaseModel):
    """RFC 9457 `application/problem+json`; further members depend on `code`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    #: in snake_case; never renamed
    code: str
    detail: str
    instance: str | None = None
    request_id: str | None = None
    errors: list[ErrorItem] | None = None
    #: the detail again, as the Open Inference Protocol requires
    error: str | None = None
    #: with 409: the states that allow the request, or the requests that are allowed now
    allowed: list[str] | None = None


class Notice(Wire):
    """A warning: the request or run goes on."""

    code: str
    detail: str
    column: str | None = None


class DatasetVersionRef(Wire):
    """A version of a dataset."""

    id: DatasetId
    version: int


class ModelVersionRef(Wire):
    """A version of a model."""

    name: str
    version: int
