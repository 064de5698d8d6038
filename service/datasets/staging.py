"""Reads a file of any accepted format into staged Parquet files, whose text is not typed yet.

A staged column is called `c0`, `c1`, … so that no name a client chose meets SQL. Wide tables are
staged in slabs of columns, because a query's cost grows with the width of the file it reads.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from descent.codes import WarningCode, make_warning
from service.datasets.rejected import (
    MAX_ERRORS,
    CellPlace,
    Rejected,
    cell_error,
    error_item,
    free_name,
    shown,
)

CHUNK = 1024 * 1024  # bytes that are checked at a time
SAMPLE = 256 * 1024  # bytes from which delimiter and header are told
SAMPLE_ROWS = 1000
MAX_NAME = 256  # characters of a column's name
#: ambiguous files are rare; where two fit equally well, the one that prose and decimal commas
#: do not use wins
DELIMITERS = ("\t", "|", ";", ",")
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\d{1,2}[./]\d{4}")
_BOOLEANS = frozenset({"true", "false", "yes", "no"})


@dataclass(frozen=True)
class Dialect:
    """What the reader has to know."""

    delimiter: str
    #: lines above the first row of data that are its header, and empty ones above that
    skipped: int
    names: list[str]
    #: whether some cell begins or ends with a space
    is_padded: bool
    #: whether the number of quotes is odd: one of them may never be closed
    has_odd_quotes: bool
    warnings: list[dict[str, str]]


@dataclass(frozen=True)
class _Bytes:
    has_padding: bool
    quotes: int


def detect(
    path: Path, *, delimiter: str | None, header: str, missing: frozenset[str], max_columns: int
) -> Dialect:
    """Return the dialect of a CSV or TSV file; raise Rejected where it is no such file."""
    checked = _check_bytes(path)
    text, is_whole = _head(path)
    if not text.strip():
        raise Rejected("empty_file", "The file is empty: send at least one row of data.")
    delimiter = delimiter or _delimiter(text)
    rows = _rows(text, delimiter, is_whole=is_whole)
    if not rows:
        raise cell_error(
            "row_too_long",
            f"The first row is longer than {SAMPLE} bytes, or its quotes are never closed.",
            line=1,
        )
    if len(rows[0]) > max_columns:
        raise Rejected(
            "too_many_columns",
            f"The file has {len(rows[0])} columns; at most {max_columns} are read: send fewer, or"
            " raise DESCENT_MAX_COLUMNS.",
        )
    has_header = header == "present" or (header == "auto" and _has_header(rows, missing))
    if has_header and len(rows) == 1 and is_whole:
        raise Rejected(
            "header_only",
            "The file has a header and no row below it: send at least one row of data.",
        )
    names, warnings = column_names(rows[0] if has_header else [""] * len(rows[0]), has_header)
    skipped = _empty_lines(text) + 1 if has_header else 0
    return Dialect(
        delimiter, skipped, names, checked.has_padding, bool(checked.quotes % 2), warnings
    )


def column_names(cells: list[str], is_header: bool) -> tuple[list[str], list[dict[str, str]]]:  # noqa: FBT001  read from the file
    """Return unique names for the columns, and a warning for each that had to be made up."""
    names: list[str] = []
    warnings: list[dict[str, str]] = []
    given = {cell.strip() for cell in cells}
    for number, cell in enumerate(cells, 1):
        name = wanted = cell.strip()
        if len(name) > MAX_NAME:
            raise cell_error(
                "column_name_too_long",
                f"The name of column {number} is longer than {MAX_NAME} characters:"
                f" {shown(name)}. Shorten it, or say header=absent.",
            )
        if not name:
            name = free_name(f"column_{number}", given if is_header else set())
        elif name in names:
            name = free_name(name, given | set(names))
        if is_header and name != wanted:
            code: WarningCode = "duplicate_column" if wanted else "unnamed_column"
            what = f"is called {shown(wanted)} again" if wanted else "has no name"
            detail = f"Column {number} {what}: it is read as {name!r}."
            warnings.append(make_warning(code, detail, name))
        given.add(name)
        names.append(name)
    return names, warnings


def _check_bytes(path: Path) -> _Bytes:
    """Read the whole file once: UTF-8 without NUL. Raises Rejected with the line of the fault."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, offset, quotes, has_padding = 1, 0, 0, False
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            _check_chunk(decoder, chunk, lines, offset)
            if not chunk:
                return _Bytes(has_padding, quotes)
            has_padding = has_padding or (b" " in chunk and bool(_PADDED.search(chunk)))
            quotes += chunk.count(b'"')
            lines += chunk.count(b"\n")
            offset += len(chunk)


_PADDED = re.compile(rb'[,;\t|\n\r"] | [,;\t|\n\r"]|^ | $')


def _check_chunk(decoder: codecs.IncrementalDecoder, chunk: bytes, lines: int, offset: int) -> None:
    nul = chunk.find(b"\0")
    if nul >= 0:
        line = lines + chunk.count(b"\n", 0, nul)
        hint = " The file looks like UTF-16: save it as UTF-8." if offset + nul < 4 else ""
        raise cell_error(
            "nul_byte",
            f"Line {line} holds a NUL byte (byte {offset + nul} of the file): remove it.{hint}",
            line=line,
        )
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        at = max(0, error.start - held)
        line = lines + chunk.count(b"\n", 0, at)
        raise cell_error(
            "not_utf8",
            f"The file is not UTF-8: byte {offset - held + error.start}, in line {line}, cannot be"
            " decoded. Save the file as UTF-8 and send it again.",
            line=line,
        ) from error


