"""The strictness and the types of fields that request bodies and configurations share.

Knows pydantic only.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import ComputedFieldInfo, FieldInfo

MAX_LAYERS = 64
MAX_WIDTH = 65_536


def _title(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    """`learning_rate` → "Learning rate", the label of its field in a form."""
    return name.replace("_", " ").capitalize()


class Strict(BaseModel):
    """A request body: unknown fields and wrong types are errors; instances never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, field_title_generator=_title
    )


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Lets an `int` accept 5.0: JSON has one type of number, and in JSON Schema 5.0 is an integer.
#: Put it after the bounds; before them it would hide them from the OpenAPI document.
WHOLE = BeforeValidator(_whole)

Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH), WHOLE]


def with_type(default: str) -> BeforeValidator:
    """Give an object without a `type` the default type, so that `{"learning_rate": 1}` works."""

    def fill(value: object) -> object:
        return {"type": default} | value if isinstance(value, dict) else value

    return BeforeValidator(fill)


def name_object_defaults(schema: dict[str, Any]) -> None:
    """Rename defaults that are objects to `x-default`: generators of clients refuse them.

    The page reads them there. The description repeats them for people.
    """
    for field in schema["properties"].values():
        if isinstance(field.get("default"), dict):
            field["x-default"] = field.pop("default")
            default = f"Default: `{json.dumps(field['x-default'])}`."
            field["description"] = " ".join(filter(None, (field.get("description"), default)))
