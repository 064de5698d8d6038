"""Reads the bodies of prediction requests into columns of scalars.

- Text: JSON with rows or columns, NDJSON, CSV and TSV; MLflow's bodies by way of `ForeignBodies`.
- Files: Parquet and Arrow, read in a confined process.

Parses the formats but does not check values: the predictor decides whether a value fits its column.
"""

import codecs
import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Protocol, TypeGuard

from descent.codes import ErrorCode
from models.features.encoding import Features
from models.features.inputs import Choice, Input, Moment
from models.reading import TableReading
from service.datasets import rejected, sandbox
from service.datasets.charsets import decoded, encoding_named
from service.datasets.dialect import KnownTable, TextTable, Wanted, read_text_table
from service.datasets.messages import ARROW, PARQUET
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.errors import (
    BadRequest,
    Busy,
    Invalid,
    ServiceError,
    StorageFull,
    TooLarge,
    field_error,
)
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
#: the first bytes of a text that is not plain UTF-8
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: cells of a CSV that mean a missing value for a model that knows no readings
MISSING = frozenset({"", "NA", "N/A", "NaN", "null", "?"})
READERS = 2  # files read at the same time: each may take the memory of a parser
PATIENCE_S = 5.0  # seconds that a request waits for its turn
TIMEOUT_S = 30.0  # seconds for one file; the largest allowed file takes less than one
EXPANSION = 4  # size of a file's rows as JSON, in multiples of the largest allowed body

#: column of a model → None, or if it has no reading its categories, of which others have none
Inputs = Mapping[str, Collection[str] | None]
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
        self,
        document: Mapping[str, Any],
        inputs: Sequence[str],
        max_rows: int,
        moments: Collection[str] = (),
        /,
    ) -> Rows: ...

    def to_json(
        self, named: Mapping[str, Any], rows: Sequence[Answer], notes: Sequence[Any], /
    ) -> bytes:
        """Return an answer in the shape that these clients expect."""
        ...


def read(
    content: bytes,
    media_type: str,
    features: Features,
    max_rows: int,
    foreign: ForeignBodies,
    charset: str = "",
) -> Rows:
    """Return the rows of a text body for a model with these columns. Raises BadRequest, Invalid."""
    if media_type in {JSON, NDJSON}:
        content = _in_utf8(content, charset)
    if media_type == JSON:
        document = foreign.parse(content)
        if not foreign.is_body(document):
            return from_json(document, max_rows)
        inputs = [column.name for column in features.inputs]
        moments = [column.name for column in features.inputs if isinstance(column, Moment)]
        return foreign.read(document, inputs, max_rows, moments)
    if media_type == NDJSON:
        return from_ndjson(content, max_rows)
    return from_csv(
        content,
        {column.name: _known(column) for column in features.inputs},
        max_rows,
        table=features.table,
        charset=charset,
        delimiter="\t" if media_type == TSV and b"\t" in content else None,
    )


def _known(column: Input) -> Collection[str] | None:
    if column.reading is not None:
        return None
    # Only a category can look like a missing value.
    return column.categories if isinstance(column, Choice) else ()


# ---- JSON ---------------------------------------------------------------------------------------


def from_json(document: object, max_rows: int) -> Rows:
    """Read `{"rows": [{…}, …]}`, the list alone, or `{"columns": {"name": […], …}}`."""
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return from_rows(document, max_rows, "")
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


def from_csv(
    content: bytes,
    inputs: Inputs,
    max_rows: int,
    *,
    table: TableReading | None = None,
    charset: str = "",
    delimiter: str | None = None,
) -> Rows:
    """Read a CSV or TSV by the finder of uploads. Rows with too many or too few cells get errors.

    `table` is the training table, whose rows may come without a header.
    """
    try:
        found = read_text_table(content, *_wanted(inputs, table, charset, delimiter))
        names = _names_of(found, inputs, table)
        rows, unreadable = _checked(found.rows, len(names), max_rows)
    except Rejected as refused:
        raise _refused(refused, inputs) from refused
    check_cells(len(rows), len(names))
    cells_of = zip(*rows, strict=True) if rows else iter([()] * len(names))
    columns: Columns = {
        name: _without_missing(cells, inputs.get(name, ()))
        for name, cells in zip(names, cells_of, strict=True)
    }
    return Rows(columns, len(rows), unreadable, is_text=True)


def _wanted(
    inputs: Inputs, table: TableReading | None, charset: str, delimiter: str | None
) -> tuple[Wanted, KnownTable]:
    encoding = _encoding(charset)
    if table is None:  # a model of an earlier version knows its inputs only
        wanted = Wanted(header="present", encoding=encoding, delimiter=delimiter)
        return wanted, KnownTable(tuple(inputs), delimiter=",")
    wanted = Wanted(encoding=encoding, delimiter=delimiter, missing=frozenset(table.missing))
    return wanted, KnownTable(table.names, table.header, table.delimiter)


def _encoding(charset: str) -> str | None:
    if not charset:
        return None
    encoding = encoding_named(charset)
    if encoding is None:
        raise BadRequest(f"The charset {charset[:40]!r} is not known.", code="wrong_encoding")
    return encoding


def _names_of(found: TextTable, inputs: Inputs, table: TableReading | None) -> list[str]:
    """Return the names of the columns. Raises Invalid if they tell nothing of the model's."""
    names = found.names
    if not any(name in inputs for name in names):
        shape = f", or the rows must have {len(table.names)} cells" if table else ""
        raise Invalid(
            f"The first line must name the model's columns {quoted(inputs)}{shape}, got"
            f" {quoted(names)}.",
            code="header_missing",
        )
    return names


def _checked(
    rows: Iterable[list[str]], width: int, max_rows: int
) -> tuple[list[list[str]], dict[int, dict[str, str]]]:
    """Return rows of the same width, and the errors of those that have another one."""
    table: list[list[str]] = []
    unreadable: dict[int, dict[str, str]] = {}
    for row in rows:
        if len(row) != width:
            unreadable[len(table)] = row_error(
                "ragged_row", f"The row has {len(row)} cells, but the header has {width}."
            )
        table.append(row if len(row) == width else [""] * width)
        check_count(len(table), max_rows)
    return table, unreadable


def _refused(refused: Rejected, inputs: Inputs) -> ServiceError:
    if refused.code == "empty_file":
        return Invalid(
            f"The text is empty: its first line names the columns {quoted(inputs)}.",
            code="header_missing",
        )
    if refused.code in {"not_utf8", "wrong_encoding", "nul_byte"}:
        return BadRequest(refused.detail, code=refused.code, errors=refused.errors)
    return rejected.as_error(refused)


def _without_missing(cells: Sequence[str], known: Collection[str] | None) -> list[Any]:
    """Return the cells of a column; a model that knows no readings has fixed rules for them."""
    if known is None:
        return list(cells)
    # A known category may be spelled like a missing value, such as NA for Namibia.
    missing = MISSING.difference(known)
    return [None if cell.strip() in missing and cell not in known else cell for cell in cells]


def _in_utf8(content: bytes, charset: str) -> bytes:
    """Return a text in UTF-8 without a byte order mark."""
    if not charset and not content.startswith(MARKS):
        return content
    try:
        return decoded(content, _encoding(charset))[0].encode()
    except Rejected as refused:
        raise _refused(refused, {}) from refused


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
