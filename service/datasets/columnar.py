"""Stages Parquet and Arrow files, and reads rows of a stored table.

Such a file brings the types of its columns. A column that cannot be used is left out with a
warning. A forged file can make its reader allocate or crash, so only the parser's process stages
files.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from descent.codes import make_warning
from models.reading import WHITE
from service.datasets.headers import MAX_NAME, column_names
from service.datasets.rejected import Rejected, cell_error, shown
from service.datasets.staging import Kind, Stage, StageWriter, staged_names

ROWS = 16_384  # rows of a Parquet file that are read at a time
CELLS = 1_000_000  # cells of a Parquet file that are read at a time, which limits wide rows
_ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "category": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
#: the name that pandas gives to an index without one
_INDEX = re.compile(r"__index_level_\d+__")
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}")

#: A file's schema, and its rows in order.
Opened = tuple[pa.Schema, Iterator[pa.RecordBatch]]


def stage_parquet(
    path: Path, folder: Path, max_columns: int, missing: Collection[str] = ()
) -> Stage:
    return _stage(partial(open_parquet, path), folder, max_columns, missing)


def stage_arrow(path: Path, folder: Path, max_columns: int, missing: Collection[str] = ()) -> Stage:
    return _stage(partial(open_arrow, path), folder, max_columns, missing)


@contextmanager
def open_parquet(path: Path) -> Iterator[Opened]:
    """Give the schema and the rows of a file; raise Rejected, also during the block."""
    with _readable("Parquet"):
        # With a buffer ahead it would hold all that it has read.
        file = pq.ParquetFile(path, pre_buffer=False)
        schema = file.schema_arrow
        size = max(1, min(ROWS, CELLS // max(1, len(schema))))
        yield schema, map(_validated, file.iter_batches(size))


@contextmanager
def open_arrow(path: Path) -> Iterator[Opened]:
    """Give the schema and the rows of a file; raise Rejected, also during the block."""
    with (
        _readable("Arrow"),
        pa.OSFile(str(path), "rb") as source,
        pyarrow.ipc.open_file(source) as file,
    ):
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        yield file.schema, map(_validated, batches)


@contextmanager
def _readable(form: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowMemoryError:
        raise  # the memory limit has worked
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(form) from error


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    # Offsets of a forged file may point anywhere, so they are checked before use.
    batch.validate(full=True)
    return batch


def check_columns(schema: pa.Schema, max_columns: int) -> None:
    if not len(schema):
        raise Rejected("no_columns", "The file has no columns.")
    if len(schema) > max_columns:
        raise Rejected(
            "too_many_columns",
            f"The file has {len(schema)} columns; at most {max_columns} are read: send fewer, or"
            " raise DESCENT_MAX_COLUMNS.",
        )


def _stage(
    opener: Callable[[], AbstractContextManager[Opened]],
    folder: Path,
    max_columns: int,
    missing: Collection[str],
) -> Stage:
    """Stage the columns that can be used; a warning names each that is left out."""
    with opener() as (schema, batches):
        check_columns(schema, max_columns)
        wanted, warnings = _usable(schema)
        beyond = _beyond_64_bits(schema, wanted, batches)
    fields = [schema.field(index) for index in wanted]
    said = _categories_of_pandas(schema)
    kinds = ["text" if i in beyond else kind_of(schema.field(i)) for i in wanted]
    kinds = [
        "category" if field.name in said and kind == "integer" else kind
        for field, kind in zip(fields, kinds, strict=True)
    ]
    names, faults = column_names([field.name for field in fields], is_header=True)
    stage = Stage(folder, names, kinds, warnings=warnings + faults)
    staged = pa.schema(
        [(name, _ARROW[kind]) for name, kind in zip(staged_names(len(kinds)), kinds, strict=True)]
    )
    writer = StageWriter(stage, staged)
    with opener() as (_schema, batches):
        for batch in batches:
            columns = [
                _present(cast(batch.column(index), kind, name), kind, missing)
                for index, kind, name in zip(wanted, kinds, names, strict=True)
            ]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=staged))
    writer.close()
    if not stage.rows:
        raise Rejected("empty_file", "The file has no rows: send at least one row of data.")
    return stage


def _categories_of_pandas(schema: pa.Schema) -> set[str]:
    """Return the columns that were categories of pandas; Parquet keeps that as metadata only."""
    try:
        columns = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))["columns"]
        return {str(each["name"]) for each in columns if each.get("pandas_type") == "categorical"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()  # none, or not of pandas


def _usable(schema: pa.Schema) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the numbers of the columns that are read, and a warning for each other column."""
    wanted, warnings = [], []
    for index, field in enumerate(schema):
        reason = ""
        if not _is_usable(field):
            reason = f"has the type {str(field.type)[:80]}, which no cell can hold"
        elif _INDEX.fullmatch(field.name) and kind_of(field) != "datetime":
            reason = "is the index of a DataFrame, which names its rows"
        if not reason:
            wanted.append(index)
            continue
        detail = f"Column {shown(field.name)} {reason}: it is left out."
        warnings.append(make_warning("column_left_out", detail, field.name[:MAX_NAME]))
    if not wanted:
        kind_of(schema.field(0))  # raises the error of a type that cannot be used
        return list(range(len(schema))), []
    return wanted, warnings


