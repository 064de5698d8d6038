"""The bodies of keys and of the service itself."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from descent.schemas.wire import KeyId, Wire
from descent.strict import Strict


def _text(value: Any) -> Any:  # noqa: ANN401  what a client sent, not yet validated
    if isinstance(value, int | float):
        raise PydanticKnownError("datetime_type")
    return value


# JSON has no times, so this one is read from text; a number would be taken for seconds.
Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text)]


class KeyCreate(Strict):
    """A new API key."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    #: RFC 3339 with a zone; never, if absent
    expires_at: Time | None = None


class Key(Wire):
    """An API key without its secret."""

    id: KeyId
    name: str
    #: the first characters of the secret, to recognise it by
    prefix: str
    expires_at: datetime | None = None
    created_at: datetime


class KeyCreated(Key):
    """An API key with its secret, which is shown this once."""

    #: null in a replay under an `Idempotency-Key`, because it is not stored
    secret: str | None


class Health(Wire):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Part(Wire):
    """One thing that the service needs."""

    name: str
    state: Literal["ok", "warming", "absent", "failed"]
    #: whether the service can serve without it
    required: bool
    detail: str | None = None


class Readiness(Wire):
    """Whether the service can serve, part by part."""

    status: Literal["ready", "not_ready"]
    parts: list[Part]


class WorkerInfo(Wire):
    """A supervisor that was heard of lately."""

    id: str
    host: str
    pid: int
    devices: list[dict[str, Any]]
    capacity: int
    state: Literal["ready", "warming"]
    started_at: datetime
    seen_at: datetime


class QueueInfo(Wire):
    """How much there is to do."""

    queued: int
    #: state → runs in it
    states: dict[str, int]


class System(Wire):
    """What runs here."""

    version: str
    database: Literal["sqlite", "postgresql"]
    devices: list[dict[str, Any]]
    workers: list[WorkerInfo]
    queue: QueueInfo
    #: the settings that limit what a client may send
    limits: dict[str, int | float]


class Architecture(Wire):
    """A type of model that a run may ask for."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    type: str
    title: str
    description: str
    #: the JSON Schema of the run's `model`
    json_schema: dict[str, Any] = Field(alias="schema", serialization_alias="schema")
