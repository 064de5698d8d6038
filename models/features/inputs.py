"""The kinds of input column, and how each becomes numbers.

An input encodes the same way in training and in prediction. Knows NumPy only.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from descent.spec import ColumnType
from models.data import Categories, ColumnValues, Floats, Integers
from models.features.widths import PERIODS
from models.reading import Reading, category_key

#: Rare categories of a column that are remembered, 4 bytes each. With more of them, each category
#: that is not among the most frequent ones counts as rare.
MAX_RARE = 100_000
#: A phase whose sine and cosine vary by less than this over the training rows is left out.
CONSTANT = 1e-6
#: Values are clipped at this many widths of the training rows' range beyond that range. A line may
#: be continued far outside, but a number such as 1e300 would overflow the net's float32.
REACH = 1e6
LARGEST = float(np.finfo(np.float64).max)

Matrix: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Numeric:
    """A number, an integer or a boolean; a missing value becomes the training rows' mean."""

    kind: ClassVar[str] = "scalar"
    name: str
    type: ColumnType
    #: Training rows without a value. If there are any, a second number marks missing values.
    missing: int
    mean: float
    std: float
    #: None if no training row has a value.
    min: float | None
    max: float | None
    #: Values are clipped to these limits before they are encoded.
    least: float
    most: float
    #: A value is encoded as (value - center) / scale. They are mean and std, or 0 and 1 if the run
    #: does not standardise.
    center: float
    scale: float
    #: How the text of cells is read; None in models of earlier versions.
    reading: Reading | None = None

    @property
    def width(self) -> int:
        return 1 + bool(self.missing)

    @cached_property
    def gaps(self) -> frozenset[float]:
        """The numbers that mean missing."""
        return self.reading.missing_numbers if self.reading else frozenset()

    @property
    def labels(self) -> list[str]:
        return [self.name, f"{self.name} is missing"][: self.width]

    def encode(self, column: ColumnValues, out: Matrix) -> None:
        """Write the encoded values of a column, (rows,), into `out`, (rows, width)."""
        values = _clipped(column, self.least, self.most)
        gaps = np.isnan(values)
        # Computed in float64 and rounded once, by `out`.
        out[:, 0] = (np.where(gaps, self.mean, values) - self.center) / self.scale
        if self.missing:
            out[:, 1] = gaps

    def scaling(self) -> list[tuple[float, float]]:
        """Return the center and the scale of each encoded number."""
        return [(self.center, self.scale), (0.0, 1.0)][: self.width]

    def signature(self) -> dict[str, Any]:
        limits = {} if self.type == "boolean" else _limits(self)
        return _signature(self, _average(self) | limits)


@dataclass(frozen=True)
class Moment:
    """A datetime: the standardised time, and its phase in the day, the week and the year.

    The time is standardised even if the run does not standardise numbers: float32 cannot hold
    seconds since 1970.
    """

    kind: ClassVar[str] = "moment"
    name: str
    type: ColumnType
    missing: int
    mean: float
    std: float
    min: float | None
    max: float | None
    #: Values are clipped to these limits before they are encoded.
    least: float
    most: float
    #: The names in `PERIODS` whose phase varied over the training rows.
    parts: tuple[str, ...]
    #: How the text of cells is read; None in models of earlier versions.
    reading: Reading | None = None

    @property
    def width(self) -> int:
        return 1 + 2 * len(self.parts) + bool(self.missing)

    @cached_property
    def gaps(self) -> frozenset[float]:
        """The numbers that mean missing."""
        return self.reading.missing_numbers if self.reading else frozenset()

    @property
    def labels(self) -> list[str]:
        parts = [f"{self.name}.{part}.{axis}" for part in self.parts for axis in ("sin", "cos")]
        return [self.name, *parts, f"{self.name} is missing"][: self.width]

    def encode(self, column: ColumnValues, out: Matrix) -> None:
        """Write the encoded values of a column, (rows,), into `out`, (rows, width)."""
        values = _clipped(column, self.least, self.most)
        gaps = np.isnan(values)
        seconds = np.where(gaps, self.mean, values)
        out[:, 0] = (seconds - self.mean) / (self.std or 1.0)
        for index, part in enumerate(self.parts):
            phase = phase_of(seconds, part)
            out[:, 1 + 2 * index] = np.sin(phase)
            out[:, 2 + 2 * index] = np.cos(phase)
        if self.missing:
            out[:, -1] = gaps

    def scaling(self) -> list[tuple[float, float]]:
        return [(self.mean, self.std or 1.0), *[(0.0, 1.0)] * (self.width - 1)]

    def signature(self) -> dict[str, Any]:
        return _signature(self, _average(self) | _limits(self))


