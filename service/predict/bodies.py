"""Reads the bodies of prediction requests into columns of scalars.

- Text: JSON with rows or columns, NDJSON, CSV and TSV; MLflow's bodies by way of `ForeignBodies`.
- Files: Parquet and Arrow, read in a confined process.

Parses the formats but does not check values: the predictor decides whether a value fits its column.
"""

import csv
import errno
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Protocol, TypeGuard

from descent.codes import ErrorCode
from models.features.encoding import Features
from models.features.inputs import Choice
from service.datasets import rejected, sandbox
from service.datasets.messages import ARROW, PARQUET
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.errors import BadRequest, Busy, Invalid, StorageFull, TooLarge, field_error
from service.http.validation import strict_json
from service.settings import Settings

JSON, CSV, TSV, NDJSON = (
    "application/json",
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
)
MEDIA_TYPES = (PARQUET, ARROW)
#: rows times columns of a request: sparse rows that keep naming new columns would fill the memory
MAX_CELLS = 10_000_000
MAX_ERRORS = 10  # errors of one kind that an answer lists
END = "end"  # the line that is appended to a CSV, see `_lines`
#: cells of a CSV that mean a missing value; an upload accepts more spellings (`datasets.parse`)
MISSING = frozenset({"", "NA", "N/A", "NaN", "null", "?"})
READERS = 2  # files read at the same time: each may take the memory of a parser
PATIENCE_S = 5.0  # seconds that a request waits for its turn
TIMEOUT_S = 30.0  # seconds for one file; the largest allowed file takes less than one
EXPANSION = 4  # size of a file's rows as JSON, in multiples of the largest allowed body

#: column of a model → its categories; empty for columns without categories
Inputs = Mapping[str, Collection[str]]
Answer = dict[str, Any]
Columns = dict[str, list[Any]]
Folder = Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Rows:
    """The rows of a prediction request, as columns."""

    columns: Columns
    count: int
    #: position of a row that cannot be read → its error
    unreadable: dict[int, dict[str, str]] = field(default_factory=dict)
    #: whether all values are text, as in CSV
    is_text: bool = False
    #: whether the answer must have the shape that MLflow's clients expect, and the warnings that
    #: such an answer lists besides those of rows
    is_mlflow: bool = False
    notes: tuple[dict[str, str], ...] = ()


# ---- text formats -------------------------------------------------------------------------------


class ForeignBodies(Protocol):
    """Reads the JSON bodies of another server's clients, and writes the answers that they expect.

    Declared here because `service.protocols` is above this room; `service.app` passes it in.
    """

    def parse(self, content: bytes, /) -> object:
        """Return a JSON document, with the constants (NaN) that such a body may hold."""
        ...

    def is_body(self, document: object, /) -> TypeGuard[Mapping[str, Any]]: ...

    def read(
        self, document: Mapping[str, Any], inputs: Sequence[str], max_rows: int, /
    ) -> Rows: ...

    def to_json(
        self, named: Mapping[str, Any], rows: Sequence[Answer], notes: Sequence[Any], /
    ) -> bytes:
        """Return an answer in the shape that these clients expect."""
        ...


def read(
    content: bytes, media_type: str, features: Features, max_rows: int, foreign: ForeignBodies
) -> Rows:
    """Return the rows of a text body for a model with these columns. Raises BadRequest, Invalid."""
    if media_type == JSON:
        document = foreign.parse(content)
        if not foreign.is_body(document):
            return from_json(document, max_rows)
        inputs = [column.name for column in features.inputs]
        return foreign.read(document, inputs, max_rows)
    if media_type == NDJSON:
        return from_ndjson(content, max_rows)
    # Only a category can look like a missing value.
    known = {
        column.name: column.categories if isinstance(column, Choice) else ()
        for column in features.inputs
    }
    return from_csv(content, known, max_rows, "\t" if media_type == TSV else ",")


# ---- JSON ---------------------------------------------------------------------------------------


def from_json(document: object, max_rows: int) -> Rows:
    """Read `{"rows": [{…}, …]}` or `{"columns": {"name": […], …}}`."""
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if value is not None}
    if not isinstance(document, dict) or document.keys() not in ({"rows"}, {"columns"}):
        raise _no_table(document)
    if "rows" in document:
        return from_rows(document["rows"], max_rows, "rows")
    return from_columns(document["columns"], max_rows, "columns")


