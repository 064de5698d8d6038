"""The architectures that a run can train, one module for each family, and their list.

To add one, write its module and add its class to the list: configurations, the API's schema, the
page's form, estimates, predictions, exports and explanations follow from it. Knows graphs of nets;
the client reads it too, so that it knows no library that computes.
"""

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from descent.fields import with_type
from models.architectures.base import Architecture
from models.architectures.dense import Layers, Linear, Mlp
from models.architectures.trees import Trees

#: every architecture by its type
ARCHITECTURES: dict[str, type[Architecture]] = {
    each.model_fields["type"].default: each for each in (Linear, Mlp, Layers, Trees)
}


class _OneOfTheList:
    """Reads an architecture of the list, as it is then, by its type."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(_union(tuple(ARCHITECTURES.values())).core_schema)


def _read(value: object) -> Architecture:
    found: Architecture = _union(tuple(ARCHITECTURES.values())).validate_python(value)
    return found


@cache
def _union(listed: tuple[type[Architecture], ...]) -> TypeAdapter[Any]:
    # An object without a type is a multilayer perceptron, so that `{"hidden": [8]}` works.
    choices: Any = Union[listed]  # noqa: UP007  the members are known only here
    return TypeAdapter(Annotated[choices, Field(discriminator="type"), with_type("mlp")])


#: the field of a configuration that holds an architecture
if TYPE_CHECKING:
    ModelSpec: TypeAlias = Architecture
else:  # FastAPI would describe the base class too
    ModelSpec = Annotated[Any, _OneOfTheList()]
