"""Finds how a text table is written: its lines above the table, delimiter, header and names.

Uploads and the bodies of prediction requests use the same finder. It decides from the first rows
only; `clean_text` then reads the whole file.
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from descent.codes import make_warning
from models.reading import MISSING, WHITE
from service.datasets.charsets import decoded
from service.datasets.headers import (
    CURRENCY,
    NUMBER,
    column_names,
    header_level,
    is_typed,
    is_word,
)
from service.datasets.rejected import (
    Rejected,
    cell_error,
    shown,
    unclosed_quote,
)

SAMPLE = 256 * 1024  # bytes from which the dialect is decided
SAMPLE_ROWS = 1000  # rows of the sample at most
#: possible delimiters; of two that fit equally well, the first wins, because prose and decimal
#: commas use it less
DELIMITERS = ("\t", "|", ";", ",")
#: one or several blanks or tabs between two cells
BLANKS = " "
#: share of the rows below some first lines that must have one width, so that these lines are no
#: part of the table
SAME_WIDTH = 0.9
MAX_ABOVE = 100  # lines above the table that are found
MAX_CELL = 2 * 1024 * 1024  # characters of the longest cell that `csv` reads here

#: `sep=;`: the first line by which a file tells Excel its delimiter
_SEP = re.compile(r"""["']?sep=(\\t|[^\w"'\r\n])["']?[,;\t ]*[\r\n]*""", re.IGNORECASE)
#: A moment such as `2024-01-31 10:30` is one cell, though it holds a blank.
_MOMENT = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4} \d{1,2}:\d{2}\S*")

#: a number with a decimal comma, or with commas between thousands
_ONE_NUMBER = re.compile(
    rf"[+-]?(?:{CURRENCY} ?)?(?:\d+(?:,\d+)?|\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?)(?: ?{CURRENCY})?"
)

csv.field_size_limit(MAX_CELL)  # of the whole process; the default is 128 KiB


class Form(NamedTuple):
    """How the cells of one line are separated and quoted."""

    delimiter: str
    quote: str = '"'
    #: whether blanks may stand between a delimiter and a quote
    skips_blanks: bool = False


@dataclass(frozen=True)
class Wanted:
    """The options of a client for a text; the finder decides those that are None."""

    delimiter: str | None = None
    #: auto, present or absent
    header: str = "auto"
    #: lines above the table
    skip_lines: int | None = None
    encoding: str | None = None
    missing: frozenset[str] = frozenset(MISSING)


@dataclass(frozen=True)
class KnownTable:
    """The table that a model was trained on, as far as the rows of a request depend on it."""

    #: the names of all its columns, in order
    names: tuple[str, ...]
    has_header: bool = True
    delimiter: str | None = None


@dataclass(frozen=True)
class Layout:
    """How a text is laid out."""

    form: Form
    #: lines above the header, or above the first row
    skip_lines: int
    has_header: bool
    names: list[str]
    #: whether rows of the sample have more cells than there are names, all of them empty
    has_empty_ends: bool
    #: the names if such a cell is not empty in a later row
    all_names: list[str]
    #: rows below the header in the sample
    sampled: int
    why: dict[str, str] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def warnings_of(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the warnings without those of columns that are not read."""
        return [each for each in self.warnings if each.get("column") in {None, *names}]

    def to_json(self) -> dict[str, Any]:
        return {
            "delimiter": self.form.delimiter,
            "skip_lines": self.skip_lines,
            "header": self.has_header,
        }


class _Row(NamedTuple):
    line: int
    cells: list[str]


# ---- the rows of a text in memory ---------------------------------------------------------------


@dataclass(frozen=True)
class TextTable:
    """A text in memory as a table of cells."""

    names: list[str]
    #: The cells of each row, without blank lines. A row may have another width than `names`.
    #: Raises Rejected if a quoted cell is never closed.
    rows: Iterator[list[str]]
    has_header: bool
    warnings: list[dict[str, Any]]
    #: encoding, delimiter, lines skipped and header, as a dataset version stores them
    reading: dict[str, Any]


