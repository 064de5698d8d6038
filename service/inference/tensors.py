"""What a request of the Open Inference Protocol holds, and the columns that its tensors are.

Holds a client to what it says: names, shapes, datatypes and values that do not fit are errors.
"""

from math import inf, prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.features import Features
from service.errors import Invalid
from service.inference import bodies

MAX_TENSORS = 10_000  # of one request; a body of wrong ones would get a far longer answer
#: type of a column → datatype of its tensor
DATATYPES = {"number": "FP64", "integer": "FP64", "boolean": "BOOL"}
#: datatype → the least and the greatest whole number that it holds
WHOLE = {
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}
#: datatype → the greatest number that it holds
REAL = {"FP16": 65504.0, "BF16": 3.3895313892515355e38, "FP32": 3.4028234663852886e38, "FP64": inf}

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
#: Accepted wherever the protocol has them; none of them has a meaning here.
Parameters = dict[str, bool | int | float | str]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    parameters: Parameters | None = None


class InputTensor(_Said):
    """The values of one column."""

    name: str
    #: `[rows]` or `[rows, 1]`
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2)]
    datatype: Datatype
    #: null is a missing value
    data: list[Any]


class WantedTensor(_Said):
    """A tensor that the answer shall hold."""

    name: str


class InferRequest(_Said):
    """What to predict."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(max_length=MAX_TENSORS)]
    #: all where it is absent
    outputs: Annotated[list[WantedTensor], Field(max_length=MAX_TENSORS)] | None = None


def read(tensors: list[InputTensor], features: Features, max_rows: int) -> bodies.Rows:
    """Return the rows that the tensors are the columns of."""
    known = {column.name: DATATYPES.get(column.type, "BYTES") for column in features.inputs}
    columns: bodies.Columns = {}
    for place, tensor in enumerate(tensors):
        at = f"/inputs/{place}"
        _check_name(tensor.name, known, columns, at)
        _check_shape(tensor, tensors[0].shape[0], at)
        bodies.check_count(tensor.shape[0], max_rows)
        _check_datatype(tensor, known[tensor.name], at)
        columns[tensor.name] = _values(tensor, at)
    return bodies.Rows(columns, tensors[0].shape[0] if tensors else 0)


def unknown(name: str, known: list[str], pointer: str) -> Invalid:
    detail = f"There is no tensor {name[:60]!r}: the model has {bodies.told(known)}."
    return _refused(pointer, "unknown_tensor", detail)


def _check_name(name: str, known: dict[str, str], given: bodies.Columns, at: str) -> None:
    if name not in known:
        raise unknown(name, list(known), f"{at}/name")
    if name in given:
        detail = f"Two input tensors have the name {name[:60]!r}."
        raise _refused(f"{at}/name", "duplicate_column", detail)


def _check_shape(tensor: InputTensor, rows: int, at: str) -> None:
    count, shape = len(tensor.data), tensor.shape
    if shape[1:] not in ([], [1]) or count != prod(shape):
        detail = (
            f"The tensor {tensor.name[:60]!r} has the shape {shape} and {count} values: send "
            "[rows] or [rows, 1] and one value for each row."
        )
        raise _refused(f"{at}/shape", "wrong_shape", detail)
    if shape[0] != rows:
        detail = (
            f"The tensor {tensor.name[:60]!r} has {shape[0]} rows where the first one has {rows}."
        )
        raise _refused(f"{at}/shape", "wrong_shape", detail)


def _check_datatype(tensor: InputTensor, wanted: str, at: str) -> None:
    given = tensor.datatype
    if given != wanted and not (wanted == "FP64" and given in WHOLE.keys() | REAL.keys()):
        other = " or another datatype of numbers" if wanted == "FP64" else ""
        detail = f"The tensor {tensor.name[:60]!r} has the datatype {given}: send {wanted}{other}."
        raise _refused(f"{at}/datatype", "wrong_datatype", detail)


def _values(tensor: InputTensor, at: str) -> list[Any]:
    """Return one value for each row of a tensor, whose data may be nested or flat."""
    values = tensor.data
    if len(tensor.shape) == 2:
        values = [
            value[0] if isinstance(value, list) and len(value) == 1 else value for value in values
        ]
    errors = [
        {
            "pointer": f"{at}/data/{place}",
            "code": "wrong_type",
            "detail": f"{str(value)[:60]!r} is no {tensor.datatype}",
        }
        for place, value in enumerate(values)
        if not _holds(tensor.datatype, value)
    ]
    if errors:
        detail = f"In the tensor {tensor.name[:60]!r}: {errors[0]['detail']}."
        raise Invalid(detail, code="wrong_type", errors=errors[: bodies.MAX_ERRORS])
    return values


def _holds(datatype: str, value: Any) -> bool:  # noqa: ANN401  what a client sent
    if value is None:
        return True
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL" or isinstance(value, bool):
        return datatype == "BOOL" and isinstance(value, bool)
    if not isinstance(value, int | float):
        return False
    if datatype in REAL:
        return abs(value) <= REAL[datatype]
    least, most = WHOLE[datatype]
    return least <= value <= most and value == int(value)


def _refused(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, code=code, errors=[{"pointer": pointer, "code": code, "detail": detail}])
