"""A faster way to read a few rows: in plain Python, without an array for each column.

Plain rows have no problem: every input is there, numbers lie in the training rows' range and
categories are known. Most requests of one row are plain; they take a twentieth of the time of the
long way. Flawed rows have the usual problems: missing values, numbers out of range, unknown
columns; they take a tenth of its time. Both become the same numbers and problems as by the long
way, `Predictor.read` and `Features.encode`, which reads all other rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.features.encoding import Features
from models.features.inputs import LARGEST, Choice, Input, Moment, Numeric
from models.nets.stack import FAR
from models.predict.values import Problems, ValueProblem, missing, range_problems, unknown_column

#: name, place among the encoded numbers, least and greatest plain value, center, scale
NumberPlace: TypeAlias = tuple[str, int, float, float, float, float]
#: name, place, the encodings of false and true
BooleanPlace: TypeAlias = tuple[str, int, tuple[float, float]]
#: name; for each category its place and the number to put there
CategoryPlace: TypeAlias = tuple[str, Mapping[str, tuple[int, float]]]

NUMBERS = frozenset((int, float))  # without bool, a subclass of int


class PlainRows:
    """Encodes the plain rows of a model."""

    def __init__(self, features: Features) -> None:
        columns = list(placed(features.inputs))
        #: whether rows of this model can be plain
        self.is_possible = not any(needs_the_long_way(column) for column, _ in columns)
        self._count = len(columns)
        self._width = features.width
        center, scale = (numbers.tolist() for numbers in features.centers_and_scales())
        #: the encoded row before its values are put in: zeros, centred and scaled
        self._blank = [(0.0 - center[at]) / scale[at] for at in range(self._width)]
        ones = [(1.0 - center[at]) / scale[at] for at in range(self._width)]
        self._numbers: list[NumberPlace] = []
        self._booleans: list[BooleanPlace] = []
        self._categories: list[CategoryPlace] = []
        for column, at in columns:
            if isinstance(column, Choice):
                places = {name: (at + by, ones[at + by]) for name, by in column.index.items()}
                self._categories.append((column.name, places))
            elif column.type == "boolean":
                self._booleans.append((column.name, at, (self._blank[at], ones[at])))
            elif column.min is not None and column.max is not None:
                # A number far from the center, even within the range, needs float64: the long way.
                reach = FAR * scale[at]
                least, most = (
                    max(column.min, center[at] - reach),
                    min(column.max, center[at] + reach),
                )
                self._numbers.append((column.name, at, least, most, center[at], scale[at]))

    def encode(self, rows: Sequence[Any]) -> NDArray[np.float32] | None:
        """Return float32 (rows, width), or None if a row is not plain."""
        if not self.is_possible:
            return None
        encoded = []
        for row in rows:
            if type(row) is not dict or (numbers := self._encoded(row)) is None:
                return None
            encoded.append(numbers)
        return np.array(encoded, np.float32).reshape(len(rows), self._width)

    def _encoded(self, row: dict[str, Any]) -> list[float] | None:
        """Return a row's encoded numbers in float64, equal to NumPy's; None if it is not plain."""
        if len(row) != self._count:
            return None  # a column is missing or unknown
        numbers = self._blank.copy()
        try:
            for name, place, least, most, center, scale in self._numbers:
                value = row[name]
                if type(value) not in NUMBERS or not least <= value <= most:
                    return None
                numbers[place] = (value - center) / scale
            for name, place, encoded in self._booleans:
                if type(value := row[name]) is not bool:
                    return None
                numbers[place] = encoded[value]
            for name, places in self._categories:
                if type(value := row[name]) is not str:
                    return None
                place, one = places[value]
                numbers[place] = one
        except KeyError:  # a column is missing, or a category unknown
            return None
        return numbers


def placed(inputs: Sequence[Input]) -> Iterator[tuple[Input, int]]:
    """Yield each column and the place of its first encoded number."""
    place = 0
    for column in inputs:
        yield column, place
        place += column.width


def needs_the_long_way(column: Input) -> bool:
    """Return whether the short way cannot read this column at all."""
    if isinstance(column, Choice):
        return False
    return isinstance(column, Moment) or (column.type != "boolean" and column.min is None)


class Cell(Protocol):
    """Encodes the values of one column into its place among a row's numbers."""

    def put(self, value: Any, numbers: list[float]) -> Sequence[ValueProblem] | None:  # noqa: ANN401  what JSON holds
        """Put a value among the numbers, which are 0 before, and return its problems.

        None means that the row must take the long way.
        """


