"""How the encoding of columns is learned from the training rows, a block of rows at a time.

Beside a block only a few numbers per column are in memory, and one count per category. Knows NumPy
only.
"""

import base64
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from descent.spec import TEXTUAL, ColumnType
from models.data import Categories, ColumnValues, Floats, Integers, Table, take
from models.features.inputs import (
    CONSTANT,
    MAX_RARE,
    Choice,
    Input,
    Moment,
    Numeric,
    mark,
    phase_of,
    reach_of,
)
from models.features.widths import MAX_CATEGORIES, PERIODS
from models.reading import Reading


def fit_inputs(
    table: Table, names: list[str], rows: Integers, *, standardize: bool
) -> tuple[Input, ...]:
    """Learn from the training rows, which must be ascending, how to encode these columns."""
    fits = [_start(table, name, standardize=standardize) for name in names]
    for block, (places,) in table.blocks(names, [rows]):
        for fit in fits:
            fit.add(take(block.columns[fit.name], places))
    return tuple(fit.result() for fit in fits)


def _start(table: Table, name: str, *, standardize: bool) -> "NumberFit | ChoiceFit":
    column_type, reading = table.types[name], table.readings.get(name)
    if column_type in TEXTUAL:
        return ChoiceFit(name, column_type, reading)
    return NumberFit(name, column_type, reading, standardize=standardize)


@dataclass
class Moments:
    """The mean, the standard deviation and the limits of numbers that come in blocks.

    The moments of blocks are joined as by Chan, Golub and LeVeque (1979). Those of one block are
    its own, to the last bit.
    """

    count: int = 0
    mean: float = 0.0
    std: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: Floats) -> None:
        """Add numbers without gaps, (rows,)."""
        if len(values):
            low, high = float(values.min()), float(values.max())
            # The rounded mean of equal numbers may be another number.
            mean, std = _mean_and_std(values) if low < high else (low, 0.0)
            self.join(Moments(len(values), mean, std, low, high))

    def join(self, other: "Moments") -> None:
        """Add the moments of another block, which is not empty."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if not self.count:
            self.count, self.mean, self.std = other.count, other.mean, other.std
            return
        count = self.count + other.count
        ours, theirs = self.count / count, other.count / count
        root = math.sqrt(ours * theirs)
        # Each product is finite where a difference of large numbers or a square may not be.
        between = root * other.mean - root * self.mean
        self.std = math.hypot(math.sqrt(ours) * self.std, math.sqrt(theirs) * other.std, between)
        self.mean += theirs * other.mean - theirs * self.mean
        self.count = count


class NumberFit:
    """Learns a column of numbers, booleans or datetimes."""

    def __init__(
        self, name: str, column_type: ColumnType, reading: Reading | None, *, standardize: bool
    ) -> None:
        self.name, self.type, self.reading = name, column_type, reading
        self.is_scaled = standardize and column_type != "boolean"
        self.missing = 0
        self.moments = Moments()
        #: the periods whose phase has not varied so far, with the limits of its sine and cosine
        self.still = {part: (np.full(2, np.inf), np.full(2, -np.inf)) for part in PERIODS}

    def add(self, column: ColumnValues) -> None:
        """Learn from the next training rows."""
        if isinstance(column, Categories):
            raise TypeError(f"{self.name!r} holds numbers, got categories")
        values = column[~np.isnan(column)]
        self.missing += len(column) - len(values)
        self.moments.add(values)
        if self.type == "datetime" and len(values):
            self._follow(values)

    def _follow(self, seconds: Floats) -> None:
        for part, (low, high) in list(self.still.items()):
            phase = phase_of(seconds, part)
            axes = np.stack([np.sin(phase), np.cos(phase)])
            np.minimum(low, axes.min(axis=1), out=low)
            np.maximum(high, axes.max(axis=1), out=high)
            if (high - low).max() > CONSTANT:
                del self.still[part]

    def result(self) -> Input:
        seen = self.moments
        low, high = (seen.low, seen.high) if seen.count else (None, None)
        common = (self.name, self.type, self.missing, seen.mean, seen.std, low, high)
        limits = reach_of(low, high)
        if self.type == "datetime":
            moving = tuple(p for p in PERIODS if seen.count and p not in self.still)
            return Moment(*common, *limits, moving, self.reading)
        center, scale = (seen.mean, seen.std or 1.0) if self.is_scaled else (0.0, 1.0)
        return Numeric(*common, *limits, center, scale, self.reading)


class ChoiceFit:
    """Learns a column of categories."""

    def __init__(self, name: str, column_type: ColumnType, reading: Reading | None) -> None:
        self.name, self.type, self.reading = name, column_type, reading
        self.missing = 0
        self.counts: Counter[str] = Counter()

    def add(self, column: ColumnValues) -> None:
        """Learn from the next training rows."""
        if not isinstance(column, Categories):
            raise TypeError(f"{self.name!r} holds categories, got numbers")
        present = column.codes[column.codes >= 0]
        self.missing += len(column.codes) - len(present)
        counts = np.bincount(present, minlength=len(column.values))
        seen = np.flatnonzero(counts)
        for code, count in zip(seen.tolist(), counts[seen].tolist(), strict=True):
            self.counts[column.values[code]] += count

    def result(self) -> Input:
        ranked = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        kept, rare = ranked[:MAX_CATEGORIES], ranked[MAX_CATEGORIES:]
        return Choice(
            self.name,
            self.type,
            missing=self.missing,
            categories=tuple(value for value, _ in kept),
            counts=tuple(count for _, count in kept),
            rare=sum(count for _, count in rare),
            reading=self.reading,
            rare_marks=_rare_marks(value for value, _ in rare) if self.reading else "",
        )


def _rare_marks(values: Iterable[str]) -> str:
    marks = np.unique(np.fromiter(map(mark, values), "<u4"))
    return base64.b64encode(marks.tobytes()).decode() if len(marks) <= MAX_RARE else ""


def _mean_and_std(values: Floats) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean()), float(values.std())
    if math.isfinite(mean) and math.isfinite(std):
        return mean, std
    # The numbers fit float64, but their sum or their squares do not: scale them down first.
    size = float(np.abs(values).max())
    return float((values / size).mean()) * size, float((values / size).std()) * size
