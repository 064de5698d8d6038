"""How the body of a request is read: by what JSON says, nothing is guessed. No field is known."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """A body of a request: unknown fields and other types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _whole(value: Any) -> Any:  # noqa: ANN401  what a client sent, not yet validated
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Goes behind the bounds of an `int`, or the document would not name them: JSON knows one type of
#: number, so 5.0 is an integer too, as it is in JSON Schema.
WHOLE = BeforeValidator(_whole)