def read_text_table(content: bytes, wanted: Wanted, table: KnownTable | None = None) -> TextTable:
    """Return the cells of a CSV or TSV text. Raises Rejected.

    A first row that names columns of `table` is a header; otherwise the rules of an upload hold.
    Without a header, a text as wide as `table` has its names, by position.
    """
    text, encoding = decoded(content, wanted.encoding)
    layout = find_layout(text, wanted, table)
    rows = _rows_in(text, layout)
    if layout.has_empty_ends:
        width = len(layout.names)
        if any(any(map(_filled, row[width:])) for row in _rows_in(text, layout)):
            layout = replace(layout, names=layout.all_names)
        else:
            rows = (row[:width] for row in rows)
    reading = {"encoding": encoding.name} | layout.to_json()
    warnings = encoding.warnings + layout.warnings_of(layout.names)
    return TextTable(layout.names, rows, layout.has_header, warnings, reading)


def _rows_in(text: str, layout: Layout) -> Iterator[list[str]]:
    row = 0
    try:
        for cells in rows_of(lines_of(text), layout):
            row += 1
            yield cells
    except UnclosedQuote as error:
        raise unclosed_quote(row + 1) from error
    except csv.Error as error:
        detail = f"The text cannot be read after row {row}: {error}."
        raise Rejected("malformed_csv", detail) from error


class UnclosedQuote(csv.Error):
    """A quoted cell is never closed."""


def rows_of(lines: Iterator[str], layout: Layout) -> Iterator[list[str]]:
    """Yield the rows below the header, without blank lines. Raises UnclosedQuote, csv.Error."""
    # A known line at the end is not the last row if a quoted cell is never closed.
    end = "end"
    ended = (line if line.endswith(("\n", "\r")) else f"{line}\n" for line in lines)
    below = itertools.chain(itertools.islice(ended, layout.skip_lines, None), [end])
    last: list[str] | None = None
    skips = layout.has_header
    for cells in filter(None, cells_of(below, layout.form)):
        if last is not None:
            yield last
        last = None if skips else cells
        skips = False
    if last != [end]:
        raise UnclosedQuote


# ---- the layout ---------------------------------------------------------------------------------


def find_layout(
    text: str, wanted: Wanted, table: KnownTable | None = None, *, is_whole: bool = True
) -> Layout:
    """Return the layout of a text, or of its beginning. Raises Rejected."""
    if len(text) > SAMPLE:
        text, is_whole = text[:SAMPLE], False
    if not text.strip(WHITE):
        raise Rejected("empty_file", "The file is empty: send at least one row of data.")
    return _Finder(text, wanted, table, is_whole=is_whole).layout()


