"""A few rows without anything odd, encoded in as little time as possible. Knows NumPy only.

Gives the very numbers that the general way gives, or None where a value needs a second look.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from models.inputs import Choice, Input, Matrix, Scalar
from models.values import RawValue

#: More rows are read faster column by column.
FEW = 8
#: An encoded number beyond this may overflow float32.
LARGEST = 3e38

#: Writes the values of a column into its part of the matrix; False where one is not plain.
Writer: TypeAlias = Callable[[Sequence[RawValue], Matrix], bool]


class Plain:
    """Encodes rows of plain values for one model."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._width = sum(column.width for column in inputs)
        self._writers: list[tuple[str, Writer]] | None = []
        start = 0
        for column in inputs:
            writer = _writer(column, start)
            if writer is None:
                self._writers = None
                return
            self._writers.append((column.name, writer))
            start += column.width

    def encode(self, columns: Mapping[str, Sequence[RawValue]], rows: int) -> Matrix | None:
        """Return (rows, width) where every column is there, no other, and every value is plain."""
        if self._writers is None or rows > FEW or len(columns) != len(self._writers):
            return None
        out: Matrix = np.zeros((rows, self._width), dtype=np.float32)
        for name, write in self._writers:
            values = columns.get(name)
            if values is None or not write(values, out):
                return None
        return out


def _writer(column: Input, at: int) -> Writer | None:
    if isinstance(column, Choice):
        return _choice_writer(column.index, at)
    if isinstance(column, Scalar) and column.min is not None and column.max is not None:
        return _scalar_writer(column, column.min, column.max, at)
    return None


def _choice_writer(index: Mapping[str, int], at: int) -> Writer:
    def write(values: Sequence[RawValue], out: Matrix) -> bool:
        for row, value in enumerate(values):
            if type(value) is not str or value not in index:
                return False
            out[row, at + index[value]] = 1.0
        return True

    return write


def _scalar_writer(column: Scalar, low: float, high: float, at: int) -> Writer:
    kinds = {bool} if column.type == "boolean" else {int, float}
    low, high = (0.0, 1.0) if column.type == "boolean" else (low, high)
    center, scale = column.center, column.scale

    def write(values: Sequence[RawValue], out: Matrix) -> bool:
        for row, value in enumerate(values):
            if type(value) not in kinds or not low <= value <= high:  # type: ignore[operator]
                return False
            number = (value - center) / scale  # type: ignore[operator]
            if not -LARGEST < number < LARGEST:
                return False
            out[row, at] = number
        return True

    return write
