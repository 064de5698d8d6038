"""The columns that the tensors of an Open Inference Protocol request are.

Holds a client to what it says: names, shapes, datatypes and values that do not fit are errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any

from pydantic import ValidationError

from descent.schemas.protocols import InferRequest, InputTensor, TensorParameters
from models.features.encoding import Features
from service.errors import BadRequest, Invalid, field_error, invalid_at
from service.http import validation
from service.http.strict_json import strict_json
from service.predict import bodies
from service.protocols import binary

#: type of a column → datatype of its tensor
DATATYPES = {"number": "FP64", "integer": "FP64", "boolean": "BOOL"}
#: datatype → the least and the greatest whole number that it holds
WHOLE = {
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}
#: datatype → the greatest number that it holds
REAL = {"FP16": 65504.0, "BF16": 3.3895313892515355e38, "FP32": 3.4028234663852886e38, "FP64": inf}
SIZE = "binary_data_size"
#: parameters of extensions that would change an answer's meaning, so they are not ignored
NOT_HERE = ("classification", "shared_memory_region")


@dataclass(frozen=True)
class Asked:
    """A request, and the raw bytes of those of its tensors that sent some."""

    request: InferRequest
    #: by the tensor's position
    raw: Mapping[int, memoryview]


def parse(content: bytes, length: str | None) -> Asked:
    """Read a body whose JSON document has `length` bytes, all where that is None."""
    document, rest = binary.split(content, length)
    # Clients write what NumPy holds, NaN included: it is a missing value, as in binary tensors.
    said = strict_json(document, constant=float)
    try:
        request = InferRequest.model_validate(said)
    except ValidationError as error:
        found = [each | {"loc": ("body", *each["loc"])} for each in error.errors()]
        raise validation.to_error(found, said) from error
    _check_parameters(request)
    return Asked(request, _cut(request, rest))


def read(asked: Asked, features: Features, max_rows: int) -> bodies.Rows:
    """Return the rows that the tensors are the columns of."""
    known = {column.name: DATATYPES.get(column.type, "BYTES") for column in features.inputs}
    tensors = asked.request.inputs
    columns: bodies.Columns = {}
    for place, tensor in enumerate(tensors):
        at = f"/inputs/{place}"
        _check_name(tensor.name, known, columns, at)
        _check_shape(tensor, tensors[0].shape[0], at)
        bodies.check_count(tensor.shape[0], max_rows)
        _check_datatype(tensor, known[tensor.name], at)
        raw = asked.raw.get(place)
        columns[tensor.name] = _values(tensor, at) if raw is None else _decoded(tensor, raw, at)
    return bodies.Rows(columns, tensors[0].shape[0] if tensors else 0)


def unknown(name: str, known: list[str], pointer: str) -> Invalid:
    detail = f"There is no tensor {name[:60]!r}: the model has {bodies.told(known)}."
    return invalid_at(pointer, "unknown_tensor", detail)


# ---- the body ------------------------------------------------------------------------------------


def _check_parameters(request: InferRequest) -> None:
    said: list[tuple[str, TensorParameters | None]] = [
        (f"/inputs/{place}", tensor.parameters) for place, tensor in enumerate(request.inputs)
    ]
    said += [(f"/outputs/{place}", each.parameters) for place, each in enumerate(_wanted(request))]
    for at, parameters in said:
        for name in NOT_HERE:
            if parameters and name in parameters:
                detail = (
                    f"The extension of {name} is not spoken here: GET /v2 lists those that are."
                )
                raise invalid_at(f"{at}/parameters/{name}", "not_supported", detail)


def _wanted(request: InferRequest) -> list[Any]:
    return list(request.outputs or ())


def _cut(request: InferRequest, rest: memoryview) -> dict[int, memoryview]:
    """Return the part of each binary tensor, in the order of the tensors."""
    found: dict[int, memoryview] = {}
    start = 0
    for place, tensor in enumerate(request.inputs):
        at = f"/inputs/{place}"
        size = (tensor.parameters or {}).get(SIZE)
        if size is None:
            if tensor.data is None:
                detail = f"The tensor {tensor.name[:60]!r} has neither data nor {SIZE}."
                raise invalid_at(f"{at}/data", "missing_field", detail)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            detail = f"{SIZE} should be a number of bytes, got {str(size)[:40]!r}."
            raise invalid_at(f"{at}/parameters/{SIZE}", "wrong_type", detail)
        if tensor.data is not None:
            detail = f"The tensor {tensor.name[:60]!r} has both data and {SIZE}: send one."
            raise invalid_at(f"{at}/data", "unknown_field", detail)
        found[place] = rest[start : start + size]
        start += size
    if start != len(rest):
        raise BadRequest(
            f"The binary tensors have {start} bytes by their {SIZE}, and {len(rest)} bytes follow "
            f"the JSON document ({binary.HEADER}).",
            code="malformed_tensor",
        )
    return found


# ---- the tensors ---------------------------------------------------------------------------------


def _check_name(name: str, known: dict[str, str], given: bodies.Columns, at: str) -> None:
    if name not in known:
        raise unknown(name, list(known), f"{at}/name")
    if name in given:
        detail = f"Two input tensors have the name {name[:60]!r}."
        raise invalid_at(f"{at}/name", "duplicate_column", detail)


def _check_shape(tensor: InputTensor, rows: int, at: str) -> None:
    shape = tensor.shape
    count = prod(shape) if tensor.data is None else len(tensor.data)
    if shape[1:] not in ([], [1]) or count != prod(shape):
        told = "" if tensor.data is None else f" and {count} values"
        detail = (
            f"The tensor {tensor.name[:60]!r} has the shape {shape}{told}: send "
            "[rows] or [rows, 1] and one value for each row."
        )
        raise invalid_at(f"{at}/shape", "wrong_shape", detail)
    if shape[0] != rows:
        detail = (
            f"The tensor {tensor.name[:60]!r} has {shape[0]} rows where the first one has {rows}."
        )
        raise invalid_at(f"{at}/shape", "wrong_shape", detail)


def _check_datatype(tensor: InputTensor, wanted: str, at: str) -> None:
    given = tensor.datatype
    if given != wanted and not (wanted == "FP64" and given in WHOLE.keys() | REAL.keys()):
        other = " or another datatype of numbers" if wanted == "FP64" else ""
        detail = f"The tensor {tensor.name[:60]!r} has the datatype {given}: send {wanted}{other}."
        raise invalid_at(f"{at}/datatype", "wrong_datatype", detail)


def _decoded(tensor: InputTensor, raw: memoryview, at: str) -> list[Any]:
    try:
        return binary.decode(raw, tensor.datatype, tensor.shape[0])
    except ValueError as error:
        raise BadRequest(
            f"The bytes of the tensor {tensor.name[:60]!r} cannot be read: {error}.",
            code="malformed_tensor",
            errors=[field_error(at, "malformed_tensor", str(error))],
        ) from error


def _values(tensor: InputTensor, at: str) -> list[Any]:
    """Return one value for each row of a tensor, whose data may be nested or flat."""
    values = tensor.data or []
    if len(tensor.shape) == 2:
        values = [
            value[0] if isinstance(value, list) and len(value) == 1 else value for value in values
        ]
    values = [None if value != value else value for value in values]  # noqa: PLR0124  NaN
    errors = [
        field_error(
            f"{at}/data/{place}", "wrong_type", f"{str(value)[:60]!r} is no {tensor.datatype}"
        )
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
        return abs(value) <= REAL[datatype] or not isfinite(value)
    least, most = WHOLE[datatype]
    return least <= value <= most and value == int(value)
