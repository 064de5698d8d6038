"""The bodies of keys and of the service itself, and the checks of `descent doctor`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from descent.schemas.common import KeyId, Wire
from descent.spec import Strict


def _text(value: Any) -> Any:  # noqa: ANN401  input, not yet validated
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
