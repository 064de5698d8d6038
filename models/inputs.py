"""The kinds of input column: what each remembers of its training rows and how it becomes numbers.

An input encodes the same way while training and while predicting. Knows NumPy only.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.data import TEXTUAL, Categories, Column, ColumnType, Floats, Rows, Table

#: Categories beyond the most frequent share one column: each costs a column of the first layer.
MAX_CATEGORIES = 255
DAY = 86_400.0  # seconds
#: Periods in seconds whose phase a datetime tells; a mean year drifts by a day at most.
PERIODS = {"hour": DAY, "weekday": 7 * DAY, "day_of_year": 365.2425 * DAY}
#: A part of a datetime that moves less than this over the training rows says nothing.
CONSTANT = 1e-6
#: How far beyond the training rows' range a value is used as it is, in widths of that range: a
#: line may well be drawn far out, but numbers such as 1e300 must not overflow the net's float32.
REACH = 1e6
LARGEST = float(np.finfo(np.float64).max)

Matrix: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scalar:
    """A number, an integer or a boolean; a missing one becomes the training rows' mean."""

    kind: ClassVar[str] = "scalar"
    name: str
    type: ColumnType
    #: How many training rows had no value; with any, an indicator column says which.
    missing: int
    mean: float
    std: float
    #: None where every training row is missing.
    min: float | None
    max: float | None
    #: What values are clipped to before they are encoded.
    least: float
    most: float
    #: What is subtracted and divided by: mean and std, or 0 and 1 where values stay as they are.
    center: float
    scale: float

    @property
    def width(self) -> int:
        return 1 + bool(self.missing)

    @property
    def labels(self) -> list[str]:
        return [self.name, f"{self.name} is missing"][: self.width]

    def encode(self, column: Column, out: Matrix) -> None:
        values = _clipped(column, self.least, self.most)
        gaps = np.isnan(values)
        # In float64 up to here; `out` rounds, once.
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
    """A datetime: the standardised time and its phase in day, week and year.

    The time is standardised even where numbers stay as they are: float32 cannot hold seconds
    since 1970.
    """

    kind: ClassVar[str] = "moment"
    name: str
    type: ColumnType
    missing: int
    mean: float
    std: float
    min: float | None
    max: float | None
    #: What values are clipped to before they are encoded.
    least: float
    most: float
    #: The names in `PERIODS` whose phase varied over the training rows.
    parts: tuple[str, ...]

    @property
    def width(self) -> int:
        return 1 + 2 * len(self.parts) + bool(self.missing)

    @property
    def labels(self) -> list[str]:
        parts = [f"{self.name}.{part}.{axis}" for part in self.parts for axis in ("sin", "cos")]
        return [self.name, *parts, f"{self.name} is missing"][: self.width]

    def encode(self, column: Column, out: Matrix) -> None:
        values = _clipped(column, self.least, self.most)
        gaps = np.isnan(values)
        seconds = np.where(gaps, self.mean, values)
        out[:, 0] = (seconds - self.mean) / (self.std or 1.0)
        for index, part in enumerate(self.parts):
            phase = _phase(seconds, part)
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
    """One of the categories seen in training, as a column of 0 and 1 each.

    A missing, rare or unknown value sets the column `other` where training rows had such values,
    else it is the average training row: each category's share.
    """

    kind: ClassVar[str] = "choice"
    name: str
    type: ColumnType
    missing: int
    #: The most frequent first.
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    #: Training rows whose category is not among `categories`.
    rare: int

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

    def encode(self, column: Column, out: Matrix) -> None:
        codes = self.codes(column)
        known = np.flatnonzero(codes >= 0)
        out[:] = 0.0
        out[known, codes[known]] = 1.0
        out[codes < 0] = self.stand_in()

    def stand_in(self) -> Floats:
        """Return the numbers of a row that has none of the categories."""
        if self.has_other:
            return np.array([0.0] * len(self.categories) + [1.0])
        shares: Floats = np.array(self.counts) / max(1, sum(self.counts))
        return shares

    def codes(self, column: Column) -> Rows:
        """Return the place in `categories` per row, -1 where it has none."""
        if not isinstance(column, Categories):
            raise TypeError(f"{self.name!r} is a category, got numbers")
        # One entry more than values: a missing value's code, -1, finds the last.
        places = np.array([*(self.index.get(value, -1) for value in column.values), -1])
        found: Rows = places[column.codes].astype(np.int64)
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