class _Finder:
    """Finds the layout of one text."""

    def __init__(
        self, text: str, wanted: Wanted, table: KnownTable | None, *, is_whole: bool
    ) -> None:
        self._lines = list(lines_of(text))
        self._wanted, self._table, self._is_whole = wanted, table, is_whole
        self._known = frozenset(table.names if table else ())
        self._why: dict[str, str] = {}
        self._warnings: list[dict[str, Any]] = []

    def layout(self) -> Layout:
        told = _SEP.fullmatch(self._lines[0])
        first = max(self._wanted.skip_lines or 0, 1 if told else 0)
        delimiter = self._wanted.delimiter
        if told:
            self._why["delimiter"] = "the first line names it"
            delimiter = delimiter or told[1].replace("\\t", "\t")
        is_told = self._wanted.skip_lines is not None
        comments = 0 if is_told else _comments(self._lines[first:])
        below = self._lines[first + comments :]
        if not "".join(below).strip(WHITE):
            raise Rejected("empty_file", "The file has no rows: send at least one row of data.")
        form = self._form(below, delimiter)
        rows = self._rows(below, first + comments, form)
        if not rows:
            raise cell_error(
                "row_too_long",
                f"The first row is longer than {SAMPLE} characters, or its quotes are never"
                " closed.",
                line=first + comments + 1,
            )
        if comments:
            rows = self._below_comments(self._lines[first : first + comments], rows, form)
            self._why["skip_lines"] = "lines that begin with # stand above the table"
            first = rows[0].line
        elif not is_told and (count := self._titles(rows)):
            self._warnings.append(_titles_skipped(rows[:count]))
            self._why["skip_lines"] = "the lines above have another width than the rows below"
            rows = rows[count:]
            first = rows[0].line
        return self._named(first, form, rows)

    # ---- delimiter and quotes ----

    def _form(self, lines: list[str], delimiter: str | None) -> Form:
        if delimiter is None:
            delimiter, reason = self._delimiter(lines)
            self._why.setdefault("delimiter", reason)
        form = Form(delimiter)
        if delimiter == BLANKS:
            return form
        text = "".join(lines)
        if '"' not in text and "'" in text and self._has_single_quotes(lines, form):
            form = form._replace(quote="'")
        return form._replace(
            skips_blanks=bool(re.search(f"{re.escape(delimiter)} +{form.quote}", text))
        )

    def _delimiter(self, lines: list[str]) -> tuple[str, str]:
        order = list(DELIMITERS)
        if self._table and self._table.delimiter in order:
            order.remove(self._table.delimiter)
            order.insert(0, self._table.delimiter)
        rows_of = {each: self._rows(lines, 0, Form(each), 100) for each in [*order, BLANKS]}
        named = {each: self._most_named(rows) for each, rows in rows_of.items()}
        if best := max(named.values()):
            of_names = [each for each in [*order, BLANKS] if named[each] == best]
            # A single name stands alone in its row with any delimiter.
            if best > 1:
                return of_names[0], "the first row names columns of the model"
        scores = {each: _share_of_width(rows_of[each]) for each in order}
        best_share = max(scores.values())
        if self._are_blanks(rows_of[BLANKS], lines) and best_share < SAME_WIDTH:
            return BLANKS, "every row has the same number of cells between blanks"
        if best_share and not _is_decimal_comma(rows_of[","], scores):
            found = next(each for each in order if scores[each] == best_share)
            return found, "most rows have the same number of cells with it"
        if self._table and self._table.delimiter:
            return self._table.delimiter, "the table that the model was trained on has it"
        text = "".join(lines)
        return next((each for each in (",", ";", "\t", "|") if each not in text), ","), "one column"

    def _most_named(self, rows: list[_Row]) -> int:
        """Return the largest number of the model's columns that one of the first rows names."""
        if not self._known:
            return 0
        return max(
            (len({cell.strip(WHITE) for cell in row.cells} & self._known) for row in rows[:20]),
            default=0,
        )

    def _are_blanks(self, rows: list[_Row], lines: list[str]) -> bool:
        """Return whether blanks separate cells: every row has one width, and numbers occur."""
        if len(rows) < 2 or any(_MOMENT.search(line) for line in lines[:100]):
            return False
        widths = {len(row.cells) for row in rows[1:]}
        width = len(rows[1].cells)
        if len(widths) > 1 or width < 2 or width - len(rows[0].cells) not in {0, 1}:
            return False
        columns = zip(*(row.cells for row in rows[1:]), strict=True)
        return any(all(map(is_typed, column)) for column in columns)

    def _has_single_quotes(self, lines: list[str], form: Form) -> bool:
        plain = self._rows(lines, 0, form, 100)
        cells = [cell.strip() for row in plain for cell in row.cells]
        begin = [cell for cell in cells if cell.startswith("'")]
        end = [cell for cell in cells if cell.endswith("'")]
        if len(begin) != len(end) or len(begin) < len(plain):
            return False
        quoted = self._rows(lines, 0, form._replace(quote="'"), 100)
        return len({len(row.cells) for row in quoted}) == 1

    def _rows(
        self, lines: list[str], above: int, form: Form, most: int = SAMPLE_ROWS
    ) -> list[_Row]:
        """Return the first rows, without blank lines; `above` is the number of lines above."""
        rows: list[_Row] = []
        read = begins = above

        def counted() -> Iterator[str]:
            nonlocal read
            for line in lines:
                read += 1
                yield line

        try:
            for cells in cells_of(counted(), form):
                if cells:
                    rows.append(_Row(begins, cells))
                begins = read
                if len(rows) > most:
                    return rows
        except csv.Error:
            return rows
        # The last row of a cut sample may be cut too.
        return rows if self._is_whole else rows[:-1]

    # ---- lines above the table ----

    def _below_comments(self, above: list[str], rows: list[_Row], form: Form) -> list[_Row]:
        """Return the rows, with the last comment as the header if it names the columns."""
        number, line = next((i, x) for i, x in reversed(list(enumerate(above))) if x.strip())
        line = line.strip()
        is_spaced = line[1:2].isspace()
        text = line.lstrip("#").lstrip() if is_spaced else line
        cells: list[str] = next(cells_of([text], form), [])
        if self._wanted.header == "absent" or len(cells) != _usual_width(rows):
            return rows
        if not self._names_columns(cells):
            level = self._level(rows)
            if self._names_columns(rows[0].cells) or level == 2 or (level and is_spaced):
                return rows
            if len(cells) == 1 and is_spaced and " " in text:
                return rows
        return [_Row(rows[0].line - len(above) + number, cells), *rows]

    def _titles(self, rows: list[_Row]) -> int:
        """Return how many of the first rows are no part of the table."""
        width = _usual_width(rows)
        # Among the lines above, one may have as many cells as the table by chance.
        odd = max((i for i, row in enumerate(rows[:20]) if len(row.cells) != width), default=-1)
        if odd > 0 and len(rows[0].cells) == width and self._level(rows[:odd]) < 2:
            is_header = len(rows) > odd + 2 and self._level(rows[odd + 1 :]) == 2
            return odd + 1 if is_header else 0
        count = next(i for i, row in enumerate(rows) if len(row.cells) == width)
        if not count:  # Excel pads titles with empty cells
            most = max(map(_end, rows))
            count = next(i for i, row in enumerate(rows) if _end(row) == most)
            is_padded = True
        else:
            is_padded = False
        above, below = rows[:count], rows[count:]
        if not above or count > MAX_ABOVE or width < 2 or self._names_columns(rows[0].cells):
            return 0
        if self._names_columns(below[0].cells):
            return count
        same = sum(len(row.cells) == width for row in below)
        if len(below) < 2 or same < SAME_WIDTH * len(below):
            return 0
        # Cells that are only missing, and delimiters at the end of a line, make no title.
        if not is_padded and all(_end(row) <= len(rows[0].cells) for row in below):
            return 0
        are_words = is_word(above[0].cells[0]) and all(
            _end(row) == 0 or (_end(row) == 1 and is_word(row.cells[0])) for row in above
        )
        if self._level(below) == 2:
            return count if are_words or not is_padded else 0
        is_apart = width > 2 or all(" " in row.cells[0].strip() for row in above)
        return count if are_words and is_apart and not is_padded and count <= len(below) else 0

    # ---- header and names ----

    def _named(self, first: int, form: Form, rows: list[_Row]) -> Layout:
        has_header = self._has_header(rows)
        top = [cell if cell in self._known else cell.strip(WHITE) for cell in rows[0].cells]
        below = rows[1:] if has_header else rows
        width = _usual_width(below) if below else len(top)
        if has_header and form.delimiter == BLANKS and len(top) == width - 1:
            top = ["", *top]  # as R writes row names
        names = top if has_header else [""] * width
        if not has_header and self._table and width == len(self._table.names):
            names = list(self._table.names)
            return Layout(
                form, first, False, names, False, names, len(rows), self._why, self._warnings
            )
        end = _end(_Row(0, top)) if has_header else max(map(_end, rows))
        most = max(map(_end, below), default=0)
        is_trimmed = end > 0 and most <= end and any(len(row.cells) > end for row in rows)
        all_names, warnings = column_names(names, has_header, self._known)
        found = all_names[:end] if is_trimmed else all_names
        return Layout(
            form,
            first,
            has_header,
            found,
            is_trimmed and any(len(row.cells) > end for row in below),
            all_names,
            len(below),
            self._why,
            self._warnings + warnings,
        )

    def _has_header(self, rows: list[_Row]) -> bool:
        if self._wanted.header != "auto":
            return self._wanted.header == "present"
        if self._table is None:
            return self._level(rows) > 0
        if self._names_columns(rows[0].cells):
            return True
        if any(NUMBER.fullmatch(cell.strip(WHITE)) for cell in rows[0].cells):
            return False
        level = self._level(rows)
        return level == 2 or (level == 1 and self._table.has_header)

    def _level(self, rows: list[_Row]) -> int:
        return header_level([row.cells for row in rows], self._wanted.missing)

    def _names_columns(self, cells: list[str]) -> bool:
        """Return whether a row names columns of the known table."""
        found = {cell.strip(WHITE) for cell in cells} - {""}
        named = found & self._known
        if all(map(is_typed, named)) or any(map(NUMBER.fullmatch, found)):
            # A number, or a word beside numbers, may be a value that is spelled like a name.
            return bool(named) and len(named) >= (
                len(found) if all(map(is_typed, named)) else len(found) / 2
            )
        return True


