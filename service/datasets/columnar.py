"""Stages Parquet and Arrow files, which bring their own types.

A forged file can make its reader allocate or crash: this runs in the parser's process only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from service.datasets.dialect import column_names
from service.datasets.rejected import Rejected, cell_error, shown
from service.datasets.staging import Kind, SlabWriter, Stage, staged_names

ROWS = 16_384  # rows that are read at a time
CELLS = 1_000_000  # and cells, for wide files
_ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}


#: A file's schema, and its rows from the first to the last.
Opened = tuple[pa.Schema, Iterator[pa.RecordBatch]]


def stage_parquet(path: Path, folder: Path, max_columns: int) -> Stage:
    with open_parquet(path) as (schema, batches):
        return _stage(schema, batches, folder, max_columns)


def stage_arrow(path: Path, folder: Path, max_columns: int) -> Stage:
    with open_arrow(path) as (schema, batches):
        return _stage(schema, batches, folder, max_columns)


@contextmanager
def open_parquet(path: Path) -> Iterator[Opened]:
    """Give what is in a file; raise Rejected where it cannot be read, now or later."""
    with _readable("Parquet"):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        size = max(1, min(ROWS, CELLS // max(1, len(schema))))
        yield schema, map(_validated, file.iter_batches(size))


@contextmanager
def open_arrow(path: Path) -> Iterator[Opened]:
    """Give what is in a file; raise Rejected where it cannot be read, now or later."""
    with (
        _readable("Arrow"),
        pa.OSFile(str(path), "rb") as source,
        pyarrow.ipc.open_file(source) as file,
    ):
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        yield file.schema, map(_validated, batches)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowMemoryError:
        raise  # what the limit is for
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(what) from error


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    # Offsets of a forged file may point anywhere: look before they are used.
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
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], folder: Path, max_columns: int
) -> Stage:
    check_columns(schema, max_columns)
    kinds = [kind_of(field) for field in schema]
    names, warnings = column_names(list(schema.names), is_header=True)
    stage = Stage(folder, names, kinds, warnings=warnings)
    staged = pa.schema(
        [(name, _ARROW[kind]) for name, kind in zip(staged_names(len(kinds)), kinds, strict=True)]
    )
    writer = SlabWriter(stage, staged, holds_small=True)
    for batch in batches:
        columns = [
            _finite(cast(column, kind, name), kind)
            for column, kind, name in zip(batch.columns, kinds, names, strict=True)
        ]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=staged))
    writer.close()
    if not stage.rows:
        raise Rejected("empty_file", "The file has no rows: send at least one row of data.")
    return stage


def kind_of(field: "pa.Field[Any]") -> Kind:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    types = pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) and not types.is_uint64(kind):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_uint64(kind):
        return "number"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "datetime"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return "text"
    if types.is_string_view(kind):
        return "text"
    raise cell_error(
        "unsupported_type",
        f"Column {shown(field.name)} has the type {str(kind)[:80]}: a column must hold numbers,"
        " texts, booleans, dates or times.",
        column=field.name,
    )


def cast(column: Any, kind: Kind, name: str) -> Any:  # noqa: ANN401  an array of any type
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp(column.type.unit))
    try:
        # safe=False only rounds: nanoseconds to microseconds, decimals to doubles.
        return column.cast(_ARROW[kind], safe=kind not in {"datetime", "number"})
    except pa.ArrowInvalid as error:
        raise cell_error(
            "unreadable", f"The values of column {shown(name)} cannot be read.", column=name
        ) from error


def _finite(column: Any, kind: Kind) -> Any:  # noqa: ANN401  an array of any type
    if kind == "number":
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    return column


def _unreadable(what: str) -> Rejected:
    return Rejected(
        "dataset_unparseable",
        f"The file says that it is {what} but cannot be read as such: it is damaged or cut off.",
    )
