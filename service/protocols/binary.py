"""Tensors as raw bytes: the binary data extension of the Open Inference Protocol.

A body is a JSON document and, behind it, the elements of each tensor, little-endian and without
gaps; an element of BYTES is its length in four bytes and then its bytes. Knows no model.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest

#: the header that says how long the JSON document is
HEADER = "Inference-Header-Content-Length"
#: datatype → the bytes of an element
NUMBERS = {
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": np.dtype("<u2"),  # the first half of an FP32
    "BOOL": np.dtype("u1"),
}
#: what stands for an answer that there is not; NaN where the datatype has it
NOTHING: dict[str, Any] = {"BYTES": "", "BOOL": False, "INT64": 0, "FP64": np.nan}
_LENGTH = struct.Struct("<I")


def split(content: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON document of a body, `length` bytes of it, and what is behind."""
    if length is None:
        return content, memoryview(b"")
    if not (length.isascii() and length.isdigit() and len(length) <= 18):
        raise BadRequest(
            f"{HEADER} should be the number of bytes of the JSON document, got {length[:40]!r}.",
            code="malformed_header",
        )
    if int(length) > len(content):
        raise BadRequest(
            f"{HEADER} is {length} where the whole body has {len(content)} bytes.",
            code="malformed_header",
        )
    return content[: int(length)], memoryview(content)[int(length) :]


def decode(raw: memoryview, datatype: str, count: int) -> list[Any]:
    """Return the `count` values of a tensor; raise ValueError where its bytes are no such values.

    NaN is None: a missing value.
    """
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
    # Most columns have no missing value, so most lists are not walked.
    is_whole = numbers.dtype.kind != "f" or not np.isnan(numbers).any()
    return found if is_whole else [None if value != value else value for value in found]  # noqa: PLR0124  NaN


def encode(values: Sequence[Any], datatype: str) -> bytes:
    """Return the bytes of an answer's values; None is NaN, an empty text, 0 or false."""
    nothing = NOTHING[datatype]
    whole = [nothing if value is None else value for value in values]
    if datatype == "BYTES":
        texts = [text.encode() for text in whole]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return np.array(whole, NUMBERS[datatype]).tobytes()


def _booleans(numbers: NDArray[Any]) -> list[bool]:
    if (numbers > 1).any():
        raise ValueError("a BOOL is a byte that is 0 or 1")
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
        raise ValueError(f"the shape says {count} elements, and the bytes hold another number")
    return texts


def _text(raw: memoryview, place: int) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"element {place} is not UTF-8") from error