Input: TypeAlias = Scalar | Moment | Choice
KINDS: dict[str, type[Scalar | Moment | Choice]] = {
    kind.kind: kind for kind in (Scalar, Moment, Choice)
}


def fit_input(table: Table, name: str, rows: Rows, *, standardize: bool) -> Input:
    """Learn how to encode a column from the training rows."""
    column_type = table.types[name]
    if column_type in TEXTUAL:
        return _fit_choice(table.categories(name), name, column_type, rows)
    values = table.numbers(name)[rows]
    values = values[~np.isnan(values)]
    mean, std = _mean_and_std(values) if len(values) else (0.0, 0.0)
    low, high = (float(values.min()), float(values.max())) if len(values) else (None, None)
    missing = len(rows) - len(values)
    seen = (name, column_type, missing, mean, std, low, high, *_reach(low, high))
    if column_type == "datetime":
        return Moment(*seen, _moving_parts(values))
    scaled = standardize and column_type != "boolean"
    center, scale = (mean, std or 1.0) if scaled else (0.0, 1.0)
    return Scalar(*seen, center, scale)


def input_to_json(column: Input) -> dict[str, Any]:
    return {"kind": column.kind} | asdict(column)


def input_from_json(document: Mapping[str, Any]) -> Input:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.items()
        if key != "kind"
    }
    return KINDS[document["kind"]](**fields)


def estimate_width(columns: list[dict[str, Any]]) -> int:
    """Return the width that these columns of a dataset's profile will have, without the data."""
    return sum(map(_estimate_column, columns))


def _estimate_column(profile: dict[str, Any]) -> int:
    missing = bool(profile.get("missing"))
    if profile["type"] in TEXTUAL:
        distinct = int(profile.get("distinct") or 1)
        return min(distinct, MAX_CATEGORIES) + (missing or distinct > MAX_CATEGORIES)
    if profile["type"] == "datetime":
        return 1 + 2 * len(PERIODS) + missing
    return 1 + missing


def _fit_choice(column: Categories, name: str, column_type: ColumnType, rows: Rows) -> Choice:
    codes = column.codes[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.values))
    pairs = zip(counts.tolist(), column.values, strict=True)
    seen = [(count, value) for count, value in pairs if count]
    seen.sort(key=lambda pair: (-pair[0], pair[1]))
    kept = seen[:MAX_CATEGORIES]
    return Choice(
        name,
        column_type,
        missing=int((codes < 0).sum()),
        categories=tuple(value for _, value in kept),
        counts=tuple(count for count, _ in kept),
        rare=sum(count for count, _ in seen[MAX_CATEGORIES:]),
    )


def _mean_and_std(values: Floats) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean()), float(values.std())
    if math.isfinite(mean) and math.isfinite(std):
        return mean, std
    # Their sum or their squares are beyond float64, they are not.
    size = float(np.abs(values).max())
    return float((values / size).mean()) * size, float((values / size).std()) * size


def _reach(low: float | None, high: float | None) -> tuple[float, float]:
    """Return the least and the greatest value that are encoded as they are."""
    if low is None or high is None:
        return -REACH, REACH
    # A constant column has no width: its size stands in.
    margin = REACH * ((high - low) or abs(high) or 1.0)
    return max(low - margin, -LARGEST), min(high + margin, LARGEST)


def _moving_parts(seconds: Floats) -> tuple[str, ...]:
    if len(seconds) == 0:
        return ()
    return tuple(
        part
        for part in PERIODS
        if max(np.ptp(np.sin(_phase(seconds, part))), np.ptp(np.cos(_phase(seconds, part))))
        > CONSTANT
    )


def _phase(seconds: Floats, part: str) -> Floats:
    # The remainder first: the sine of a large argument loses digits.
    return (2 * np.pi / PERIODS[part]) * np.mod(seconds, PERIODS[part])


def _clipped(column: Column, least: float, most: float) -> Floats:
    if isinstance(column, Categories):
        raise TypeError("expected numbers, got categories")
    # What np.clip does, in a quarter of its time for one row.
    return np.minimum(np.maximum(column, least), most)


def _limits(column: Scalar | Moment) -> dict[str, Any]:
    return {
        "min": column.min,
        "max": column.max,
        "clip": {"min": column.least, "max": column.most},
    }


def _average(column: Scalar | Moment) -> dict[str, Any]:
    return {"missing_as": "mean", "mean": column.mean, "std": column.std}


def _signature(column: Input, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "required": column.missing == 0,
        "missing": column.missing,
    } | details
