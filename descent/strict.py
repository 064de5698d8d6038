"""The base of request bodies: JSON types are taken as they are, and nothing is converted."""

import json
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """A request body: unknown fields and wrong types are errors; instances never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _whole(value: Any) -> Any:  # noqa: ANN401  input, not yet validated
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Lets an `int` accept 5.0: JSON has one type of number, and in JSON Schema 5.0 is an integer.
#: Put it after the bounds; before them it would hide them from the OpenAPI document.
WHOLE = BeforeValidator(_whole)


def name_object_defaults(schema: dict[str, Any]) -> None:
    """Rename defaults that are objects to `x-default`: generators of clients refuse them.

    The page reads them there. The description repeats them for people.
    """
    for field in schema["properties"].values():
        if isinstance(field.get("default"), dict):
            field["x-default"] = field.pop("default")
            default = f"Default: `{json.dumps(field['x-default'])}`."
            field["description"] = " ".join(filter(None, (field.get("description"), default)))