def _comments(lines: list[str]) -> int:
    """Return how many lines stand above the table, of which the last begins with #."""
    count = 0
    for number, line in enumerate(lines, 1):
        if line.strip().startswith("#"):
            count = number
        elif line.strip():
            return count
    return 0  # the table itself consists of such lines


def _titles_skipped(above: list[_Row]) -> dict[str, Any]:
    text = " ".join(" ".join(above[0].cells).split())
    lines = "line is" if len(above) == 1 else f"{len(above)} lines are"
    detail = (
        f"The first {lines} left out, because the table begins below: {shown(text)}. If this is"
        " wrong, say skip_lines=0."
    )
    return make_warning("lines_skipped", detail)


def _share_of_width(rows: list[_Row]) -> float:
    """Return the share of the rows that have the most frequent width, if that is above 1."""
    widths = Counter(len(row.cells) for row in rows)
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    return round(count / widths.total(), 2) if width > 1 else 0.0


def _is_decimal_comma(rows: list[_Row], scores: dict[str, float]) -> bool:
    """Return whether a comma stands only within the numbers of a single column."""
    if scores[","] < max(scores.values()) or len(rows) < 2 or len(rows[0].cells) != 1:
        return False
    return all(_ONE_NUMBER.fullmatch(",".join(row.cells).strip(WHITE)) for row in rows[1:])