def from_rows(rows: object, max_rows: int, field: str) -> Rows:
    """Read a list of objects. A row that is not an object gets an error; others are read."""
    if not isinstance(rows, list):
        raise _wrong_shape([(f"/{field}", f"{field} must be a list of objects", rows)])
    check_count(len(rows), max_rows)
    wrong = {at: row for at, row in enumerate(rows) if not isinstance(row, dict)}
    unreadable = {
        at: row_error("malformed_row", f"The row must be an object, got {_shape(row)}.")
        for at, row in wrong.items()
    }
    readable = [{} if at in wrong else row for at, row in enumerate(rows)]
    return Rows(_gathered(readable), len(rows), unreadable)


def from_columns(columns: object, max_rows: int, field: str) -> Rows:
    """Read an object of lists, one for each column."""
    if not isinstance(columns, dict):
        raise _wrong_shape([(f"/{field}", f"{field} must be an object of lists", columns)])
    wrong = [
        (f"/{field}{pointer(name)}", "a column must be a list", values)
        for name, values in columns.items()
        if not isinstance(values, list)
    ]
    if wrong:
        raise _wrong_shape(wrong)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise _ragged(lengths, field)
    count = max(lengths.values(), default=0)
    check_count(count, max_rows)
    return Rows(columns, count)


def from_ndjson(content: bytes, max_rows: int) -> Rows:
    """Read one JSON object per line. Lines that are not objects get errors; others are read."""
    rows: list[dict[str, Any]] = []
    unreadable: dict[int, dict[str, str]] = {}
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            rows.append(_object(line))
        except BadRequest as error:
            unreadable[len(rows)] = row_error(error.code, error.detail)
            rows.append({})
        check_count(len(rows), max_rows)
    return Rows(_gathered(rows), len(rows), unreadable)


def _no_table(document: object) -> Invalid:
    detail = (
        'Send an object with either "rows", a list of objects, or "columns", an object of '
        f"lists; got {_shape(document)}."
    )
    names = document if isinstance(document, dict) else {}
    errors = [
        field_error(
            pointer(name),
            "unknown_field",
            f"{name[:60]} is not a known field: remove it or check its spelling.",
        )
        for name in names
        if name not in ("rows", "columns")
    ]
    errors = errors or [field_error("", "invalid", detail)]
    return Invalid(detail, errors=errors[:MAX_ERRORS])


