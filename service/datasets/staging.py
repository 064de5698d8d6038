"""Stages a text table: its cells become untyped Parquet files.

The columns of a staged file are called `c0`, `c1`, …, so that no name from a client reaches SQL.
Wide tables are staged in slabs of columns, because the cost of a query grows with the width of the
file that it reads. All formats share `Stage` and `SlabWriter`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from service.datasets.clean_text import Dialect
from service.datasets.rejected import (
    MAX_ERRORS,
    CellPlace,
    Rejected,
    cell_error,
    error_item,
    shown,
    unclosed_quote,
)

BLOCK = 2 * 1024 * 1024  # bytes of text that are read at a time, and of the longest row
BUFFER = 8 * 1024 * 1024  # bytes of a staged row group
SLAB = 100  # columns of one staged file
SMALL = 256 * 1024  # bytes of the largest table that may stay in memory
MAX_BAD_ROWS = 1000  # ragged rows after which reading stops
_WRITING: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
}

#: text, or the type in the file itself: number, integer, boolean, datetime
Kind = str


# ---- staged tables --------------------------------------------------------------------------


@dataclass
class Stage:
    """A staged table."""

    folder: Path
    names: list[str]
    kinds: list[Kind]
    rows: int = 0
    #: whether numbers may be written like 1,5, which a comma as delimiter excludes
    allows_decimal_comma: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)
    #: how the file was read, as the version stores it
    reading: dict[str, Any] = field(default_factory=dict)
    #: the table itself if it is small; then no files exist
    held: pa.Table | None = None

    def slabs(self) -> Iterator[tuple[Path, range]]:
        """Yield each staged file and the numbers of the columns in it."""
        for first in range(0, len(self.names), SLAB):
            columns = range(first, min(first + SLAB, len(self.names)))
            yield self.folder / f"slab-{first}.parquet", columns


class SlabWriter:
    """Writes batches into the slabs of a stage, in row groups of a bounded size."""

    def __init__(self, stage: Stage, schema: pa.Schema, *, holds_small: bool = False) -> None:
        """`holds_small` keeps a small table in memory, where queries start sooner."""
        self._stage, self._schema = stage, schema
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self._holds_small = holds_small and len(stage.names) <= SLAB
        self._files: list[tuple[range, pq.ParquetWriter]] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._bytes += batch.nbytes
        self._stage.rows += batch.num_rows
        if self._bytes >= BUFFER:
            self._flush()

    def close(self) -> None:
        if self._holds_small and not self._files and self._bytes <= SMALL:
            self._stage.held = pa.Table.from_batches(self._held, self._schema).combine_chunks()
            return
        self._flush()
        for _columns, file in self._files:
            file.close()

    def _flush(self) -> None:
        if not self._files:
            self._files = [
                (columns, pq.ParquetWriter(path, _part(self._schema, columns), **_WRITING))
                for path, columns in self._stage.slabs()
            ]
        if self._held:
            table = pa.Table.from_batches(self._held, self._schema)
            for columns, file in self._files:
                file.write_table(table.select(list(columns)))
        self._held, self._bytes = [], 0


def _part(schema: pa.Schema, columns: range) -> pa.Schema:
    return pa.schema([schema.field(index) for index in columns])


def staged_names(count: int) -> list[str]:
    return [f"c{index}" for index in range(count)]


def text_schema(count: int) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in staged_names(count)])


# ---- CSV and TSV ----------------------------------------------------------------------------


def stage_csv(path: Path, folder: Path, dialect: Dialect, missing: frozenset[str]) -> Stage:
    """Stage a text table; raise Rejected with the rows that do not fit."""
    stage = Stage(folder, dialect.names, ["text"] * len(dialect.names))
    stage.warnings += dialect.warnings
    stage.allows_decimal_comma = dialect.delimiter != ","
    schema = text_schema(len(dialect.names))
    bad: list[pacsv.InvalidRow] = []
    last: pa.RecordBatch | None = None
    try:
        writer = SlabWriter(stage, schema, holds_small=True)
        for batch in _csv_batches(path, dialect, missing, bad):
            last = batch if batch.num_rows else last
            writer.write(_trimmed(batch, missing) if dialect.is_padded else batch)
            if len(bad) >= MAX_BAD_ROWS:
                break
        writer.close()
    except pa.ArrowInvalid as error:
        raise _unreadable(error, stage.rows + len(bad)) from error
    if bad:
        raise _ragged(bad, dialect)
    if stage.rows == 0:
        raise Rejected("header_only", "The file has a header and no row below it.")
    if dialect.has_odd_quotes and last is not None and _ends_in_newlines(last):
        raise unclosed_quote(stage.rows)
    return stage


def _csv_batches(
    path: Path, dialect: Dialect, missing: frozenset[str], bad: list[pacsv.InvalidRow]
) -> Iterator[pa.RecordBatch]:
    def note(row: pacsv.InvalidRow) -> Literal["skip"]:
        bad.append(row)
        return "skip"

    names = staged_names(len(dialect.names))
    reader = pacsv.open_csv(
        path,
        # With several threads the handler would not get the number of a row.
        read_options=pacsv.ReadOptions(
            use_threads=False,
            block_size=BLOCK,
            column_names=names,
            skip_rows_after_names=dialect.skipped,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=sorted(missing),
            strings_can_be_null=True,
            check_utf8=False,
        ),
    )
    with reader:
        yield from reader


def _trimmed(batch: pa.RecordBatch, missing: frozenset[str]) -> pa.RecordBatch:
    absent = pa.array(sorted(missing), pa.string())
    columns = []
    for column in batch.columns:
        trimmed = pc.utf8_trim_whitespace(column)
        is_missing = pc.is_in(trimmed, value_set=absent)
        columns.append(pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _ends_in_newlines(batch: pa.RecordBatch) -> bool:
    row = batch.slice(batch.num_rows - 1).to_pylist()[0]
    return any(value is not None and "\n" in value for value in row.values())


def _ragged(bad: list[pacsv.InvalidRow], dialect: Dialect) -> Rejected:
    errors = []
    for row in bad[:MAX_ERRORS]:
        number = row.number - dialect.skipped if row.number else None
        text = row.text
        if text.count('"') % 2 and "\n" in text and number is not None:
            return unclosed_quote(number)
        detail = (
            f"Row {number} has {row.actual_columns} cells where {row.expected_columns} are"
            f" expected: {shown(text)}"
        )
        # A short row lacks this column; a long row has more cells than there are names.
        lacking = dialect.names[row.actual_columns : row.actual_columns + 1]
        place = CellPlace(number, lacking[0] if lacking else None)
        errors.append(error_item("ragged_row", detail, place))
    more = f" ({len(bad) - 1} more rows are wrong too)" if len(bad) > 1 else ""
    return Rejected("ragged_row", f"{errors[0]['detail']}{more}.", errors)


def _unreadable(error: pa.ArrowInvalid, rows: int) -> Rejected:
    text = str(error)
    if "straddling" in text or "block" in text:
        return cell_error(
            "row_too_long",
            f"A row after row {rows} is longer than {BLOCK} bytes, or a quote in it is never"
            " closed.",
            row=rows + 1,
        )
    return cell_error(
        "unreadable", f"The file cannot be read as a table after row {rows}.", row=rows + 1
    )
