"""Bodies of the Open Inference Protocol: tensors go in, one for each column, and come out."""

from typing import Annotated, Any, Literal

from pydantic import Field

from descent.schemas.wire import Wire
from descent.strict import WHOLE, Strict

MAX_TENSORS = 10_000  # of one request; a body of wrong ones would get a far longer answer

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
#: Accepted wherever the protocol has them; those of the binary data extension have a meaning.
TensorParameters = dict[str, bool | int | float | str]


class InputTensor(Strict):
    """The values of one column."""

    name: str
    #: `[rows]` or `[rows, 1]`
    shape: Annotated[list[Annotated[int, Field(ge=0), WHOLE]], Field(min_length=1, max_length=2)]
    datatype: Datatype
    #: null and NaN are missing values; absent where `parameters.binary_data_size` says how many
    #: bytes behind the JSON document hold them
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


class WantedTensor(Strict):
    """A tensor that the answer shall hold."""

    name: str
    #: `binary_data` asks for raw bytes
    parameters: TensorParameters | None = None


class InferRequest(Strict):
    """What to predict."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(max_length=MAX_TENSORS)]
    #: all where it is absent
    outputs: Annotated[list[WantedTensor], Field(max_length=MAX_TENSORS)] | None = None
    #: `binary_data_output` asks for raw bytes in all outputs
    parameters: TensorParameters | None = None


class OutputTensor(Wire):
    """The answers of all rows: values of one target, or the shares of its classes."""

    name: str
    datatype: Datatype
    shape: list[int]
    #: absent where `parameters.binary_data_size` says how many bytes hold the values
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


class InferAnswer(Wire):
    """One value for each row in each tensor."""

    model_name: str
    model_version: str
    id: str | None = None
    #: `warnings` and `errors` of rows: JSON text, a list of objects with code, column and rows
    parameters: TensorParameters | None = None
    outputs: list[OutputTensor]
