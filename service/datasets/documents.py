"""Stages JSON files.

JSON is one object a line, a list of objects, or one document with `columns` or `rows`. Its values
become text as they are written, so that a JSON table gets its types by the same rules as a CSV
file. Only the parser's process stages files.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from descent.codes import ErrorCode
from models.reading import WHITE
from service.datasets.rejected import CellPlace, Rejected, cell_error, error_item, pointer, shown
from service.datasets.staging import (
    BLOCK,
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
    if not {"columns", "rows"} & set(body):
        raise _invalid(
            "",
            'Send a list of objects, one for each row, {"rows": [{…}, …]} or {"columns": {"name":'
            ' […], …}}. pandas writes the list with to_json(orient="records").',
        )
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
        body = strict_json(path.read_bytes().removeprefix(codecs.BOM_UTF8), _Digits)
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