def _gathered(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    check_cells(len(rows), len(names))
    return {name: [row.get(name) for row in rows] for name in names}


def _ragged(lengths: dict[str, int], field: str) -> Invalid:
    first, count = next(iter(lengths.items()))
    errors = [
        field_error(
            f"/{field}{pointer(name)}",
            "ragged_columns",
            f"{name[:60]!r} has {length} values, but {first[:60]!r} has {count}",
        )
        for name, length in lengths.items()
        if length != count
    ]
    detail = f"All columns must have the same number of values: {errors[0]['detail']}."
    return Invalid(detail, errors=errors[:MAX_ERRORS])


def _object(line: bytes) -> dict[str, Any]:
    row = strict_json(line)
    if not isinstance(row, dict):
        raise BadRequest(f"The line must be an object, got {_shape(row)}.", code="malformed_row")
    return row


# ---- CSV ----------------------------------------------------------------------------------------


def from_csv(content: bytes, inputs: Inputs, max_rows: int, delimiter: str = ",") -> Rows:
    """Read a text with a header line. Rows with too many or too few cells get errors."""
    lines = _lines(content, delimiter)
    # A model's column names have spaces around them only if they came as JSON: strip all others.
    header = [name if name in inputs else name.strip() for name in next(lines, [])]
    _check_header(header, inputs)
    table: list[list[str]] = []
    unreadable: dict[int, dict[str, str]] = {}
    for cells in lines:
        if not cells and len(header) > 1:
            continue
        # A blank line of a single column is a missing value.
        row = cells or [""]
        if len(row) != len(header):
            unreadable[len(table)] = row_error(
                "ragged_row", f"The row has {len(row)} cells, but the header has {len(header)}."
            )
            row = [""] * len(header)
        table.append(row)
        check_count(len(table), max_rows)
    check_cells(len(table), len(header))
    cells_of = zip(*table, strict=True) if table else iter([()] * len(header))
    columns = {
        name: _without_missing(cells, inputs.get(name, ()))
        for name, cells in zip(header, cells_of, strict=True)
    }
    return Rows(columns, len(table), unreadable, is_text=True)


def _lines(content: bytes, delimiter: str) -> Iterator[list[str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"The text is not UTF-8: byte {error.start} is {content[error.start]:#04x}.",
            code="not_utf8",
        ) from error
    first = text.partition("\n")[0]
    if delimiter not in first and ";" in first:
        delimiter = ";"
    # Append a known line: if it is not the last one that the parser returns, a quote was not
    # closed.
    text += END if text.endswith("\n") else f"\n{END}"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    last: list[str] | None = None
    begins, ends = 1, 0
    try:
        for cells in reader:
            if last is not None:
                yield last
            last, begins, ends = cells, ends + 1, reader.line_num
    except csv.Error as error:
        raise _unreadable(
            f"The text cannot be read near line {reader.line_num}: {error}."
        ) from error
    if last != [END]:
        raise _unreadable(f"A quoted cell of the row that begins in line {begins} is not closed.")


def _unreadable(detail: str) -> Invalid:
    return Invalid(detail, code="malformed_csv")


def _check_header(header: list[str], inputs: Inputs) -> None:
    if not header:
        raise Invalid(
            f"The text is empty: its first line names the columns {quoted(inputs)}.",
            code="header_missing",
        )
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise Invalid(f"The header names {quoted(twice)} more than once.", code="duplicate_column")
    if not any(name in inputs for name in header):
        raise Invalid(
            f"The first line must name the model's columns {quoted(inputs)}, got {quoted(header)}.",
            code="header_missing",
        )


def _without_missing(cells: Sequence[str], known: Collection[str]) -> list[str | None]:
    # A known category may be spelled like a missing value, such as NA for Namibia.
    missing = MISSING.difference(known)
    return [None if cell.strip() in missing and cell not in known else cell for cell in cells]


# ---- files --------------------------------------------------------------------------------------


class Files:
    """Reads at most READERS files at the same time. `folder` makes a temporary scratch folder."""

    def __init__(
        self, settings: Settings, folder: Folder, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._settings, self._folder, self._patience_s = settings, folder, patience_s
        self._turns = BoundedSemaphore(READERS)
        self._limits = Limits(
            settings.parse_memory_bytes,
            min(TIMEOUT_S, settings.parse_timeout_s),
            EXPANSION * settings.max_predict_bytes,
            timeout_setting=None,
        )

    def read(self, content: bytes, media_type: str, known: Collection[str]) -> Rows:
        """Return the rows of a file.

        Columns that are not `known` only mark which of their cells have values.
        """
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy(
                "Other files are being read: try again in a moment, or send the rows as CSV."
            )
        try:
            answer = self._parsed(content, media_type, known)
        except Rejected as refused:
            if refused.status == TooLarge.status:
                raise TooLarge(refused.detail) from refused
            raise rejected.as_error(refused) from refused
        finally:
            self._turns.release()
        return from_json(answer, self._settings.max_predict_rows)

    def _parsed(self, content: bytes, media_type: str, known: Collection[str]) -> dict[str, Any]:
        with self._folder() as folder:
            path = folder / "body"
            try:
                path.write_bytes(content)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise StorageFull from error
                raise
            task = Task(
                path=str(path),
                folder=str(folder),
                media_type=media_type,
                options={"known": list(known), "max_rows": self._settings.max_predict_rows},
                max_columns=self._settings.max_columns,
                memory_bytes=sandbox.memory_for_queries(self._limits),
                parser=sandbox.READER,
            )
            return sandbox.run(task, self._limits)


# ---- limits and messages ------------------------------------------------------------------------


def check_count(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise TooLarge(
            f"A prediction request may have {max_rows} rows (DESCENT_MAX_PREDICT_ROWS): "
            "send the rest in further requests."
        )


def check_cells(rows: int, columns: int) -> None:
    if rows * columns > MAX_CELLS:
        raise TooLarge(
            f"{rows} rows of {columns} different columns are more than the {MAX_CELLS} cells that "
            "a prediction request may have: send fewer rows at a time."
        )


def pointer(name: str) -> str:
    """Return the JSON pointer to a member of the body."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def row_error(code: ErrorCode, detail: str) -> dict[str, str]:
    """Return the error of one row."""
    return {"code": code, "detail": detail}


def quoted(names: Mapping[str, Any] | Sequence[str]) -> str:
    shown = ", ".join(repr(str(name)[:60]) for name in list(names)[:MAX_ERRORS])
    return f"{shown}, …" if len(names) > MAX_ERRORS else shown


def _wrong_shape(found: list[tuple[str, str, Any]]) -> Invalid:
    errors = [
        field_error(at, "wrong_type", f"{rule}, got {_shape(value)}")
        for at, rule, value in found[:MAX_ERRORS]
    ]
    return Invalid(f"{errors[0]['pointer']}: {errors[0]['detail']}.", errors=errors)


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {quoted(value)}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"the value {str(value)[:60]!r}"
