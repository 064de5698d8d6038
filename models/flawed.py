"""Rows with the usual flaws, read without an array for each column.

These are values that are missing, numbers out of range and columns that the model does not know.
They become the numbers and the problems that `Predictor.read` and `Features.encode` make of them,
in a tenth of their time. Of rows with other flaws this says nothing: the long way answers them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.features import Features
from models.inputs import LARGEST, Choice, Input, Moment, Scalar
from models.plain import NUMBERS, needs_the_long_way, placed
from models.values import Problem, Problems, missing, range_problems, unknown_column


class Cell(Protocol):
    """Encodes the values of one column, which is in one place among the numbers of a row."""

    def put(self, value: Any, numbers: list[float]) -> Sequence[Problem] | None:  # noqa: ANN401  what JSON holds
        """Put a value among the numbers, which are 0; return its problems, None: the long way."""


class FlawedRows:
    """Encodes the rows of one model."""

    def __init__(self, features: Features) -> None:
        #: whether this model can have such rows at all
        self._is_possible = not any(map(needs_the_long_way, features.inputs))
        self._width = features.width
        self._targets = [output["name"] for output in features.target.signature()]
        columns = placed(features.inputs) if self._is_possible else ()
        self._cells = {column.name: _cell(column, at) for column, at in columns}

    def encode(self, rows: Sequence[Any]) -> tuple[NDArray[np.float32], Problems] | None:
        """Return float32 (rows, width) and what is odd, or None where that takes the long way."""
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
    def __init__(self, column: Scalar, at: int) -> None:
        self._column, self._at = column, at
        self._missing = (missing(column),)

    def _put(self, number: float, numbers: list[float]) -> None:
        numbers[self._at] = (number - self._column.center) / self._column.scale

    def _put_nothing(self, numbers: list[float]) -> Sequence[Problem]:
        self._put(self._column.mean, numbers)
        if self._column.missing:
            numbers[self._at + 1] = 1.0
        return self._missing


class _Number(_Scalar):
    def put(self, value: Any, numbers: list[float]) -> Sequence[Problem] | None:  # noqa: ANN401  what JSON holds
        if value is None:
            return self._put_nothing(numbers)
        if type(value) not in NUMBERS or not -LARGEST <= value <= LARGEST:
            return None
        number, column = float(value), self._column
        self._put(min(max(number, column.least), column.most), numbers)
        return list(range_problems(column, number))


class _Boolean(_Scalar):
    def put(self, value: Any, numbers: list[float]) -> Sequence[Problem] | None:  # noqa: ANN401  what JSON holds
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

    def put(self, value: Any, numbers: list[float]) -> Sequence[Problem] | None:  # noqa: ANN401  what JSON holds
        if value is None:
            numbers[self._slice] = self._stand_in
            return self._missing
        place = self._places.get(value) if type(value) is str else None
        if place is None:
            return None
        numbers[place] = 1.0
        return ()
