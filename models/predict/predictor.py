"""Predictions of a checkpoint for rows of values. Knows no torch: the API predicts without it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.data import Floats, Table
from models.features.encoding import Features
from models.features.inputs import LARGEST, Choice, Input, Matrix, Moment, Numeric
from models.features.targets import ClassTarget, Label, NumberTargets
from models.model import Model, load
from models.predict.intervals import Calibration, of_document
from models.predict.values import (
    Problems,
    RawValue,
    ValueProblem,
    missing,
    note_unknown,
    range_problems,
    read_column,
)

#: name, place among the encoded numbers, least and greatest plain value, center, scale
NumberPlace: TypeAlias = tuple[str, int, float, float, float, float]
#: name, place, the encodings of false and true
BooleanPlace: TypeAlias = tuple[str, int, tuple[float, float]]
#: name; for each category its place and the number to put there
CategoryPlace: TypeAlias = tuple[str, Mapping[str, tuple[int, float]]]

#: Rows with an encoded number beyond this are computed in float64; the unit is mostly standard
#: deviations.
FAR = 16.0
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
    if isinstance(column, Moment):
        return True
    if column.type == "boolean":
        return False
    # A number within the range may mean missing.
    return (
        column.min is None
        or column.max is None
        or any(column.min <= gap <= column.max for gap in column.gaps)
    )


class Cell(Protocol):
    """Encodes the values of one column into its place among a row's numbers."""

    def put(self, value: RawValue, numbers: list[float]) -> Sequence[ValueProblem] | None:
        """Put a value among the numbers, which are 0 before, and return its problems.

        None means that the row must take the long way.
        """


class FlawedRows:
    """Encodes the flawed rows of a model."""

    def __init__(self, features: Features) -> None:
        #: whether rows of this model can be read here
        self._is_possible = not any(map(needs_the_long_way, features.inputs))
        self._features = features
        self._width = features.width
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
        others = dict.fromkeys(name for row in rows for name in row if name not in self._cells)
        unknown = ((name, [row.get(name) for row in rows]) for name in others)
        note_unknown(unknown, self._features, problems)
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
    def put(self, value: RawValue, numbers: list[float]) -> Sequence[ValueProblem] | None:
        if value is None:
            return self._put_nothing(numbers)
        if type(value) is not float and type(value) is not int:  # nor bool, a subclass of int
            return None
        if not -LARGEST <= value <= LARGEST:
            return None
        number, column = float(value), self._column
        if number in column.gaps:
            return self._put_nothing(numbers)
        self._put(min(max(number, column.least), column.most), numbers)
        return list(range_problems(column, number))


class _Boolean(_Scalar):
    def put(self, value: RawValue, numbers: list[float]) -> Sequence[ValueProblem] | None:
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

    def put(self, value: RawValue, numbers: list[float]) -> Sequence[ValueProblem] | None:
        if value is None:
            numbers[self._slice] = self._stand_in
            return self._missing
        place = self._places.get(value) if type(value) is str else None
        if place is None:
            return None
        numbers[place] = 1.0
        return ()


#: Problems that are errors if the client asked for errors; all others are always warnings.
STRICT = frozenset({"unknown_category", "wrong_type", "non_finite"})
NOT_FINITE = ValueProblem(
    "", "non_finite", "the net's output is not finite; check this row for extreme numbers"
)

Value: TypeAlias = Label | dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one row: a value, or None and the error."""

    #: In the target's own type; with several targets an object by target.
    value: Value
    #: By class, in the order of the classes; None for a regression.
    probabilities: dict[str, float] | None = None
    warnings: Sequence[ValueProblem] = ()
    error: ValueProblem | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row of the API's answer, without empty fields."""
        row: dict[str, Any] = {"value": self.value}
        if self.probabilities is not None:
            row["probabilities"] = self.probabilities
        if self.warnings:
            row["warnings"] = [warning.to_json() for warning in self.warnings]
        if self.error:
            row["error"] = self.error.to_json()
        return row


