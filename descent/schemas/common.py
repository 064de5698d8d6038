"""The parts that several bodies share: pages, problems, notices, ids, references."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import definitions_schema

from descent.fields import Strict

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
SweepEventKind = Literal["state", "trial", "end"]
Split = Literal["train", "validation", "test"]

# The OpenAPI document shows the patterns. Clients do not enforce them, so that ids stay opaque.
_ID = "^{prefix}_[0-9a-hjkmnp-tv-z]{{26}}$"


def _pattern(prefix: str) -> FieldInfo:
    field: FieldInfo = Field(json_schema_extra={"pattern": _ID.format(prefix=prefix)})
    return field


DatasetId = Annotated[str, _pattern("ds")]
RunId = Annotated[str, _pattern("run")]
KeyId = Annotated[str, _pattern("key")]
BatchId = Annotated[str, _pattern("batch")]
SweepId = Annotated[str, _pattern("sweep")]
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
        # As a definition, so that it is referred to by its name and not repeated.
        return handler(definitions_schema(self.model.__pydantic_core_schema__, []))


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


def _text(value: object) -> object:
    if isinstance(value, int | float):
        raise PydanticKnownError("datetime_type")
    return value


# JSON has no times, so a time is a string. Without this check a number would count as seconds.
Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text)]


class KeyCreate(Strict):
    """A new API key."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    #: RFC 3339 with a time zone; without it the key never expires
    expires_at: Time | None = None


class Key(Wire):
    """An API key without its secret."""

    id: KeyId
    name: str
    #: the first characters of the secret, for recognition
    prefix: str
    expires_at: datetime | None = None
    created_at: datetime


class KeyCreated(Key):
    """An API key with its secret, which only this response shows."""

    #: null if the response is replayed for an `Idempotency-Key`, since the secret is not stored
    secret: str | None


class Health(Wire):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Part(Wire):
    """A part that the service depends on."""

    name: str
    state: Literal["ok", "warming", "absent", "failed"]
    #: whether the service is not ready without it
    required: bool
    detail: str | None = None


class Readiness(Wire):
    """Whether the service is ready, and the state of each part."""

    status: Literal["ready", "not_ready"]
    parts: list[Part]


class WorkerInfo(Wire):
    """A worker whose last heartbeat is recent."""

    id: str
    host: str
    pid: int
    devices: list[dict[str, Any]]
    capacity: int
    state: Literal["ready", "warming"]
    started_at: datetime
    seen_at: datetime


class QueueInfo(Wire):
    """The queue of runs."""

    queued: int
    #: the number of runs by state
    states: dict[str, int]


class System(Wire):
    """The running service."""

    version: str
    database: Literal["sqlite", "postgresql"]
    devices: list[dict[str, Any]]
    workers: list[WorkerInfo]
    queue: QueueInfo
    #: the settings that limit requests
    limits: dict[str, int | float]


class Architecture(Wire):
    """A model type that a run can use."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    type: str
    title: str
    description: str
    #: the JSON Schema of the run's `model`
    json_schema: dict[str, Any] = Field(alias="schema", serialization_alias="schema")


# ---- `descent doctor` ---------------------------------------------------------------------------

#: `note`: nothing is wrong; `warning`: it works, but not well; `failed`: it does not work
CheckState = Literal["ok", "note", "warning", "failed"]


class Check(Wire):
    """The result of one check, with a remedy unless all is well."""

    name: str
    state: CheckState
    detail: str
    remedy: str | None = None
