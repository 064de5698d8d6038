"""Tables of a prediction request: JSON rows or columns, NDJSON and CSV become columns of scalars.

Knows how rows are written, not what they mean: which value suits a column is the predictor's word.
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

MAX_CELLS = 10_000_000  # rows times columns: sparse rows with ever new names would fill the memory
MAX_ERRORS = 10  # of one kind that a problem lists
END = "end"  # the line that is added to a CSV
#: cells of a CSV that mean a missing value; an upload accepts more spellings (`datasets.parse`)
MISSING = frozenset({"", "NA", "N/A", "NaN", "null", "?"})
#: What a model reads: the categories of each of its columns, none where it holds numbers.
Inputs = Mapping[str, Collection[str]]

Answer = dict[str, Any]
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Rows:
    """What a client asks predictions for."""

    columns: Columns
    count: int
    #: rows that cannot be read, by their position, with what is wrong
    unreadable: dict[int, dict[str, str]] = field(default_factory=dict)
    #: whether even numbers are text, as in CSV
    is_text: bool = False
    #: whether the answer shall have the shape that MLflow's clients expect, and what it tells
    #: beside the rows
    is_mlflow: bool = False
    notes: tuple[dict[str, str], ...] = ()


# ---- JSON ----------------------------------------------------------------------------------------


def from_json(document: object, max_rows: int) -> Rows:
    """Read `{"rows": [{…}, …]}` or `{"columns": {"name": […], …}}`."""
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if value is not None}
    if not isinstance(document, dict) or document.keys() not in ({"rows"}, {"columns"}):
        raise _no_table(document)
    if "rows" in document:
        return from_rows(document["rows"], max_rows, "rows")
    return from_columns(document["columns"], max_rows, "columns")


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


def from_rows(rows: object, max_rows: int, field: str) -> Rows:
    """Read a list of objects. A row that is none costs only itself."""
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


def _gathered(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    check_cells(len(rows), len(names))
    return {name: [row.get(name) for row in rows] for name in names}


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


def _ragged(lengths: dict[str, int], field: str) -> Invalid:
    first, count = next(iter(lengths.items()))
    errors = [
        field_error(
            f"/{field}{pointer(name)}",
            "ragged_columns",
            f"{name[:60]!r} has {length} values where {first[:60]!r} has {count}",
        )
        for name, length in lengths.items()
        if length != count
    ]
    detail = f"All columns must have the same number of values: {errors[0]['detail']}."
    return Invalid(detail, errors=errors[:MAX_ERRORS])


def from_ndjson(content: bytes, max_rows: int) -> Rows:
    """Read one JSON object a line. A line that is none costs only its own row."""
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


def _object(line: bytes) -> dict[str, Any]:
    row = strict_json(line)
    if not isinstance(row, dict):
        raise BadRequest(f"The line must be an object, got {_shape(row)}.", code="malformed_row")
    return row


# ---- CSV -----------------------------------------------------------------------------------------


def from_csv(content: bytes, inputs: Inputs, max_rows: int, delimiter: str = ",") -> Rows:
    """Read a text with a header line. A row with too many or too few cells costs only itself."""
    lines = _lines(content, delimiter)
    # Names that came as JSON may have spaces around them; all others were read without.
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
                "ragged_row", f"The row has {len(row)} cells where the header has {len(header)}."
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
    # A line of our own at the end: a quote that is never closed would swallow it.
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
        raise _unreadable(f"A quoted cell of the row that begins in line {begins} is never closed.")


def _unreadable(detail: str) -> Invalid:
    return Invalid(detail, code="malformed_csv")


def _check_header(header: list[str], inputs: Inputs) -> None:
    if not header:
        raise Invalid(
            f"The text is empty: its first line names the columns {told(inputs)}.",
            code="header_missing",
        )
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise Invalid(f"The header names {told(twice)} more than once.", code="duplicate_column")
    if not any(name in inputs for name in header):
        raise Invalid(
            f"The first line must name the model's columns {told(inputs)}, got {told(header)}.",
            code="header_missing",
        )


def _without_missing(cells: Sequence[str], known: Collection[str]) -> list[str | None]:
    # A known category may be spelled like a missing value, such as NA for Namibia.
    missing = MISSING.difference(known)
    return [None if cell.strip() in missing and cell not in known else cell for cell in cells]


# ---- limits and messages -------------------------------------------------------------------------


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


def _wrong_shape(found: list[tuple[str, str, Any]]) -> Invalid:
    errors = [
        field_error(at, "wrong_type", f"{rule}, got {_shape(value)}")
        for at, rule, value in found[:MAX_ERRORS]
    ]
    return Invalid(f"{errors[0]['pointer']}: {errors[0]['detail']}.", errors=errors)


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {told(value)}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"the value {str(value)[:60]!r}"


def told(names: Mapping[str, Any] | Sequence[str]) -> str:
    shown = ", ".join(repr(str(name)[:60]) for name in list(names)[:MAX_ERRORS])
    return f"{shown}, …" if len(names) > MAX_ERRORS else shown


def row_error(code: ErrorCode, detail: str) -> dict[str, str]:
    """Return the error of one row."""
    return {"code": code, "detail": detail}


JSON, CSV, TSV, NDJSON = (
    "application/json",
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
)


class ForeignBodies(Protocol):
    """JSON bodies of another server's clients, and the answers that they expect."""

    def parse(self, content: bytes, /) -> object:
        """Return a JSON document, with the constants that such a body may hold."""
        ...

    def is_body(self, document: object, /) -> TypeGuard[dict[str, Any]]: ...

    def read(
        self, document: Mapping[str, Any], inputs: Sequence[str], max_rows: int, /
    ) -> Rows: ...

    def to_json(
        self, named: Mapping[str, Any], rows: Sequence[Answer], notes: Sequence[Any], /
    ) -> bytes:
        """Write an answer in their shape."""
        ...


def read(
    content: bytes, media_type: str, features: Features, max_rows: int, foreign: ForeignBodies
) -> Rows:
    """Return the rows of a body for a model with these columns. Raises BadRequest, or Invalid."""
    if media_type == JSON:
        document = foreign.parse(content)
        if not foreign.is_body(document):
            return from_json(document, max_rows)
        inputs = [column.name for column in features.inputs]
        return foreign.read(document, inputs, max_rows)
    if media_type == NDJSON:
        return from_ndjson(content, max_rows)
    # Only a category can be spelled like a missing value.
    known = {
        column.name: column.categories if isinstance(column, Choice) else ()
        for column in features.inputs
    }
    return from_csv(content, known, max_rows, "\t" if media_type == TSV else ",")


MEDIA_TYPES = (PARQUET, ARROW)
READERS = 2  # files that are read at a time: each may take the memory of a parser
PATIENCE_S = 5.0  # that a request waits for its turn
TIMEOUT_S = 30.0  # for one file; the largest that is allowed takes less than one
EXPANSION = 4  # times the largest body: what a file may hold as JSON

Folder = Callable[[], AbstractContextManager[Path]]


class Files:
    """Reads files, some at a time. `folder` gives a scratch folder that is gone afterwards."""

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
        """Return the rows of a file; of columns that are not `known` only where values are."""
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