def _usual_width(rows: list[_Row]) -> int:
    """Return the most frequent width; of two, the width of the first row, or the larger one."""
    widths = Counter(len(row.cells) for row in rows)
    first = len(rows[0].cells)
    return max(widths, key=lambda width: (widths[width], width == first, width))


def _end(row: _Row) -> int:
    """Return the number of cells up to the last one that is not empty."""
    return next((i for i in range(len(row.cells), 0, -1) if _filled(row.cells[i - 1])), 0)


def _filled(cell: str) -> bool:
    return bool(cell.strip(WHITE))


# ---- lines and cells -----------------------------------------------------------------------------


def lines_of(text: str) -> Iterator[str]:
    r"""Yield the lines, with their ends: `\n`, `\r\n` or `\r`."""
    return io.StringIO(text, newline="")


def cells_of(lines: Iterable[str], form: Form) -> Iterator[list[str]]:
    """Yield the cells of each line; a line of blanks has none."""
    if form.delimiter == BLANKS:
        lines = (line.strip(" \t\r\n").replace("\t", " ") for line in lines)
    last = ""

    def noted() -> Iterator[str]:
        nonlocal last
        for line in lines:
            last = line
            yield line

    reader = csv.reader(
        noted(),
        delimiter=form.delimiter,
        quotechar=form.quote,
        skipinitialspace=form.skips_blanks or form.delimiter == BLANKS,
    )
    for cells in reader:
        # A cell in quotes is a cell, even if it is empty or holds blanks only.
        yield [] if len(cells) == 1 and last.isspace() else cells