def _empty_lines(text: str) -> int:
    """Return how many lines at the beginning are empty: the reader skips them as rows."""
    return len(text[: len(text) - len(text.lstrip("\r\n"))].splitlines())


def _head(path: Path) -> tuple[str, bool]:
    with path.open("rb") as file:
        data = file.read(SAMPLE)
        is_whole = not file.read(1)
    return data.decode("utf-8-sig", errors="ignore"), is_whole


def _rows(text: str, delimiter: str, *, is_whole: bool) -> list[list[str]]:
    lines = text.splitlines(keepends=True)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                return rows
    except csv.Error:
        return rows
    # The last row of a cut sample may be cut too.
    return rows if is_whole else rows[:-1]


def _delimiter(text: str) -> str:
    best, best_score = ",", (0.0, 0)
    for candidate in DELIMITERS:
        widths = Counter(len(row) for row in _rows(text, candidate, is_whole=False)[:100])
        if not widths:
            widths = Counter(len(row) for row in _rows(text, candidate, is_whole=True)[:100])
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        score = (round(count / max(1, widths.total()), 2), 1)
        if width > 1 and score > best_score:
            best, best_score = candidate, score
    return best


def _has_header(rows: list[list[str]], missing: frozenset[str]) -> bool:
    """Return whether the first row names the columns.

    A number never names a column. Words above numbers do; in a table of words only, the first
    row is a header where its cells are unique and never come back below.
    """
    first = [cell.strip() for cell in rows[0]]
    if any(_NUMBER.fullmatch(cell) for cell in first):
        return False
    below = rows[1:]
    for index, cell in enumerate(first):
        values = [row[index].strip() for row in below if index < len(row)]
        values = [value for value in values if value not in missing]
        if cell not in missing and values and not _is_typed(cell) and all(map(_is_typed, values)):
            return True
    if any(not cell or _is_typed(cell) for cell in first) or len(set(first)) < len(first):
        return False
    return not any(
        cell == row[index].strip()
        for index, cell in enumerate(first)
        for row in below
        if index < len(row)
    )


def _is_typed(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell) or _DATE.match(cell) or cell.casefold() in _BOOLEANS)


BLOCK = 2 * 1024 * 1024  # bytes of text that are split at a time, and the longest row
BUFFER = 8 * 1024 * 1024  # bytes of a staged row group
SLAB = 100  # columns of one staged file
SMALL = 256 * 1024  # bytes of a table that may stay in memory
MAX_BAD_ROWS = 1000  # ragged rows after which reading stops

Kind = str  # text, or the type that the file itself gives: number, integer, boolean, datetime


@dataclass
class Stage:
    """A staged table."""

    folder: Path
    names: list[str]
    kinds: list[Kind]
    rows: int = 0
    #: whether numbers may be written as 1,5: not where a comma separates the cells
    allows_decimal_comma: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)
    #: the table itself where it is small: then there are no files
    held: pa.Table | None = None

    def slabs(self) -> Iterator[tuple[Path, range]]:
        """Yield each staged file and the numbers of the columns in it."""
        for first in range(0, len(self.names), SLAB):
            columns = range(first, min(first + SLAB, len(self.names)))
            yield self.folder / f"slab-{first}.parquet", columns


class SlabWriter:
    """Writes batches into the slabs of a stage, in row groups of a bounded size."""

    def __init__(self, stage: Stage, schema: pa.Schema, *, holds_small: bool = False) -> None:
        """`holds_small` leaves a small table in memory, where queries begin sooner."""
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


_WRITING: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
}


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
    bad: list[Any] = []
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
        raise _unclosed(stage.rows)
    return stage


def _csv_batches(
    path: Path, dialect: Dialect, missing: frozenset[str], bad: list[Any]
) -> Iterator[pa.RecordBatch]:
    def note(row: pacsv.InvalidRow) -> Literal["skip"]:
        bad.append(row)
        return "skip"

    names = staged_names(len(dialect.names))
    reader = pacsv.open_csv(
        path,
        # One thread: only then does the handler learn the number of a row.
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


def _ragged(bad: list[Any], dialect: Dialect) -> Rejected:
    errors = []
    for row in bad[:MAX_ERRORS]:
        number = row.number - dialect.skipped if row.number else None
        text = row.text
        if text.count('"') % 2 and "\n" in text and number is not None:
            return _unclosed(number)
        detail = (
            f"Row {number} has {row.actual_columns} cells where {row.expected_columns} are"
            f" expected: {shown(text)}"
        )
        # A row that is too short lacks this column; one that is too long has more than have names.
        lacking = dialect.names[row.actual_columns : row.actual_columns + 1]
        place = CellPlace(number, lacking[0] if lacking else None)
        errors.append(error_item("ragged_row", detail, place))
    more = f" ({len(bad) - 1} more rows are wrong too)" if len(bad) > 1 else ""
    return Rejected("ragged_row", f"{errors[0]['detail']}{more}.", errors)


def _unclosed(row: int) -> Rejected:
    return cell_error(
        "unclosed_quote",
        f"A quoted cell of row {row} is never closed: the file ends inside it.",
        row=row,
    )


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
