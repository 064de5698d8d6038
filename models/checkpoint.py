"""The checkpoint file: tensors as safetensors, everything else as JSON in the header.

Reading needs NumPy only, checks every byte before it uses it, and unpickles nothing. The format:
8 bytes of header length; a JSON header of names, types, shapes and extents; the tensors' bytes.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from models.errors import CheckpointCorrupt
from models.failpoints import reach

SCHEMA = 2  # of the JSON document; a reader refuses a newer one
OLDER = frozenset({1})  # in which a net was a list of layers
MAX_HEADER = 64 * 2**20  # bytes; a document with 100 000 columns needs half of them
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
#: Prefixes of tensor names. Predictions use the tensors of BEST, or those of NET if there are none.
BEST = "best."
NET = "net."
#: Those of a cross-validation's predictions of rows by members that did not train with them.
OUT_OF_FOLD = "out_of_fold."

Tensors: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Written:
    """The digest and size of a file that is complete."""

    sha256: str
    bytes: int


def write(path: Path, tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> Written:
    """Write a checkpoint; the file appears under its name complete or not at all.

    It may be lost in a power cut; the blob store makes its copy durable. Reading returns the floats
    of the document exactly, and NaN and infinities as strings. Raises OSError, for example for a
    full disk; then no part of the file is left.
    """
    text = json.dumps(_plain({"schema": SCHEMA} | dict(document)), allow_nan=False)
    content = safetensors.numpy.save(
        {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()},
        metadata={"descent": text},
    )
    temporary = path.with_name(path.name + ".part")
    try:
        reach("checkpoint.begin")
        with temporary.open("wb") as file:
            file.write(content)
        reach("checkpoint.written")
        temporary.replace(path)
        reach("checkpoint.renamed")
    except OSError:
        temporary.unlink(missing_ok=True)  # a partial file would fill the disk further
        raise
    return Written(hashlib.sha256(content).hexdigest(), len(content))


def read(source: Path | bytes, prefix: str = "") -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors whose names start with `prefix`, and the document.

    Raises `CheckpointCorrupt` if `write` did not write this file.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        size = file.seek(0, os.SEEK_END)
        header, start = _read_header(file, size)
        document = _read_document(header.pop("__metadata__", None))
        extents = _check_extents(header, size - start)
        tensors = {
            name: _read_tensor(file, start, extent)
            for name, extent in extents.items()
            if name.startswith(prefix)
        }
    return tensors, document


def read_parameters(source: Path | bytes) -> tuple[Tensors, dict[str, Any]]:
    """Return the parameters that predict, by their names in the net, and the document.

    Raises `CheckpointCorrupt`.
    """
    tensors, document = read(source)
    prefix = BEST if any(name.startswith(BEST) for name in tensors) else NET
    parameters = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return parameters, document


@dataclass(frozen=True)
class _Extent:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise CheckpointCorrupt(f"a header of {length} bytes does not fit a file of {size} bytes")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"the header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointCorrupt("the header is no JSON object")
    return header, 8 + length


def _read_document(metadata: object) -> dict[str, Any]:
    text = metadata.get("descent") if isinstance(metadata, dict) else None
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"the document is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointCorrupt("the file has no document: descent did not write it")
    if document.get("schema") not in OLDER | {SCHEMA}:
        raise CheckpointCorrupt(
            f"the file has schema {document.get('schema')!r}, this version reads {SCHEMA}"
        )
    return document


def _check_extents(header: dict[str, Any], size: int) -> dict[str, _Extent]:
    """Check that the tensors cover the file's bytes without a gap or an overlap."""
    extents = {name: _to_extent(name, entry) for name, entry in header.items()}
    at = 0
    for name, extent in sorted(extents.items(), key=lambda item: (item[1].begin, item[1].end)):
        length = math.prod(extent.shape) * np.dtype(extent.dtype).itemsize
        if extent.begin != at or extent.end != at + length:
            raise CheckpointCorrupt(
                f"tensor {name!r} lies at {extent.begin}-{extent.end}, expected {at}-{at + length}"
            )
        at = extent.end
    if at != size:
        raise CheckpointCorrupt(f"the tensors take {at} bytes, the file holds {size}")
    return extents


def _to_extent(name: str, entry: object) -> _Extent:
    if not isinstance(entry, dict):
        raise CheckpointCorrupt(f"tensor {name!r} is not described by a JSON object")
    try:
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"tensor {name!r} is described wrongly: {error!r}") from error
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise CheckpointCorrupt(f"tensor {name!r} has a shape or place that is no whole number")
    return _Extent(dtype, shape, begin, end)


def _read_tensor(file: BinaryIO, start: int, extent: _Extent) -> NDArray[Any]:
    file.seek(start + extent.begin)
    content = bytearray(file.read(extent.end - extent.begin))
    return np.frombuffer(content, dtype=extent.dtype).reshape(extent.shape)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _plain(value: object) -> object:
    """Replace NaN and infinities by strings, because strict JSON has no words for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
