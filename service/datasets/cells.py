"""Reads columns of texts, a batch at a time, as `Reading.read` reads each cell.

Arrow and NumPy read the plain spellings. All other cells go to `Reading.read`, each distinct text
once. So there is one reader, and a test holds these shortcuts equal to it.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from models.reading import DATE_FORMS, SIGNS, WHITE, Reading

pc: Any = pyarrow.compute  # its stubs know no arrays of any type
STORED: dict[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}
_NOT_FINITE = "^[+-]?(?i:inf|infinity|nan)$"
_INT64 = range(-(2**63), 2**63)
_CLOCKS = ("", " HH:MM", " HH:MM:SS", " HH:MM:SSZ")
_PARTS = {"%Y": "YYYY", "%y": "yy", "%m": "mm", "%d": "dd"}
_DIGIT = ord("0")
#: microseconds since 1970
_1900, _2100 = -2_208_988_800_000_000, 4_102_444_800_000_000


@dataclass(frozen=True)
class Cells:
    """The cells of one column as texts and as values."""

    #: the texts without blanks at their ends; null where they mean missing
    texts: "pa.Array[Any]"
    #: null where a cell is missing, does not fit, or is no finite number
    values: "pa.Array[Any]"
    #: where a cell is present and does not fit; None if every cell fits
    unfit: "pa.Array[Any] | None" = None
    #: how many cells are infinite or NaN
    not_finite: int = 0

    def part(self, start: int, count: int) -> "Cells":
        """Return some of the cells, if all are finite."""
        unfit = None if self.unfit is None else self.unfit.slice(start, count)
        return Cells(self.texts.slice(start, count), self.values.slice(start, count), unfit)


@dataclass(frozen=True)
class ColumnReader:
    """Reads the cells of one column."""

    reading: Reading
    #: markers of missing values that are null already, unless blanks surround them
    nulled: frozenset[str] = frozenset()

    def read(self, cells: "pa.Array[Any]") -> Cells:
        """Return the values of a batch of texts."""
        if self.reading.is_plain and not self._has_own_markers:
            # Arrow reads no number beside blanks, and no text that means missing.
            values = self._plain(cells)
            if values is not None:
                return Cells(cells, values)
        return self.values(self.clean(cells))

    def values(self, cells: "pa.Array[Any]") -> Cells:
        """Return the values of clean cells."""
        match self.reading.type:
            case "number":
                return self._numbers(cells)
            case "integer":
                return self._whole_numbers(cells)
            case "boolean":
                return self._each(cells)
            case "datetime":
                return self._moments(cells)
        return self._each(cells) if self.reading.merges_numbers else Cells(cells, cells)

    def clean(self, cells: "pa.Array[Any]") -> "pa.Array[Any]":
        """Return the cells without blanks at their ends, and null where they mean missing."""
        trimmed: pa.Array[Any] = pc.utf8_trim(cells, WHITE)
        if not self._has_own_markers and _bytes(trimmed) == _bytes(cells):
            return trimmed
        return _where(pc.is_in(trimmed, value_set=self._markers), None, trimmed)

    def fits(self, cells: "pa.Array[Any]") -> "pa.Array[Any]":
        """Return where a clean cell is a value; an integer must have no decimals at all."""
        if self.reading.type == "number":
            return _matching(_signed(cells), f"{self._number}|{_NOT_FINITE}")
        if self.reading.type == "integer":
            plain = _signed(cells)
            digits = self._without_marks(_where(_matching(plain, self._number), plain, None))
            return _matching(digits, "^[+-]?[0-9]+$")
        return self.values(cells).values.is_valid()

    # ---- markers ----

    @cached_property
    def _markers(self) -> "pa.Array[Any]":
        return pa.array(sorted(self.reading.missing), pa.string())

    @cached_property
    def _has_own_markers(self) -> bool:
        """Whether the column has markers beside those that are null already."""
        return not self.nulled.issuperset(self.reading.missing)

    # ---- numbers ----

    def _plain(self, cells: "pa.Array[Any]") -> "pa.Array[Any] | None":
        """Return plain finite numbers; None if some cells are others."""
        if self.reading.type not in {"number", "integer"}:
            return None
        values = _cast(cells, pa.float64())
        if self.reading.type == "number":
            return values if values is not None and _all_finite(values) else None
        # Arrow also reads 0x10 as an integer, but not as a float.
        return values if values is None else _cast(cells, pa.int64())

    def _numbers(self, cells: "pa.Array[Any]") -> Cells:
        plain = _signed(cells)
        matches = _matching(plain, self._number)
        digits = self._without_marks(_where(matches, plain, None))
        return self._completed(cells, digits.cast(pa.float64()), matches)

    def _whole_numbers(self, cells: "pa.Array[Any]") -> Cells:
        plain = _signed(cells)
        digits = self._without_marks(_where(_matching(plain, self._number), plain, None))
        short = _matching(digits, "^[+-]?[0-9]{1,18}$")  # 19 may be too many
        digits = pc.utf8_ltrim(_where(short, digits, None), "+")
        return self._completed(cells, digits.cast(pa.int64()), short)

    @cached_property
    def _number(self) -> str:
        return f"^(?:{self.reading.number_pattern})$"

    def _without_marks(self, cells: "pa.Array[Any]") -> "pa.Array[Any]":
        reading = self.reading
        marks = (reading.unit, reading.thousands, " " if reading.unit else "")
        for mark in filter(None, marks):
            cells = pc.replace_substring(cells, mark, "")
        if reading.decimal != ".":
            cells = pc.replace_substring(cells, reading.decimal, ".")
        return cells

    # ---- dates ----

    def _moments(self, cells: "pa.Array[Any]") -> Cells:
        found = np.zeros(len(cells), np.int64)
        is_read = np.zeros(len(cells), bool)
        if layouts := list(_layouts(self.reading.form)):
            data, starts, lengths = _texts(cells)
            for layout in layouts:
                places = np.flatnonzero(lengths == len(layout))
                if len(places):
                    values, fits = _fixed_width(data, starts[places], layout)
                    if self.reading.form == "%Y%m%d":  # other digits are no dates
                        fits &= (values >= _1900) & (values < _2100)
                    found[places[fits]], is_read[places[fits]] = values[fits], True
        moments: pa.Array[Any] = pa.array(found, pa.timestamp("us"), mask=~is_read)
        return self._completed(cells, moments, pa.array(is_read))

    # ---- all others ----

    def _each(self, cells: "pa.Array[Any]") -> Cells:
        none: pa.Array[Any] = pa.array(
            [None] * len(cells), STORED.get(self.reading.type, pa.string())
        )
        return self._completed(cells, none, pa.array(np.zeros(len(cells), bool)))

    def _completed(
        self, cells: "pa.Array[Any]", values: "pa.Array[Any]", is_read: "pa.Array[Any]"
    ) -> Cells:
        """Read the clean cells that are present and not read yet, each distinct text once."""
        left = pc.and_not(pc.is_valid(cells), is_read)
        unfit = None
        if pc.any(left).as_py():
            texts = pc.filter(cells, left).dictionary_encode()
            each = [self._value(str(text)) for text in texts.dictionary.to_pylist()]
            table = pa.array([None if x is ... else x for x in each], values.type)
            values = pc.replace_with_mask(values, left, table.take(texts.indices))
            if ... in each:
                misfits = pa.array([x is ... for x in each]).take(texts.indices)
                unfit = pc.replace_with_mask(pa.array(np.zeros(len(cells), bool)), left, misfits)
        if self.reading.type != "number" or _all_finite(values):
            return Cells(cells, values, unfit)
        finite = pc.is_finite(values)
        not_finite = len(values) - values.null_count - (pc.sum(finite).as_py() or 0)
        return Cells(cells, _where(finite, values, None), unfit, not_finite)

    def _value(self, text: str) -> Any:  # noqa: ANN401  a value of any type
        """Return the value of a text; an ellipsis if it does not fit."""
        try:
            value = self.reading.read(text)
        except ValueError:
            return ...
        if self.reading.type == "integer" and value is not None and value not in _INT64:
            return ...
        return value


def plain_decimals(columns: Sequence["pa.ChunkedArray[Any]"]) -> list[bool]:
    """Return which columns of equal length hold plain numbers only, some of them not whole."""
    likely = [place for place, cells in enumerate(columns) if _begins_with_number(cells)]
    found = [False] * len(columns)
    groups = [likely]
    if _numbers_of(columns, likely) is None:  # then each column is looked at alone
        groups = [[place] for place in likely]
    for group in groups:
        values = _numbers_of(columns, group)
        if group and values is not None:
            table = values.reshape(len(group), -1)
            is_fraction = np.isfinite(table) & (table != np.trunc(table))
            for place, is_some in zip(group, is_fraction.any(axis=1).tolist(), strict=True):
                found[place] = is_some
    return found


def _begins_with_number(cells: "pa.ChunkedArray[Any]") -> bool:
    if not len(cells) or not pa.types.is_string(cells.type):
        return False
    first = cells[0].as_py()
    try:
        return first is None or math.isfinite(float(first))
    except ValueError:
        return False


def _numbers_of(
    columns: Sequence["pa.ChunkedArray[Any]"], places: list[int]
) -> "NDArray[np.float64] | None":
    cells = pa.chunked_array(
        [chunk for place in places for chunk in columns[place].chunks], pa.string()
    )
    try:
        return cells.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None


# ---- arrays -------------------------------------------------------------------------------------


def _cast(cells: "pa.Array[Any]", wanted: pa.DataType) -> "pa.Array[Any] | None":
    try:
        return cells.cast(wanted)
    except pa.ArrowInvalid:
        return None


def _matching(cells: "pa.Array[Any]", pattern: str) -> "pa.Array[Any]":
    """Return where a text is present and matches."""
    found: pa.Array[Any] = pc.fill_null(pc.match_substring_regex(cells, pattern), False)
    return found


def _all_finite(values: "pa.Array[Any]") -> bool:
    if not values.null_count:
        return bool(np.isfinite(values.to_numpy()).all())
    return pc.all(pc.is_finite(values)).as_py() is not False


def _where(condition: "pa.Array[Any]", yes: Any, no: Any) -> "pa.Array[Any]":  # noqa: ANN401  arrays or None
    kind = (no if yes is None else yes).type
    yes, no = (pa.scalar(None, kind) if each is None else each for each in (yes, no))
    found: pa.Array[Any] = pc.if_else(condition, yes, no)
    return found


def _bytes(cells: "pa.Array[Any]") -> int:
    """Return the bytes of all texts."""
    offsets = cells.buffers()[1]
    if offsets is None or not len(cells):
        return 0
    ends = np.frombuffer(memoryview(offsets), np.int32)
    return int(ends[cells.offset + len(cells)] - ends[cells.offset])


def _signed(cells: "pa.Array[Any]") -> "pa.Array[Any]":
    """Return the cells with the plain signs for those that some programs write."""
    if pc.all(pc.string_is_ascii(cells)).as_py() is not False:
        return cells
    for sign, plain in SIGNS.items():
        cells = pc.replace_substring(cells, chr(sign), str(plain))
    return cells


def _texts(
    cells: "pa.Array[Any]",
) -> tuple["NDArray[np.uint8]", "NDArray[np.int64]", "NDArray[np.int64]"]:
    """Return the bytes of all texts, and where each begins and its length; a null has none."""
    if cells.null_count:
        cells = pc.fill_null(cells, "")
    _valid, offsets, data = cells.buffers()
    ends = np.frombuffer(memoryview(offsets or b"\0\0\0\0"), np.int32)
    ends = ends[cells.offset : cells.offset + len(cells) + 1]
    content = np.frombuffer(memoryview(data or b""), np.uint8)
    starts = ends[:-1].astype(np.int64)
    return content, starts, ends[1:] - starts


# ---- dates of a fixed width ---------------------------------------------------------------------


def _layouts(form: str) -> Iterator[str]:
    """Yield the texts of a form whose parts have all their digits, such as `dd.mm.YYYY HH:MM`."""
    date = re.sub("%[Yymd]", lambda part: _PARTS[part.group()], form)
    if DATE_FORMS[form] and "%" not in date:
        yield from (date + clock for clock in _CLOCKS)


def _fixed_width(
    data: "NDArray[np.uint8]", starts: "NDArray[np.int64]", layout: str
) -> tuple["NDArray[np.int64]", "NDArray[np.bool_]"]:
    """Return microseconds since 1970 of texts of this layout, and which of them have it."""
    digits = data[starts[:, None] + np.arange(len(layout))] - _DIGIT  # others wrap above 9
    fits = np.ones(len(starts), bool)
    numbers: dict[str, NDArray[np.int64]] = {}
    for place, part in enumerate(layout):
        column = digits[:, place]
        if part.isalpha() and part != "Z":
            fits &= column <= 9
            numbers[part] = numbers.get(part, np.int64(0)) * 10 + column.astype(np.int64)
        elif part == " ":
            fits &= (column == np.uint8((ord(" ") - _DIGIT) & 255)) | (column == ord("T") - _DIGIT)
        else:
            fits &= column == np.uint8((ord(part) - _DIGIT) & 255)
    return _microseconds(numbers, fits)


def _microseconds(
    parts: dict[str, "NDArray[np.int64]"], fits: "NDArray[np.bool_]"
) -> tuple["NDArray[np.int64]", "NDArray[np.bool_]"]:
    if "y" in parts:
        short = parts["y"]
        year = short + np.where(short >= 69, 1900, 2000)  # as POSIX reads them
    else:
        year = parts["Y"]
    month = parts["m"]
    day = parts.get("d", np.int64(1))
    hour, minute, second = (parts.get(part, np.int64(0)) for part in "HMS")
    fits &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    fits &= (hour < 24) & (minute < 60) & (second < 60)
    months = np.where(fits, (year - 1970) * 12 + month - 1, 0)
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    fits &= day <= following - first
    seconds = (first + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    return seconds * 1_000_000, fits
