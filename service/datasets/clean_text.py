"""Reads a whole text table, and writes a clean copy where its readers need one.

The readers of uploads know UTF-8, one delimiter, double quotes and LF or CRLF at the end of a line.
Everything else becomes such a file here, in bounded memory.
"""

import csv
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from service.datasets.charsets import CHUNK, HEAD, MARK, UTF_8, as_utf8, find_encoding
from service.datasets.dialect import (
    BLANKS,
    MAX_CELL,
    SAMPLE,
    Layout,
    UnclosedQuote,
    Wanted,
    find_layout,
    rows_of,
)
from service.datasets.rejected import Rejected, cell_error, unclosed_quote

_BLANK_LINE = re.compile(rb"[\r\n] +(?:[\r\n]|\Z)")


@dataclass(frozen=True)
class Dialect:
    """The dialect of a text table, as its reader needs it."""

    #: the file that the reader reads: in UTF-8, with LF or CRLF at the end of a line
    path: Path
    delimiter: str
    #: lines above the first row of data: the header, and empty lines above it
    skipped: int
    names: list[str]
    #: whether the number of quotes is odd, so that a quote may never be closed
    has_odd_quotes: bool
    warnings: list[dict[str, Any]]
    #: encoding, delimiter, lines skipped and header, as the version stores them
    reading: dict[str, Any] = field(default_factory=dict)


def utf8_of_json(path: Path, folder: Path, encoding: str | None) -> Path:
    """Return a JSON file in UTF-8, which it is unless its mark or the client names another."""
    with path.open("rb") as file:
        found = find_encoding(file.read(HEAD), encoding)
    if found is None or found.name == UTF_8:
        return path
    return as_utf8(path, folder / "decoded.json", encoding)[0]


class _Facts:
    """Facts about the bytes of the whole file."""

    def __init__(self) -> None:
        self.quotes, self.has_blank_lines = 0, False
        self._marks = np.zeros(CHUNK, bool)

    def add(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), CHUNK):  # decoded chunks may be longer
            part = np.frombuffer(chunk, np.uint8)[start : start + CHUNK]
            # Faster than `bytes.count` where quotes are frequent.
            marks = np.equal(part, ord('"'), out=self._marks[: len(part)])
            self.quotes += int(np.count_nonzero(marks))
            if not self.has_blank_lines and self._has_indented_line(part):
                self.has_blank_lines = bool(_BLANK_LINE.search(chunk))

    @staticmethod
    def _has_indented_line(part: NDArray[np.uint8]) -> bool:
        """Return whether a blank follows the end of a line; faster than a search for both."""
        ends = part[:-1] <= ord("\r")
        return bool((ends & (part[1:] == ord(" "))).any())


def detect(path: Path, folder: Path, wanted: Wanted, max_columns: int) -> Dialect:
    """Return the dialect of a CSV or TSV file, with a clean copy of it in `folder` if necessary.

    Raises Rejected.
    """
    facts = _Facts()
    path, encoding = as_utf8(path, folder / "decoded.csv", wanted.encoding, facts.add)
    text, is_whole = _head(path)
    layout = find_layout(text, wanted, is_whole=is_whole)
    if len(layout.all_names) > max_columns:
        raise Rejected(
            "too_many_columns",
            f"The file has {len(layout.all_names)} columns; at most {max_columns} are read: send"
            " fewer, or raise DESCENT_MAX_COLUMNS.",
        )
    if layout.has_header and not layout.sampled and is_whole:
        raise Rejected(
            "header_only",
            "The file has a header and no row below it: send at least one row of data.",
        )
    why = {"encoding": encoding.why} if encoding.name != UTF_8 else {}
    reading = {"encoding": encoding.name} | layout.to_json() | {"why": why | layout.why}
    found = Dialect(
        path,
        layout.form.delimiter,
        0,
        layout.names,
        bool(facts.quotes % 2),
        encoding.warnings,
        reading,
    )
    if _has_old_line_ends(text):
        _with_new_line_ends(path, folder / "lines.csv")
        found = replace(found, path=folder / "lines.csv")
    if facts.has_blank_lines or _needs_copy(layout):
        found = _copied(found, layout, folder / "clean.csv", has_quotes=facts.quotes > 0)
        return replace(found, warnings=found.warnings + layout.warnings_of(found.names))
    if layout.skip_lines:
        _without_first_lines(found.path, folder / "table.csv", layout.skip_lines)
        found = replace(found, path=folder / "table.csv")
        text = _head(found.path)[0]
    skipped = _empty_lines(text) + 1 if layout.has_header else 0
    return replace(
        found, skipped=skipped, warnings=found.warnings + layout.warnings_of(found.names)
    )


def _head(path: Path) -> tuple[str, bool]:
    with path.open("rb") as file:
        data = file.read(SAMPLE)
        is_whole = not file.read(1)
    return data.decode(UTF_8, errors="ignore").removeprefix(MARK), is_whole


