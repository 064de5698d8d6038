"""Rows that nothing is to be said about, read without an array for each column.

Most requests of one row are such: every input is there, numbers lie in the training rows' range and
categories are known. They become the very numbers that `Features.encode` makes of them, in a
twentieth of its time. Of every other row this says nothing: the long way answers it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.features import Features
from models.forward import FAR
from models.inputs import Choice, Input, Moment

#: name, place among the encoded numbers, least and greatest value, what centres it, what scales it
Number: TypeAlias = tuple[str, int, float, float, float, float]
#: name, place, what false and true are encoded as
Boolean: TypeAlias = tuple[str, int, tuple[float, float]]
#: name, the place of each category, and what is encoded there if it is the row's
Category: TypeAlias = tuple[str, Mapping[str, tuple[int, float]]]

NUMBERS = frozenset((int, float))  # and not bool, which is a kind of int


class PlainRows:
    """Encodes the plain rows of one model."""

    def __init__(self, features: Features) -> None:
        columns = list(placed(features.inputs))
        #: whether this model can have plain rows at all
        self.is_possible = not any(needs_the_long_way(column) for column, _ in columns)
        self._count = len(columns)
        self._width = features.width
        center, scale = (numbers.tolist() for numbers in features.centers_and_scales())
        #: each row before its values are put in: no category is its own
        self._blank = [(0.0 - center[at]) / scale[at] for at in range(self._width)]
        ones = [(1.0 - center[at]) / scale[at] for at in range(self._width)]
        self._numbers: list[Number] = []
        self._booleans: list[Boolean] = []
        self._categories: list[Category] = []
        for column, at in columns:
            if isinstance(column, Choice):
                places = {name: (at + by, ones[at + by]) for name, by in column.index.items()}
                self._categories.append((column.name, places))
            elif column.type == "boolean":
                self._booleans.append((column.name, at, (self._blank[at], ones[at])))
            elif column.min is not None and column.max is not None:
                # What is far, even within the range, is computed with care: the long way.
                reach = FAR * scale[at]
                least, most = (
                    max(column.min, center[at] - reach),
                    min(column.max, center[at] + reach),
                )
                self._numbers.append((column.name, at, least, most, center[at], scale[at]))

    def encode(self, rows: Sequence[Any]) -> NDArray[np.float32] | None:
        """Return float32 (rows, width), or None unless every row is plain."""
        if not self.is_possible:
            return None
        encoded = []
        for row in rows:
            if type(row) is not dict or (numbers := self._encoded(row)) is None:
                return None
            encoded.append(numbers)
        return np.array(encoded, np.float32).reshape(len(rows), self._width)

    def _encoded(self, row: dict[str, Any]) -> list[float] | None:
        """Return the numbers of a row in float64, as NumPy would compute them; None: not plain."""
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
    """Yield each column and the place of its first number."""
    place = 0
    for column in inputs:
        yield column, place
        place += column.width


def needs_the_long_way(column: Input) -> bool:
    """Return whether every value of a column does."""
    if isinstance(column, Choice):
        return False
    return isinstance(column, Moment) or (column.type != "boolean" and column.min is None)