@dataclass(frozen=True)
class Choice:
    """One of the categories seen in training, encoded as one 0 or 1 per category (one-hot).

    A missing, rare or unknown value sets the last number, `other`, if training rows had such
    values. Otherwise it is encoded like the average training row: as each category's share.
    """

    kind: ClassVar[str] = "choice"
    name: str
    type: ColumnType
    missing: int
    #: Most frequent first.
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    #: Training rows whose category is not among `categories`.
    rare: int
    #: How the text of cells is read; None in models of earlier versions.
    reading: Reading | None = None
    #: Remembers the rare categories: the CRC-32 of the key of each, ascending, as base64. Empty if
    #: there are more than MAX_RARE. An unknown category passes for a rare one in 1 of 40 000 cases.
    rare_marks: str = ""

    @property
    def has_other(self) -> bool:
        return self.missing + self.rare > 0

    @property
    def width(self) -> int:
        return len(self.categories) + self.has_other

    @property
    def labels(self) -> list[str]:
        return [f"{self.name}={value}" for value in (*self.categories, "other")][: self.width]

    @cached_property
    def index(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.categories)}

    @cached_property
    def keys(self) -> dict[str, str]:
        """The category by its key: of several with the same key the most frequent one."""
        return {category_key(value): value for value in reversed(self.categories)}

    def is_rare(self, value: str) -> bool:
        """Return whether training rows had this category, which is not among `categories`."""
        if self.reading is None or not self.rare:
            return False
        return not self.rare_marks or mark(value) in self._rare

    @cached_property
    def _rare(self) -> frozenset[int]:
        marks = np.frombuffer(base64.b64decode(self.rare_marks), "<u4")
        return frozenset(marks.tolist())

    def encode(self, column: ColumnValues, out: Matrix) -> None:
        """Write the encoded values of a column, (rows,), into `out`, (rows, width)."""
        codes = self.codes(column)
        known = np.flatnonzero(codes >= 0)
        out[:] = 0.0
        out[known, codes[known]] = 1.0
        out[codes < 0] = self.stand_in()

    def stand_in(self) -> Floats:
        """Return the encoded numbers, (width,), of a row that has none of the categories."""
        if self.has_other:
            return np.array([0.0] * len(self.categories) + [1.0])
        shares: Floats = np.array(self.counts) / max(1, sum(self.counts))
        return shares

    def codes(self, column: ColumnValues) -> Integers:
        """Return the place in `categories` of each row's value, (rows,); -1 if it is not there."""
        if not isinstance(column, Categories):
            raise TypeError(f"{self.name!r} is a category, got numbers")
        # One entry more than `values`: the code of a missing value, -1, selects the last one.
        places = np.array([*(self.index.get(value, -1) for value in column.values), -1])
        found: Integers = places[column.codes].astype(np.int64)
        return found

    def scaling(self) -> list[tuple[float, float]]:
        return [(0.0, 1.0)] * self.width

    def signature(self) -> dict[str, Any]:
        pairs = zip(self.categories, self.counts, strict=True)
        details = {
            "missing_as": "other" if self.has_other else "shares",
            "categories": [{"value": value, "count": count} for value, count in pairs],
            "rare": self.rare,
        }
        return _signature(self, details)


Input: TypeAlias = Numeric | Moment | Choice
KINDS: dict[str, type[Numeric | Moment | Choice]] = {
    kind.kind: kind for kind in (Numeric, Moment, Choice)
}


def input_to_json(column: Input) -> dict[str, Any]:
    """Return the fields of an input and its kind, ready for JSON."""
    stored = {field.name: getattr(column, field.name) for field in fields(column)}
    # An input without a reading is stored as earlier versions do.
    if column.reading is None:
        del stored["reading"]
    else:
        # Stored even if they are the default ones, which a later version may extend.
        markers = {"missing": list(column.reading.missing)}
        stored["reading"] = column.reading.to_json() | markers
    if not stored.get("rare_marks", True):
        del stored["rare_marks"]
    return {"kind": column.kind} | {
        name: list(each) if isinstance(each, tuple) else each for name, each in stored.items()
    }


def input_from_json(document: Mapping[str, Any]) -> Input:
    """Return a stored input; raises KeyError, TypeError or ValueError if the document is none."""
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.items()
        if key != "kind"
    }
    if stored.get("reading") is not None:
        stored["reading"] = Reading.from_json(stored["reading"])
    return KINDS[document["kind"]](**stored)


def mark(value: str) -> int:
    """Return the mark by which a rare category is remembered."""
    return zlib.crc32(category_key(value).encode())


def reach_of(low: float | None, high: float | None) -> tuple[float, float]:
    """Return the least and the greatest value that are not clipped."""
    if low is None or high is None:
        return -REACH, REACH
    # The range of a constant column has no width: use its absolute value instead.
    margin = REACH * ((high - low) or abs(high) or 1.0)
    return max(low - margin, -LARGEST), min(high + margin, LARGEST)


def phase_of(seconds: Floats, part: str) -> Floats:
    """Return the phase of each time in a period, in radians."""
    # Take the remainder first: the sine of a large argument loses digits.
    return (2 * np.pi / PERIODS[part]) * np.mod(seconds, PERIODS[part])


def _clipped(column: ColumnValues, least: float, most: float) -> Floats:
    if isinstance(column, Categories):
        raise TypeError("expected numbers, got categories")
    # The same as np.clip, in a quarter of the time for one row.
    return np.minimum(np.maximum(column, least), most)


def _limits(column: Numeric | Moment) -> dict[str, Any]:
    return {
        "min": column.min,
        "max": column.max,
        "clip": {"min": column.least, "max": column.most},
    }


def _average(column: Numeric | Moment) -> dict[str, Any]:
    return {"missing_as": "mean", "mean": column.mean, "std": column.std}


def _signature(column: Input, details: dict[str, Any]) -> dict[str, Any]:
    reading = {"reading": column.reading.to_json()} if column.reading else {}
    return {
        "name": column.name,
        "type": column.type,
        "required": column.missing == 0,
        "missing": column.missing,
        **reading,
        **details,
    }
