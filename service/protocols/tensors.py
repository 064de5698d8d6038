"""Tensors of the Open Inference Protocol: requests become columns, predictions become tensors.

- Requests: JSON or raw bytes. Names, shapes, datatypes and values that do not fit are errors.
- Answers: a tensor per target, the probabilities of classes, and the errors of rows.
- Raw bytes: how values of each datatype are encoded and decoded.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from descent.schemas.protocols import InferRequest, InputTensor, TensorParameters
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.predict.predictor import Prediction
from service.datasets.rejected import free_name
from service.errors import BadRequest, Invalid, field_error, invalid_at
from service.http import validation
from service.http.validation import strict_json
from service.predict import bodies

#: the header with the length of the JSON document in bytes
HEADER = "Inference-Header-Content-Length"
SIZE = "binary_data_size"
#: type of a column → datatype of its tensor; BYTES for all others
DATATYPES = {"number": "FP64", "integer": "FP64", "boolean": "BOOL"}
#: type of a target with classes → datatype of its tensor; BYTES for all others
CLASS_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
#: datatype → the type of an element in raw bytes
NUMBERS = {
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": np.dtype("<u2"),  # the first half of an FP32
    "BOOL": np.dtype("u1"),
}
#: datatype → the least and the greatest whole number of that type
WHOLE = {
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}
#: datatype → the greatest finite number of that type
REAL = {"FP16": 65504.0, "BF16": 3.3895313892515355e38, "FP32": 3.4028234663852886e38, "FP64": inf}
#: datatype → the value of a missing answer in raw bytes; NaN if the datatype has it
NOTHING: dict[str, Any] = {"BYTES": "", "BOOL": False, "INT64": 0, "FP64": np.nan}
#: parameters of extensions that would change the answer, so they are refused and not ignored
NOT_HERE = ("classification", "shared_memory_region")
_LENGTH = struct.Struct("<I")

Tensor = dict[str, Any]


@dataclass(frozen=True)
class TensorBody:
    """A request, and the raw bytes of its binary tensors."""

    request: InferRequest
    #: position of the tensor → its bytes
    raw: Mapping[int, memoryview]


# ---- requests -----------------------------------------------------------------------------------


def parse(content: bytes, length: str | None) -> TensorBody:
    """Read a body whose JSON document has `length` bytes; without `length`, all of it is JSON."""
    document, rest = split(content, length)
    # Clients write NumPy's values, including NaN: a missing value, as in binary tensors.
    said = strict_json(document, constant=float)
    try:
        request = InferRequest.model_validate(said)
    except ValidationError as error:
        found = [each | {"loc": ("body", *each["loc"])} for each in error.errors()]
        raise validation.to_error(found, said) from error
    _check_parameters(request)
    return TensorBody(request, _cut(request, rest))


def read(asked: TensorBody, features: Features, max_rows: int) -> bodies.Rows:
    """Return the rows of a request, whose tensors are the columns."""
    known = {column.name: DATATYPES.get(column.type, "BYTES") for column in features.inputs}
    # Text is read as the training table was.
    spelled = {column.name for column in features.inputs if column.reading is not None}
    tensors = asked.request.inputs
    columns: bodies.Columns = {}
    for place, tensor in enumerate(tensors):
        at = f"/inputs/{place}"
        _check_name(tensor.name, known, columns, at)
        _check_shape(tensor, tensors[0].shape[0], at)
        bodies.check_count(tensor.shape[0], max_rows)
        if tensor.datatype != "BYTES" or tensor.name not in spelled:
            _check_datatype(tensor, known[tensor.name], at)
        raw = asked.raw.get(place)
        columns[tensor.name] = _values(tensor, at) if raw is None else _decoded(tensor, raw, at)
    return bodies.Rows(columns, tensors[0].shape[0] if tensors else 0)


def unknown(name: str, known: list[str], pointer: str) -> Invalid:
    detail = f"There is no tensor {name[:60]!r}: the model has {bodies.quoted(known)}."
    return invalid_at(pointer, "unknown_tensor", detail)


def _check_parameters(request: InferRequest) -> None:
    said: list[tuple[str, TensorParameters | None]] = [
        (f"/inputs/{place}", tensor.parameters) for place, tensor in enumerate(request.inputs)
    ]
    said += [(f"/outputs/{place}", each.parameters) for place, each in enumerate(_wanted(request))]
    for at, parameters in said:
        for name in NOT_HERE:
            if parameters and name in parameters:
                detail = f"The extension {name} is not supported: GET /v2 lists those that are."
                raise invalid_at(f"{at}/parameters/{name}", "not_supported", detail)


def _wanted(request: InferRequest) -> list[Any]:
    return list(request.outputs or ())


def _cut(request: InferRequest, rest: memoryview) -> dict[int, memoryview]:
    """Return the bytes of each binary tensor, which follow in the order of the tensors."""
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
            f"the JSON document ({HEADER}).",
            code="malformed_tensor",
        )
    return found


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
        values = "" if tensor.data is None else f" and {count} values"
        detail = (
            f"The tensor {tensor.name[:60]!r} has the shape {shape}{values}: send "
            "[rows] or [rows, 1] and one value for each row."
        )
        raise invalid_at(f"{at}/shape", "wrong_shape", detail)
    if shape[0] != rows:
        detail = (
            f"The tensor {tensor.name[:60]!r} has {shape[0]} rows, but the first one has {rows}."
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
        return decode(raw, tensor.datatype, tensor.shape[0])
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


def _holds(datatype: str, value: object) -> bool:
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


# ---- answers ------------------------------------------------------------------------------------


def tensors_of(features: Features, predictions: list[Prediction]) -> Iterator[Tensor]:
    """Yield a tensor for each target and, for a target with classes, one of all probabilities."""
    goal = features.target
    if isinstance(goal, ClassTarget):
        datatype = CLASS_DATATYPES.get(goal.type, "BYTES")
        yield _tensor(goal.name, datatype, [row.value for row in predictions])
        shares = [
            (row.probabilities or {}).get(label) for row in predictions for label in goal.labels
        ]
        yield _tensor(shares_name(features), "FP64", shares, len(goal.labels))
    elif len(goal.names) == 1:
        yield _tensor(goal.names[0], "FP64", [row.value for row in predictions])
    else:
        for name in goal.names:
            values = [
                row.value.get(name) if isinstance(row.value, dict) else None for row in predictions
            ]
            yield _tensor(name, "FP64", values)


def errors_of(features: Features, predictions: list[Prediction]) -> Tensor:
    """Return the tensor with the error of each row without an answer, and an empty text if none."""
    sentences = [row.error.detail if row.error else "" for row in predictions]
    return _tensor(free_name("error", _targets(features)), "BYTES", sentences)


def shares_name(features: Features) -> str:
    """Return the name of the tensor of probabilities."""
    return free_name("probabilities", _targets(features))


def _targets(features: Features) -> set[str]:
    return {output["name"] for output in features.target.signature()}


def _tensor(name: str, datatype: str, data: list[Any], width: int | None = None) -> Tensor:
    shape = [len(data)] if width is None else [len(data) // width, width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


# ---- raw bytes ----------------------------------------------------------------------------------


def split(content: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """Return the first `length` bytes of a body, the JSON document, and the bytes that follow."""
    if length is None:
        return content, memoryview(b"")
    if not (length.isascii() and length.isdigit() and len(length) <= 18):
        raise BadRequest(
            f"{HEADER} should be the number of bytes of the JSON document, got {length[:40]!r}.",
            code="malformed_header",
        )
    if int(length) > len(content):
        raise BadRequest(
            f"{HEADER} is {length}, but the whole body has {len(content)} bytes.",
            code="malformed_header",
        )
    return content[: int(length)], memoryview(content)[int(length) :]


def decode(raw: memoryview, datatype: str, count: int) -> list[Any]:
    """Return the `count` values of a tensor; NaN becomes None. Raises ValueError."""
    if datatype == "BYTES":
        return _texts(raw, count)
    kind = NUMBERS[datatype]
    if len(raw) != count * kind.itemsize:
        raise ValueError(
            f"{count} values of {datatype} are {count * kind.itemsize} bytes, got {len(raw)}"
        )
    numbers = np.frombuffer(raw, kind)
    if datatype == "BOOL":
        return _booleans(numbers)
    if datatype == "BF16":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    found: list[Any] = numbers.tolist()
    # Most columns have no missing value, so most lists need no second pass.
    is_whole = numbers.dtype.kind != "f" or not np.isnan(numbers).any()
    return found if is_whole else [None if value != value else value for value in found]  # noqa: PLR0124  NaN


def encode(values: Sequence[Any], datatype: str) -> bytes:
    """Return the bytes of an answer's values; None becomes NaN, an empty text, 0 or false."""
    nothing = NOTHING[datatype]
    whole = [nothing if value is None else value for value in values]
    if datatype == "BYTES":
        texts = [text.encode() for text in whole]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return np.array(whole, NUMBERS[datatype]).tobytes()


def _booleans(numbers: NDArray[Any]) -> list[bool]:
    if (numbers > 1).any():
        raise ValueError("each byte of a BOOL must be 0 or 1")
    return [bool(number) for number in numbers.tolist()]


def _texts(raw: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(raw):
        start = place + _LENGTH.size
        if start > len(raw):
            raise ValueError(f"the length of element {len(texts)} is cut off")
        place = start + _LENGTH.unpack_from(raw, place)[0]
        if place > len(raw):
            raise ValueError(f"element {len(texts)} is longer than the bytes that are left")
        texts.append(_text(raw[start:place], len(texts)))
        if len(texts) > count:
            break
    if len(texts) != count:
        raise ValueError(f"the shape has {count} elements, but the bytes hold another number")
    return texts


def _text(raw: memoryview, place: int) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"element {place} is not UTF-8") from error