def _empty_lines(text: str) -> int:
    """Return how many lines at the beginning are empty; the reader does not count them as rows."""
    return len(text[: len(text) - len(text.lstrip("\r\n"))].splitlines())


def _has_old_line_ends(text: str) -> bool:
    """Return whether lines end with CR alone, as on an old Macintosh."""
    return "\n" not in text and "\r" in text.rstrip("\r")


def _with_new_line_ends(path: Path, target: Path) -> None:
    with path.open("rb") as file, target.open("wb") as out:
        is_cut = False
        while chunk := file.read(CHUNK):
            if is_cut and chunk.startswith(b"\n"):
                chunk = chunk[1:]
            is_cut = chunk.endswith(b"\r")
            out.write(chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _without_first_lines(path: Path, target: Path, count: int) -> None:
    with path.open("rb") as file, target.open("wb") as out:
        for _ in range(count):
            while (line := file.readline(CHUNK)) and not line.endswith(b"\n"):
                pass
        shutil.copyfileobj(file, out, CHUNK)


# ---- copies -------------------------------------------------------------------------------------


def _needs_copy(layout: Layout) -> bool:
    form = layout.form
    return (
        layout.has_empty_ends or form.delimiter == BLANKS or form.quote != '"' or form.skips_blanks
    )


def _copied(found: Dialect, layout: Layout, target: Path, *, has_quotes: bool) -> Dialect:
    """Write the rows with one delimiter and double quotes, without header and lines above."""
    delimiter = "\t" if layout.form.delimiter == BLANKS else layout.form.delimiter
    copy = _Copy(found.path, target, layout, delimiter)
    names = layout.names
    try:
        copy.write(len(names), has_quotes=has_quotes)
    except _FilledEnd as error:
        names = layout.all_names
        if len(names) == len(layout.names):
            detail = f"Row {error.row} has {error.cells} cells where {len(names)} are expected."
            raise cell_error("ragged_row", detail, row=error.row) from error
        copy.write(None, has_quotes=has_quotes)
    return replace(
        found,
        path=target,
        delimiter=delimiter,
        names=names,
        has_odd_quotes=False,
    )


class _FilledEnd(Exception):
    """A cell beyond the columns is not empty."""

    def __init__(self, row: int, cells: int) -> None:
        self.row, self.cells = row, cells
        super().__init__(row)


@dataclass(frozen=True)
class _Copy:
    """A copy of the rows of a file."""

    source: Path
    target: Path
    layout: Layout
    delimiter: str

    def write(self, width: int | None, *, has_quotes: bool) -> None:
        """Write the rows, without the empty cells beyond `width`. Raises _FilledEnd, Rejected."""
        if has_quotes or self.layout.form.quote != '"':
            self._write_quoted(width)
        else:
            self._write_plain(width)

    def _write_quoted(self, width: int | None) -> None:
        row = 0
        with (
            self.source.open(encoding="utf-8-sig", newline="") as file,
            self.target.open("w", encoding=UTF_8, newline="") as out,
        ):
            writer = csv.writer(out, delimiter=self.delimiter, lineterminator="\n")
            try:
                for cells in rows_of(_bounded(file), self.layout):
                    row += 1
                    if width is not None and any(cell.strip() for cell in cells[width:]):
                        raise _FilledEnd(row, len(cells))
                    writer.writerow(cells[:width])
            except UnclosedQuote as error:
                raise unclosed_quote(row + 1) from error
            except csv.Error as error:
                raise _too_long(row) from error

    def _write_plain(self, width: int | None) -> None:
        """Write a file without quotes, which takes a tenth of the time."""
        old, new = self.layout.form.delimiter.encode(), self.delimiter.encode()
        row = 0 if self.layout.has_header else 1
        with self.source.open("rb") as file, self.target.open("wb") as out:
            for line in _lines_below(file, self.layout.skip_lines):
                cells = line.split() if old == b" " else line.rstrip(b"\r\n").split(old)
                if not cells or (len(cells) == 1 and not cells[0].strip()):
                    continue
                if row:
                    if width is not None and any(map(bytes.strip, cells[width:])):
                        raise _FilledEnd(row, len(cells))
                    out.write(new.join(cells[:width]) + b"\n")
                row += 1


def _lines_below(file: BinaryIO, skipped: int) -> Iterator[bytes]:
    """Yield the lines below the first ones. Raises Rejected if one is too long."""
    number = 0
    while line := file.readline(MAX_CELL):
        if len(line) == MAX_CELL:
            raise _too_long(number)
        number += 1
        if number > skipped:
            yield line


def _bounded(file: TextIO) -> Iterator[str]:
    """Yield lines of a bounded length. Raises csv.Error."""
    while line := file.readline(MAX_CELL):
        if len(line) == MAX_CELL:
            raise csv.Error("line too long")
        yield line


def _too_long(row: int) -> Rejected:
    return cell_error(
        "row_too_long",
        f"A row after row {row} is longer than {MAX_CELL} characters, or a quote in it is never"
        " closed.",
        row=row + 1,
    )
