"""DataFrames of pandas and polars, as arguments and as results of the client.

Both libraries are optional. They load only when a DataFrame is used.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO, Literal, TypeAlias

#: the library of a DataFrame
Kind = Literal["pandas", "polars"]
#: of pandas or polars; both are optional, so no type of theirs can stand here
DataFrame: TypeAlias = Any
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
#: the types of pandas' markers of missing values other than NaN
MISSING = frozenset({"NAType", "NaTType"})


def kind_of(table: object) -> Kind | None:
    """Return the library of a DataFrame; None if the table is no DataFrame."""
    kinds: tuple[Kind, ...] = ("pandas", "polars")
    for kind in kinds:
        frame = getattr(sys.modules.get(kind), "DataFrame", None)
        if frame is not None and isinstance(table, frame):
            return kind
    return None


def library(name: str) -> ModuleType:
    """Return an optional package. Raises ModuleNotFoundError that says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        text = f"this needs {package}: pip install {package}"
        raise ModuleNotFoundError(text, name=name) from error


def frame_of(columns: Mapping[str, Sequence[Any]], kind: Kind) -> DataFrame:
    """Make a DataFrame. Raises ModuleNotFoundError if its library is not installed."""
    if kind == "polars":  # its default infers a type from the first hundred values
        return library(kind).DataFrame(columns, strict=False, infer_schema_length=None)
    return library(kind).DataFrame(columns)


def columns_of(frame: DataFrame, kind: Kind) -> dict[str, list[Any]]:
    """Return the columns of a DataFrame as lists."""
    if kind == "polars":
        found: dict[str, list[Any]] = frame.to_dict(as_series=False)
        return found
    return {str(name): column.tolist() for name, column in _flat(frame).items()}


def write(frame: DataFrame, kind: Kind, file: BinaryIO) -> str:
    """Write a DataFrame to a file as Parquet, which keeps types, or as CSV; return which of both.

    pandas writes Parquet only with pyarrow, which cannot hold columns of mixed types.
    """
    if kind == "polars":
        frame.write_parquet(file)
        return PARQUET
    frame = _flat(frame)
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        return _write_csv(frame, file)
    try:
        table = arrow.Table.from_pandas(frame, preserve_index=False)
    except (arrow.ArrowException, TypeError):
        return _write_csv(frame, file)
    parquet.write_table(table, file)
    return PARQUET


def _write_csv(frame: DataFrame, file: BinaryIO) -> str:
    frame.to_csv(file, index=False, mode="wb")
    return CSV


def _flat(frame: DataFrame) -> DataFrame:
    """Return a pandas DataFrame whose named index levels have become columns."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if all(isinstance(name, str) for name in frame.columns):
        return frame
    return frame.set_axis([str(name) for name in frame.columns], axis="columns")


def plain(value: object) -> object:
    """Return a cell as a JSON value: missing values are null, times are text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if type(value).__name__ in MISSING:
        return None
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a NumPy scalar
        return plain(value.item())
    return value
