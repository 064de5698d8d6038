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

#: name, place among the encoded numbers, least and greatest value
Number: TypeAlias = tuple[str, int, float, float]
#: name, place of the first category, each category's distance from it
Category: TypeAlias = tuple[str, int, Mapping[str, int]]

_NUMBERS = frozenset((int, float))  # and not bool, which is a kind of int


class PlainRows:
    """Encodes the plain rows of one model."""

    def __init__(self, features: Features) -> None:
        columns = list(_placed(features.inputs))
        #: whether this model can have plain rows at all
        self.is_possible = not any(_needs_the_long_way(column) for column, _ in columns)
        self._count = len(columns)
        self._width = features.width
        self._center, self._scale = features.centers_and_scales()
        self._numbers: list[Number] = []
        self._booleans: list[tuple[str, int]] = []
        self._categories: list[Category] = []
        for column, place in columns:
            if isinstance(column, Choice):
                self._categories.append((column.name, place, column.index))
            elif column.type == "boolean":
                self._booleans.append((column.name, place))
            elif column.min is not None and column.max is not None:
                # What is far, even within the range, is computed with care: the long way.
                center, reach = self._center[place], FAR * self._scale[place]
                least = max(column.min, float(center - reach))
                most = min(column.max, float(center + reach))
                self._numbers.append((column.name, place, least, most))

    def encode(self, rows: Sequence[Any]) -> NDArray[np.float32] | None:
        """Return float32 (rows, width), or None unless every row is plain."""
        if not self.is_possible:
            return None
        encoded = []
        for row in rows:
            if type(row) is not dict or (numbers := self._encoded(row)) is None:
                return None
            encoded.append(numbers)
        values = np.array(encoded, dtype=np.float64).reshape(len(rows), self._width)
        values -= self._center
        values /= self._scale
        with np.errstate(over="ignore"):  # as for every other row, the outputs are checked
            return values.astype(np.float32)

    def _encoded(self, row: dict[str, Any]) -> list[float] | None:
        if len(row) != self._count:
            return None  # a column is missing or unknown
        numbers = [0.0] * self._width
        try:
            for name, place, least, most in self._numbers:
                value = row[name]
                if type(value) not in _NUMBERS or not least <= value <= most:
                    return None
                numbers[place] = value
            for name, place in self._booleans:
                if type(value := row[name]) is not bool:
                    return None
                numbers[place] = value
            for name, place, codes in self._categories:
                if type(value := row[name]) is not str:
                    return None
                numbers[place + codes[value]] = 1.0
        except KeyError:  # a column is missing, or a category unknown
            return None
        return numbers


def _placed(inputs: Sequence[Input]) -> Iterator[tuple[Input, int]]:
    place = 0
    for column in inputs:
        yield column, place
        place += column.width


def _needs_the_long_way(column: Input) -> bool:
    if isinstance(column, Choice):
        return False
    return isinstance(column, Moment) or (column.type != "boolean" and column.min is None)