class FlawedRows:
    """Encodes the flawed rows of a model."""

    def __init__(self, features: Features) -> None:
        #: whether rows of this model can be read here
        self._is_possible = not any(map(needs_the_long_way, features.inputs))
        self._width = features.width
        self._targets = [output["name"] for output in features.target.signature()]
        columns = placed(features.inputs) if self._is_possible else ()
        self._cells = {column.name: _cell(column, at) for column, at in columns}

    def encode(self, rows: Sequence[Any]) -> tuple[NDArray[np.float32], Problems] | None:
        """Return float32 (rows, width) and the problems; None if a row must take the long way."""
        if not self._is_possible:
            return None
        problems, encoded = Problems(), []
        for place, row in enumerate(rows):
            if type(row) is not dict:
                return None
            numbers = [0.0] * self._width
            for name, cell in self._cells.items():
                found = cell.put(row.get(name), numbers)
                if found is None:
                    return None
                for problem in found:
                    problems.add((place,), problem)
            encoded.append(numbers)
        for name in dict.fromkeys(name for row in rows for name in row if name not in self._cells):
            unknown_column(name, [row.get(name) for row in rows], self._targets, problems)
        with np.errstate(over="ignore"):  # as in `Features.encode`
            return np.array(encoded, np.float32).reshape(len(rows), self._width), problems


def _cell(column: Input, at: int) -> Cell:
    if isinstance(column, Moment):
        raise TypeError(f"{column.name!r} is a datetime: its rows take the long way")
    if isinstance(column, Choice):
        return _Category(column, at)
    return _Boolean(column, at) if column.type == "boolean" else _Number(column, at)


class _Scalar:
    def __init__(self, column: Numeric, at: int) -> None:
        self._column, self._at = column, at
        self._missing = (missing(column),)

    def _put(self, number: float, numbers: list[float]) -> None:
        numbers[self._at] = (number - self._column.center) / self._column.scale

    def _put_nothing(self, numbers: list[float]) -> Sequence[ValueProblem]:
        self._put(self._column.mean, numbers)
        if self._column.missing:
            numbers[self._at + 1] = 1.0
        return self._missing


class _Number(_Scalar):
    def put(self, value: Any, numbers: list[float]) -> Sequence[ValueProblem] | None:  # noqa: ANN401  what JSON holds
        if value is None:
            return self._put_nothing(numbers)
        if type(value) not in NUMBERS or not -LARGEST <= value <= LARGEST:
            return None
        number, column = float(value), self._column
        self._put(min(max(number, column.least), column.most), numbers)
        return list(range_problems(column, number))


class _Boolean(_Scalar):
    def put(self, value: Any, numbers: list[float]) -> Sequence[ValueProblem] | None:  # noqa: ANN401  what JSON holds
        if value is None:
            return self._put_nothing(numbers)
        if type(value) is not bool:
            return None
        self._put(float(value), numbers)
        return ()


class _Category:
    def __init__(self, column: Choice, at: int) -> None:
        self._places = {name: at + by for name, by in column.index.items()}
        self._slice = slice(at, at + column.width)
        self._missing = (missing(column),)
        self._stand_in = column.stand_in().tolist()

    def put(self, value: Any, numbers: list[float]) -> Sequence[ValueProblem] | None:  # noqa: ANN401  what JSON holds
        if value is None:
            numbers[self._slice] = self._stand_in
            return self._missing
        place = self._places.get(value) if type(value) is str else None
        if place is None:
            return None
        numbers[place] = 1.0
        return ()