@dataclass(frozen=True)
class Predictor:
    """Answers rows of values with a model."""

    model: Model

    @classmethod
    def load(cls, source: Path | bytes) -> "Predictor":
        """Read a checkpoint from a file or its bytes; raises `CheckpointCorrupt`."""
        return cls(load(source))

    @cached_property
    def features(self) -> Features:
        return self.model.features

    @property
    def document(self) -> Mapping[str, Any]:
        """The checkpoint's document: configuration, metrics, environment and more."""
        return self.model.document

    @cached_property
    def calibration(self) -> Calibration | None:
        """How sure the predictions are; None if the model was made without rows that tell.

        Raises `CheckpointCorrupt`.
        """
        return of_document(self.document, self.features.target, self.features.width)

    def predict(
        self,
        columns: Mapping[str, Sequence[RawValue]],
        rows: int,
        *,
        on_problem: Literal["warn", "error"] = "warn",
        from_text: bool = False,
    ) -> list[Prediction]:
        """Predict `rows` rows, in order; a bad row never changes the prediction of another.

        `columns` holds (rows,) values by name, None for a missing one; an absent column is missing
        in every row. `from_text` means that all values are text, as in CSV: then a number as text
        gives no warning.
        """
        problems = Problems()
        table = self.read(columns, rows, problems, from_text=from_text)
        decoded, is_finite = self._decode(self.outputs_with_care(self.features.encode(table)))
        values = self._values(decoded)
        broken = set(np.flatnonzero(~is_finite).tolist())
        for row in sorted(problems.rows.keys() | broken):
            found = problems.rows.get(row, [])
            refused = self._refused(found) if on_problem == "error" else None
            if refused is not None:
                causes = [problem.cause for problem in found if problem is not refused]
                values[row] = Prediction(None, None, causes, refused.cause)
            elif row in broken:
                values[row] = Prediction(None, None, found, NOT_FINITE)
            else:
                values[row] = Prediction(values[row].value, values[row].probabilities, found)
        return values

    @cached_property
    def plain(self) -> PlainRows:
        """The reader of plain rows."""
        return PlainRows(self.features)

    @cached_property
    def flawed(self) -> FlawedRows:
        """The reader of rows with the usual problems."""
        return FlawedRows(self.features)

    def flawed_predictions(self, rows: Sequence[Any]) -> list[Prediction] | None:
        """Return the same as `predict` for a few rows; None if a row must take the long way."""
        read = self.flawed.encode(rows)
        if read is None:
            return None
        encoded, problems = read
        found = self.plain_predictions(self.outputs_with_care(encoded))
        return found and [
            replace(each, warnings=problems.rows.get(row, ())) for row, each in enumerate(found)
        ]

    def plain_predictions(self, outputs: NDArray[np.float32]) -> list[Prediction] | None:
        """Return the predictions of a few plain rows from the net's outputs (rows, outputs).

        None if an output is far from zero or not finite: such rows must take the long way.
        """
        target = self.features.target
        if isinstance(target, ClassTarget):
            decoded, is_finite = self._decode(outputs)
            return _class_predictions(target, decoded) if is_finite.all() else None
        if not all(-FAR <= number <= FAR for row in outputs.tolist() for number in row):
            return None  # also for NaN
        values = target.decode_few(outputs)
        if not all(isfinite(value) for row in values for value in row):
            return None
        return _number_predictions(target, values)

    def read(
        self,
        columns: Mapping[str, Sequence[RawValue]],
        rows: int,
        problems: Problems,
        *,
        from_text: bool = False,
    ) -> Table:
        """Return the inputs of a request as a table, and add its problems to `problems`."""
        inputs = {column.name: column for column in self.features.inputs}
        absent: Sequence[RawValue] = [None] * rows
        table = Table(
            types={name: column.type for name, column in inputs.items()},
            columns={
                name: read_column(column, columns.get(name, absent), problems, from_text=from_text)
                for name, column in inputs.items()
            },
            rows=rows,
        )
        unknown = ((name, values) for name, values in columns.items() if name not in inputs)
        note_unknown(unknown, self.features, problems)
        return table

    def outputs(self, encoded: Matrix) -> NDArray[np.float32]:
        """Run the net in float32: (rows, width) to (rows, outputs)."""
        return self.model.forward(encoded.astype(np.float32, copy=False))

    def outputs_with_care(self, encoded: Matrix) -> NDArray[np.float32]:
        """Run the net, in float64 for rows whose inputs or outputs are far from the training rows.

        There large terms nearly cancel, and float32 would leave few correct digits.
        """
        is_far = np.abs(encoded).max(axis=1, initial=0.0) > FAR
        if len(is_far) and is_far.all():
            return self.model.forward_precisely(encoded.astype(np.float32))
        outputs = self.outputs(encoded)
        if isinstance(self.features.target, NumberTargets):
            is_far |= ~(np.abs(outputs) <= FAR).all(axis=1)
        far = np.flatnonzero(is_far)
        if len(far):
            outputs[far] = self.model.forward_precisely(encoded[far].astype(np.float32))
        return outputs

    def _decode(self, outputs: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the outputs in the targets' units, and a mask of the rows that are finite.

        A finite output may still overflow in the target's units.
        """
        with np.errstate(all="ignore"):
            decoded = self.features.decode(outputs)
        is_finite = np.isfinite(outputs).all(axis=1) & np.isfinite(decoded).all(axis=1)
        return decoded, np.asarray(is_finite)

    def _values(self, decoded: Floats) -> list[Prediction]:
        target = self.features.target
        if isinstance(target, ClassTarget):
            return _class_predictions(target, decoded)
        return _number_predictions(target, decoded.tolist())

    def _refused(self, found: list[ValueProblem]) -> ValueProblem | None:
        """Return the first problem that is an error if the client asked for errors."""
        required = {column.name for column in self.features.inputs if not column.missing}
        for problem in found:
            missing = problem.code == "missing" and problem.column in required
            if missing or problem.code in STRICT:
                return problem
        return None


def _class_predictions(target: ClassTarget, shares: Floats) -> list[Prediction]:
    labels = target.labels
    return [
        Prediction(target.classes[place], dict(zip(labels, row, strict=True)))
        for place, row in zip(shares.argmax(axis=1).tolist(), shares.tolist(), strict=True)
    ]


def _number_predictions(target: NumberTargets, rows: list[list[float]]) -> list[Prediction]:
    if len(target.names) == 1:
        return [Prediction(value) for (value,) in rows]
    return [Prediction(dict(zip(target.names, row, strict=True))) for row in rows]
