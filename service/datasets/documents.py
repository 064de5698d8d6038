"""Stages JSON, Parquet and Arrow files, and reads rows of a stored table.

JSON is one object a line, a list of objects, or one document with `columns` or `rows`. Its values
become text as they are written, so that a JSON table gets its types by the same rules as a CSV
file. Parquet and Arrow files bring their own types. A forged file can make its reader allocate or
crash, so only the parser's process stages files.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from descent.codes import ErrorCode, make_warning
from models.reading import WHITE
from service.datasets.headers import column_names
from service.datasets.rejected import CellPlace, Rejected, cell_error, error_item, pointer, shown
from service.datasets.staging import (
    BLOCK,
    Kind,
    Stage,
    StageWriter,
    staged_names,
    text_schema,
)
from service.errors import BadRequest, field_error
from service.http.validation import strict_json

BATCH = 10_000  # JSON rows that are Python objects at a time
BATCH_CELLS = 500_000  # JSON cells that are Python objects at a time, which limits wide rows
MAX_NAME = 256  # characters of a column's name or of the dataset's
BODY_KEYS = frozenset({"name", "columns", "rows"})
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


class _NotStrict(ValueError):
    """The document is not strict JSON, such as an object with the same key twice."""


def stage_ndjson(path: Path, folder: Path, missing: frozenset[str], max_columns: int) -> Stage:
    return _stage_rows(_objects(path), folder, missing, max_columns)


def stage_body(
    path: Path, folder: Path, missing: frozenset[str], max_columns: int
) -> tuple[Stage, str | None]:
    """Stage `{"name", "columns" | "rows"}` or a list of rows; return the stage and the name."""
    body = _body(path)
    if isinstance(body, list):
        return _stage_rows(enumerate(body, 1), folder, missing, max_columns), None
    name = body.get("name")
    if name is not None and not (_is_text(name) and 1 <= len(name) <= MAX_NAME):
        raise _invalid("/name", f"name must be a text of 1 to {MAX_NAME} characters.")
    if unknown := sorted(set(body) - BODY_KEYS):
        raise _invalid(pointer(unknown[0]), f"{shown(unknown[0])} is not a known field: remove it.")
    if ("columns" in body) == ("rows" in body):
        raise _invalid("", "Send either `columns` or `rows`.")
    if "rows" in body:
        if not isinstance(body["rows"], list):
            raise _invalid("/rows", "rows must be a list of objects.")
        return _stage_rows(enumerate(body["rows"], 1), folder, missing, max_columns), name
    return _stage_columns(body["columns"], folder, missing, max_columns), name


def _loads(text: str) -> object:
    # Numbers stay text: the rules of types see all digits, and no huge integer is computed.
    return json.loads(
        text,
        object_pairs_hook=_pairs,
        parse_int=_Digits,
        parse_float=_Digits,
        parse_constant=_constant,
    )


class _Digits(str):
    """A number as it was written."""

    __slots__ = ()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, _Digits)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _NotStrict(f"the key {shown(twice)} occurs twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _NotStrict(f"{name} is not JSON: send null where a value is missing")


def _objects(path: Path) -> Iterator[tuple[int, object]]:
    """Yield the number of each row and its value; blank lines are skipped."""
    with path.open("rb") as file:
        number = row = 0
        while line := file.readline(BLOCK):
            number += 1
            if len(line) == BLOCK:
                detail = f"Line {number} is longer than {BLOCK} bytes."
                raise cell_error("row_too_long", detail, row=row + 1, line=number)
            if line.strip():
                row += 1
                yield row, _line(line, number, row)


def _line(line: bytes, number: int, row: int) -> object:
    code: ErrorCode = "malformed_json"
    try:
        return _loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        code, reason = "not_utf8", f"byte {error.start} of the line is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg.lower()} at character {error.colno}"
    except _NotStrict as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    raise cell_error(code, f"Line {number} cannot be read: {reason}.", row=row, line=number)


def _body(path: Path) -> dict[str, Any] | list[Any]:
    try:
        body = strict_json(path.read_bytes(), _Digits)
    except BadRequest as error:
        raise Rejected(error.code, error.detail, status=error.status) from error
    if not isinstance(body, dict | list):
        raise _invalid("", "Send a list of objects, or an object with `columns` or `rows`.")
    return body


def _invalid(pointer: str, detail: str) -> Rejected:
    return Rejected("invalid", detail, [field_error(pointer, "invalid_value", detail)])


# ---- rows -----------------------------------------------------------------------------------


class _Rows:
    """Collects rows as columns; a column begins with the first row that has its key."""

    def __init__(self, missing: frozenset[str], max_columns: int) -> None:
        self.index: dict[str, int] = {}
        self.cells: list[list[str | None]] = []
        self.count = self._taken = 0
        self._missing, self._max_columns = missing, max_columns

    def add(self, number: int, row: object) -> None:
        if not isinstance(row, dict):
            raise cell_error("not_an_object", f"Row {number} is not a JSON object.", row=number)
        for name, value in row.items():
            position = self.index.get(name)
            column = self.cells[self._begin(name) if position is None else position]
            column.extend([None] * (self.count - len(column)))
            column.append(_cell(value, number, name, self._missing))
        self.count += 1

    def _begin(self, name: str) -> int:
        _check_name(name)
        if len(self.index) >= self._max_columns:
            raise _too_many(self._max_columns)
        self.index[name] = len(self.cells)
        self.cells.append([])
        return len(self.cells) - 1

    def take(self) -> pa.RecordBatch:
        for column in self.cells:
            column.extend([None] * (self.count - len(column)))
        arrays = [
            _text_array(column, name, self._taken)
            for name, column in zip(self.index, self.cells, strict=True)
        ]
        self._taken += self.count
        self.cells, self.count = [[] for _ in self.cells], 0
        return pa.RecordBatch.from_arrays(arrays, schema=text_schema(len(arrays)))


def _text_array(column: list[str | None], name: str, before: int) -> "pa.Array[Any]":
    """Return the cells as an Arrow array; `before` is the number of earlier rows."""
    try:
        return pa.array(column, pa.string())
    except UnicodeEncodeError as error:
        row = before + 1 + next(i for i, cell in enumerate(column) if not _is_whole(cell or ""))
        detail = f"Row {row}, column {shown(name)} holds half of a surrogate pair."
        raise cell_error("lone_surrogate", detail, row=row, column=name) from error


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _stage_rows(
    rows: Iterable[tuple[int, object]], folder: Path, missing: frozenset[str], max_columns: int
) -> Stage:
    """Stage rows whose columns are known only at the end: first as parts, then as slabs."""
    held = _Rows(missing, max_columns)
    parts: list[Path] = []

    def flush() -> None:
        parts.append(folder / f"part-{len(parts)}.parquet")
        pq.write_table(
            pa.Table.from_batches([held.take()]),
            parts[-1],
            compression="lz4",
            use_dictionary=False,
            write_statistics=False,
        )

    for number, row in rows:
        held.add(number, row)
        if held.count >= BATCH or held.count * len(held.cells) >= BATCH_CELLS:
            flush()
    if not parts and not held.count:
        raise Rejected("empty_file", "There are no rows: send at least one row of data.")
    if not held.index:
        raise Rejected("no_columns", "No row has a key: send at least one column.")
    if held.count:
        flush()
    stage = Stage(folder, list(held.index), ["text"] * len(held.index))
    writer = StageWriter(stage, text_schema(len(held.index)))
    for part in parts:
        for batch in pq.read_table(part).to_batches():
            writer.write(_widened(batch, len(held.index)))
        part.unlink()
    writer.close()
    return stage


def _widened(batch: pa.RecordBatch, width: int) -> pa.RecordBatch:
    absent = [pa.nulls(batch.num_rows, pa.string())] * (width - batch.num_columns)
    return pa.RecordBatch.from_arrays([*batch.columns, *absent], names=staged_names(width))


def _stage_columns(
    columns: object,
    folder: Path,
    missing: frozenset[str],
    max_columns: int,
) -> Stage:
    if not isinstance(columns, dict) or not columns:
        raise _invalid("/columns", "columns must be an object of lists, one for each column.")
    if len(columns) > max_columns:
        raise _too_many(max_columns)
    arrays, lengths = [], {}
    for name, values in columns.items():
        _check_name(name)
        if not isinstance(values, list):
            raise _invalid(pointer("columns", name), f"Column {shown(name)} must be a list.")
        lengths[name] = len(values)
        cells = [
            _cell(value, row, name, missing, is_columnar=True)
            for row, value in enumerate(values, 1)
        ]
        arrays.append(_text_array(cells, name, 0))
    first = next(iter(lengths))
    for name, length in lengths.items():
        if length != lengths[first]:
            detail = (
                f"Column {shown(name)} has {length} values and {shown(first)} has"
                f" {lengths[first]}: send lists of the same length."
            )
            item = error_item("ragged_columns", detail, CellPlace(column=name))
            row = min(length, lengths[first]) + 1
            raise Rejected("ragged_columns", detail, [item | {"row": row}])
    if not lengths[first]:
        raise Rejected("empty_file", "There are no rows: send at least one row of data.")
    stage = Stage(folder, list(columns), ["text"] * len(columns))
    writer = StageWriter(stage, text_schema(len(columns)))
    writer.write(pa.RecordBatch.from_arrays(arrays, schema=text_schema(len(columns))))
    writer.close()
    return stage


def _cell(
    value: object,
    row: int,
    column: str,
    missing: frozenset[str],
    *,
    is_columnar: bool = False,
) -> str | None:
    if isinstance(value, str):
        text = value.strip(WHITE)
        if "\0" in text:
            raise cell_error(
                "nul_byte",
                f"Row {row}, column {shown(column)} holds a NUL character.",
                row=row,
                column=column,
            )
        return None if text in missing else str(text)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    nested = "a list" if isinstance(value, list) else "an object"
    raise cell_error(
        "nested_value",
        f"Row {row}, column {shown(column)} holds {nested}: send numbers, texts, true, false or"
        " null.",
        row=row,
        column=column,
        is_columnar=is_columnar,
    )


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME or "\0" in name:
        raise cell_error(
            "bad_column_name",
            f"A column's name must have 1 to {MAX_NAME} characters and no NUL, got {shown(name)}.",
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise cell_error(
            "lone_surrogate", "The name of a column holds half of a surrogate pair."
        ) from error


def _too_many(most: int) -> Rejected:
    return Rejected(
        "too_many_columns",
        f"There are more than {most} columns: send fewer, or raise DESCENT_MAX_COLUMNS.",
    )


# ---- Parquet and Arrow --------------------------------------------------------------------------


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
        file = pq.ParquetFile(path)
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
    kinds = ["text" if i in beyond else kind_of(schema.field(i)) for i in wanted]
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


def _usable(schema: pa.Schema) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the numbers of the columns that are read, and a warning for each other column."""
    wanted, warnings = [], []
    for index, field in enumerate(schema):
        reason = ""
        if not _is_usable(field):
            reason = f"has the type {str(field.type)[:80]}, which no cell can hold"
        elif _INDEX.fullmatch(field.name) and kind_of(field) != "datetime":
            reason = "is the index of a DataFrame, which only counts its rows"
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
        return _decoded(column.dictionary_decode())
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
