"""Opens a text table as batches of texts that can be read several times.

All formats share `Stage`. The columns of its batches are called `c0`, `c1`, …. A table that is not
read from the client's own file, such as one of JSON rows, becomes one by `StageWriter`: in memory
if it is small, else in a file of the parser's folder.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc

from models.reading import MISSING
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
WIDE = 100  # columns above which a larger block is read at a time: each column has a fixed cost
WIDE_BLOCK = 8 * 1024 * 1024
SMALL = 4 * 1024 * 1024  # bytes of the largest table that stays in memory
AHEAD = 3  # batches that a thread may read in advance
JOIN_S = 0.01  # seconds between two looks whether that thread has ended
MAX_BAD_ROWS = 1000  # ragged rows after which reading stops

#: text; category, which is text too; or the type in the file: number, integer, boolean, datetime
Kind = str
Batches = Callable[[], Iterator[pa.RecordBatch]]


# ---- staged tables --------------------------------------------------------------------------


@dataclass
class Stage:
    """A table whose texts are not read yet."""

    folder: Path
    names: list[str]
    kinds: list[Kind]
    #: reads the rows from the first on, each time that it is called
    batches: Batches = field(default=lambda: iter(()), repr=False)
    #: texts that mean missing; in the batches they are null, unless blanks surround them
    missing: tuple[str, ...] = MISSING
    #: whether 1,5 is rather a decimal than thousands: not if commas separate the cells
    prefers_decimal_comma: bool = False
    warnings: list[dict[str, Any]] = field(default_factory=list)
    #: how the file was read, as a dataset version stores it
    reading: dict[str, Any] = field(default_factory=dict)
    rows: int = 0


class StageWriter:
    """Writes the batches of a stage, which reads them afterwards."""

    def __init__(self, stage: Stage, schema: pa.Schema) -> None:
        self._stage, self._schema = stage, schema
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self._path = stage.folder / "staged.arrow"
        self._file: pa.RecordBatchFileWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._bytes += batch.nbytes
        self._stage.rows += batch.num_rows
        if self._bytes > SMALL:
            self._flush()

    def close(self) -> None:
        if self._file is None:
            held = self._held
            self._stage.batches = lambda: iter(held)
            return
        self._flush()
        self._file.close()
        self._stage.batches = self._read

    def _flush(self) -> None:
        if self._file is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
            self._file = pa.ipc.new_file(str(self._path), self._schema, options=options)
        for batch in self._held:
            self._file.write_batch(batch)
        self._held, self._bytes = [], 0

    def _read(self) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._path), "rb") as source, pa.ipc.open_file(source) as file:
            for index in range(file.num_record_batches):
                yield file.get_batch(index)


def staged_names(count: int) -> list[str]:
    return [f"c{index}" for index in range(count)]


def text_schema(count: int) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in staged_names(count)])


# ---- CSV and TSV ----------------------------------------------------------------------------


def stage_csv(path: Path, folder: Path, dialect: Dialect, missing: tuple[str, ...]) -> Stage:
    """Stage a text table. Its batches raise Rejected with the rows that do not fit."""
    stage = Stage(folder, dialect.names, ["text"] * len(dialect.names), missing=missing)
    stage.warnings += dialect.warnings
    stage.reading = dialect.reading
    stage.prefers_decimal_comma = dialect.delimiter != ","
    if path.stat().st_size <= SMALL:
        held = list(_csv_rows(path, dialect, missing))
        stage.batches = lambda: iter(held)
    else:
        # The batches of wide tables are large, and their conversion takes most of the time.
        read = _ahead if len(dialect.names) <= WIDE else iter
        stage.batches = lambda: read(_csv_rows(path, dialect, missing))
    return stage


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches, which a thread reads while the ones before are converted."""
    ready: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(AHEAD)
    is_wanted = True

    def read() -> None:
        last: BaseException | None = None
        try:
            for batch in batches:
                ready.put(batch)
                if not is_wanted:
                    return
        except BaseException as error:  # noqa: BLE001  raised again by the reader's caller
            last = error
        ready.put(last)

    thread = threading.Thread(target=read, name="read", daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        is_wanted = False
        while thread.is_alive():  # it may wait for room
            with suppress(queue.Empty):
                ready.get_nowait()
            thread.join(JOIN_S)


def _csv_rows(path: Path, dialect: Dialect, missing: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    rows = 0
    bad: list[pacsv.InvalidRow] = []
    last: pa.RecordBatch | None = None
    try:
        for batch in _csv_batches(path, dialect, missing, bad):
            rows += batch.num_rows
            last = batch if batch.num_rows else last
            if not bad:
                yield batch
            if len(bad) >= MAX_BAD_ROWS:
                break
    except pa.ArrowInvalid as error:
        raise _unreadable(error, rows + len(bad)) from error
    if bad:
        raise _ragged(bad, dialect)
    if rows == 0:
        raise Rejected("header_only", "The file has a header and no row below it.")
    if dialect.has_odd_quotes and last is not None and _ends_in_newlines(last):
        raise unclosed_quote(rows)


def _csv_batches(
    path: Path, dialect: Dialect, missing: tuple[str, ...], bad: list[pacsv.InvalidRow]
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
            block_size=BLOCK if len(names) <= WIDE else WIDE_BLOCK,
            column_names=names,
            skip_rows_after_names=dialect.skipped,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=list(missing),
            strings_can_be_null=True,
            check_utf8=False,
        ),
    )
    with reader:
        yield from reader


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
    remedy = (
        "Put quotes around cells that hold the delimiter, or say how the file is read, with"
        " delimiter= or skip_lines=."
    )
    return Rejected("ragged_row", f"{errors[0]['detail']}{more}. {remedy}", errors)


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