def _beyond_64_bits(
    schema: pa.Schema, wanted: list[int], batches: Iterator[pa.RecordBatch]
) -> set[int]:
    """Return the columns of whole numbers of which some do not fit into 64 bits with a sign."""
    unsure = [i for i in wanted if _is_wide(_plain_type(schema.field(i).type))]
    beyond: set[int] = set()
    if not unsure:
        return beyond
    for batch in batches:
        for index in set(unsure) - beyond:
            column = _decoded(batch.column(index))
            try:
                column.cast(pa.int64())
            except pa.ArrowInvalid:
                beyond.add(index)
    return beyond


def _is_wide(kind: pa.DataType) -> bool:
    return pa.types.is_uint64(kind) or (pa.types.is_decimal(kind) and kind.scale <= 0)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, without the ways in which a file stores them."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    return kind


def _is_usable(field: "pa.Field[Any]") -> bool:
    try:
        kind_of(field)
    except Rejected:
        return False
    return True


def kind_of(field: "pa.Field[Any]") -> Kind:
    kind = _plain_type(field.type)
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if types.is_dictionary(field.type) and (is_text or types.is_integer(kind)):
        return "category"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or _is_wide(kind):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
        return "number"
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return "datetime"
    if is_text or types.is_null(kind):
        return "text"
    raise cell_error(
        "unsupported_type",
        f"Column {shown(field.name)} has the type {str(kind)[:80]}: a column must hold numbers,"
        " texts, booleans, dates or times.",
        column=field.name,
    )


def cast(column: "pa.Array[Any]", kind: Kind, name: str) -> "pa.Array[Any]":
    """Return the values as the type of a kind; a duration is a number of seconds."""
    try:
        column = _decoded(column)
        if pa.types.is_duration(column.type):
            return pc.divide(
                column.cast(pa.int64()).cast(pa.float64(), safe=False),
                _PER_SECOND[column.type.unit],
            )
        if pa.types.is_time(column.type):  # on the first day of 1970, as `09:30` in a text
            column = column.cast(pa.time64("ns")).cast(pa.int64()).cast(pa.timestamp("ns"))
        elif pa.types.is_timestamp(column.type) and column.type.tz:
            column = column.cast(pa.timestamp(column.type.unit))
        # Only this is inexact: nanoseconds become microseconds, and decimals become doubles.
        options = pc.CastOptions(
            _ARROW[kind],
            allow_time_truncate=True,
            allow_float_truncate=kind == "number",
            allow_decimal_truncate=kind == "number",
            allow_int_overflow=False,
        )
        found: pa.Array[Any] = pc.call_function("cast", [column], options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise cell_error(
            "unreadable", f"The values of column {shown(name)} cannot be read.", column=name
        ) from error
    return found


def whole_numbers(column: "pa.Array[Any]") -> list[int | None]:
    """Return whole numbers of any size."""
    return [None if each is None else int(each) for each in _decoded(column).to_pylist()]


def _decoded(column: "pa.Array[Any]") -> "pa.Array[Any]":
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        return _decoded(column.dictionary).take(column.indices)
    if pa.types.is_string_view(column.type):  # few functions take it
        return column.cast(pa.string())
    if isinstance(column, pa.RunEndEncodedArray):
        return _decoded(pc.call_function("run_end_decode", [column]))
    return column


def _present(column: "pa.Array[Any]", kind: Kind, missing: Collection[str]) -> "pa.Array[Any]":
    """Return the values, with null for blank texts, infinities, NaN, and what means missing."""
    absent: pa.Array[Any] | None = None
    if kind in {"text", "category"}:
        column = pc.utf8_trim(column, WHITE)
        absent = pc.is_in(column, value_set=pa.array(sorted({"", *missing}), pa.string()))
    elif kind == "number":
        marks = pa.array([float(each) for each in missing if _is_number(each)], pa.float64())
        absent = pc.or_(pc.invert(pc.is_finite(column)), pc.is_in(column, value_set=marks))
    elif kind == "integer" and (
        whole := [int(each) for each in missing if _DIGITS.fullmatch(each)]
    ):
        absent = pc.is_in(column, value_set=pa.array(whole, pa.int64()))
    if absent is None:
        return column
    found: pa.Array[Any] = pc.if_else(absent, pa.scalar(None, column.type), column)
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _unreadable(form: str) -> Rejected:
    return Rejected(
        "dataset_unparseable",
        f"The file is not valid {form}: it is damaged or cut off.",
    )


# ---- rows of a stored table ---------------------------------------------------------------------


def read_rows(path: Path, first: int, count: int, columns: list[str]) -> list[dict[str, Any]]:
    """Return rows `first` to `first + count` as JSON values, in the order of the file."""
    with pq.ParquetFile(path) as file:
        # By number, because a dot in a name would mean a path into a nested column.
        places = {name: index for index, name in enumerate(file.schema_arrow.names)}
        wanted = [places[name] for name in columns]
        lists = [_values(file, place, first, count) for place in wanted]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _values(file: pq.ParquetFile, place: int, first: int, count: int) -> list[Any]:
    values: list[Any] = []
    for group, start, stop in _parts(file, first, count):
        found = file.reader.read_row_group(group, column_indices=[place], use_threads=False)
        values += _plain(found.column(0).slice(start, stop - start))
    return values


def _parts(file: pq.ParquetFile, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield each row group with some of the rows, and the range of these within it."""
    begin = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        start, stop = max(first, begin), min(first + count, begin + rows)
        if start < stop:
            yield group, start - begin, stop - begin
        begin += rows
        if begin >= first + count:
            return


def _plain(column: "pa.ChunkedArray[Any]") -> list[Any]:
    return [
        f"{value.isoformat()}Z" if isinstance(value, datetime) else value
        for value in column.to_pylist()
    ]
