"""Finds how a text table is written: its encoding, delimiter, header and names.

The encoding is decided from the whole file, delimiter, header and names from its first rows.
"""

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from descent.codes import WarningCode, make_warning
from service.datasets.rejected import Rejected, cell_error, free_name, shown

CHUNK = 1024 * 1024  # bytes that are checked at a time
SAMPLE = 256 * 1024  # bytes from which delimiter and header are decided
SAMPLE_ROWS = 1000  # rows of the sample at most
MAX_NAME = 256  # characters of a column's name
#: possible delimiters; of two that fit equally well, the first wins, because prose and decimal
#: commas use it less
DELIMITERS = ("\t", "|", ";", ",")
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\d{1,2}[./]\d{4}")
_PADDED = re.compile(rb'[,;\t|\n\r"] | [,;\t|\n\r"]|^ | $')
_BOOLEANS = frozenset({"true", "false", "yes", "no"})


@dataclass(frozen=True)
class Dialect:
    """The dialect of a text table, as its reader needs it."""

    delimiter: str
    #: lines above the first row of data: the header, and empty lines above it
    skipped: int
    names: list[str]
    #: whether some cell begins or ends with a space
    is_padded: bool
    #: whether the number of quotes is odd, so that a quote may never be closed
    has_odd_quotes: bool
    warnings: list[dict[str, str]]


@dataclass(frozen=True)
class _Bytes:
    has_padding: bool
    quotes: int


def detect(
    path: Path, *, delimiter: str | None, header: str, missing: frozenset[str], max_columns: int
) -> Dialect:
    """Return the dialect of a CSV or TSV file; raise Rejected if it is no such file."""
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
    """Return unique names for the columns, and a warning for each invented name."""
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
            fault = f"is called {shown(wanted)} again" if wanted else "has no name"
            detail = f"Column {number} {fault}: it is read as {name!r}."
            warnings.append(make_warning(code, detail, name))
        given.add(name)
        names.append(name)
    return names, warnings


def _check_bytes(path: Path) -> _Bytes:
    """Check that the whole file is UTF-8 without NUL. Raises Rejected with the faulty line."""
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
    """Return how many lines at the beginning are empty; the reader does not count them as rows."""
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

    A number is never the name of a column. Words above numbers are names. In a table of words
    only, the first row is a header if its cells are unique and do not occur below.
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
