"""Predictions for all rows of a stored table, column by column instead of row by row.

A value is read as in a request (`predict.values`), but equal texts only once and numbers in one
call. Knows NumPy and Arrow; the caller passes one batch of rows after the other.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from descent.spec import ColumnType
from models.data import Categories, ColumnValues, Floats, Integers, Table, take
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.features.inputs import Choice, Input, Moment, Numeric
from models.features.targets import ClassTarget
from models.predict.intervals import ClassCalibration, LineCalibration, NumberCalibration
from models.predict.predictor import NOT_FINITE, STRICT, Predictor
from models.predict.values import Problems, RawValue, ValueProblem, read_column

#: Numbers that the net holds at a time: few enough for the processor's cache and the memory.
BLOCK_CELLS = 2**18
BLOCK_ROWS = (16, 8192)
NUMBERS: frozenset[str] = frozenset({"number", "integer"})

Values: TypeAlias = "pa.Array[Any]"
#: Called between two blocks of rows; raises an exception to end the work.
Pulse = Callable[[], None]


@dataclass(frozen=True)
class Answers:
    """The answers to a batch of rows, as columns."""

    #: the class if there is one, a column per output, the warnings, the errors; (rows,) each
    columns: list[Values]
    #: rows without a prediction
    errors: int
    #: rows that have a warning, by its code
    warnings: dict[str, int]


class Bulk:
    """Predicts batches of a table."""

    def __init__(
        self,
        predictor: Predictor,
        types: Mapping[str, ColumnType],
        on_problem: Literal["warn", "error"],
        level: float | None = None,
    ) -> None:
        """`level` is that of intervals or sets, for a model that has a calibration.

        Raises `CheckpointCorrupt` if it has none.
        """
        self._predictor = predictor
        self._level = level
        self._calibration = None if level is None else predictor.calibration
        if level is not None and self._calibration is None:
            raise CheckpointCorrupt("the model has no calibration")
        self._types = types
        self._on_problem = on_problem
        self._required = {column.name for column in predictor.features.inputs if not column.missing}

    @property
    def features(self) -> Features:
        return self._predictor.features

    @property
    def multiplications(self) -> int:
        """The approximate count of multiplications that the net needs for a row."""
        return self._predictor.model.work

    def predict(self, batch: pa.RecordBatch, pulse: Pulse) -> Answers:
        """Predict the rows of a batch; its columns are found by name, absent ones are missing."""
        texts, notes = Texts(batch.num_rows), Texts(batch.num_rows)
        warnings: Counter[str] = Counter()
        columns: dict[str, ColumnValues] = {}
        for column in self._predictor.features.inputs:
            place = batch.schema.get_field_index(column.name)
            values = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows)
            read = _read(column, values, self._types.get(column.name))
            columns[column.name] = read.column
            self._note(read, texts, notes, warnings)
        outputs, half = self._outputs(columns, batch.num_rows, pulse)
        broken = ~np.isfinite(outputs).all(axis=1) & (texts.places == 0)
        if broken.any():
            texts.add(broken.astype(np.int64), ["", _sentence(NOT_FINITE)])
        failed = texts.places > 0
        answered = [*self._answers(outputs, half, failed), notes.to_arrow(), texts.to_arrow()]
        return Answers(answered, int(failed.sum()), dict(sorted(warnings.items())))

    def _note(
        self, read: "ReadColumn", errors: "Texts", notes: "Texts", counts: Counter[str]
    ) -> None:
        """Note the problems of a column, as errors or as warnings; a row keeps its first error."""
        if len(read.found) == 1:
            return
        places, found = read.places, list(read.found)
        if self._on_problem == "error":
            refused = [self._refused(problems) for problems in found]
            is_refused = np.array([problem is not None for problem in refused])
            hit = is_refused[places] & (errors.places == 0)
            sentences = [_sentence(problem) if problem else "" for problem in refused]
            errors.add(np.where(hit, places, 0), sentences)
            # The problem that is the row's error is not listed among its warnings again.
            rest = [[p for p in found[i] if p is not refused[i]] for i in range(len(found))]
            places, found = np.where(hit, places + len(found), places), found + rest
        numbers = np.bincount(places, minlength=len(found)).tolist()
        for number, problems in zip(numbers, found, strict=True):
            for problem in problems if number else ():
                counts[problem.code] += number
        notes.add(places, ["; ".join(f"{p.column}: {p.code}" for p in ps) for ps in found])

    def _refused(self, problems: Sequence[ValueProblem]) -> ValueProblem | None:
        for problem in problems:
            is_missing = problem.code == "missing" and problem.column in self._required
            if is_missing or problem.code in STRICT:
                return problem
        return None

    def _outputs(
        self, columns: Mapping[str, ColumnValues], rows: int, pulse: Pulse
    ) -> tuple[NDArray[np.float32], Floats]:
        """Return the outputs, and for a line with exact intervals half of their widths."""
        features, line = self._predictor.features, self._calibration
        half = np.zeros((rows, features.outputs))
        types = {column.name: column.type for column in features.inputs}
        outputs = np.empty((rows, features.outputs), np.float32)
        least, most = BLOCK_ROWS
        step = min(most, max(least, BLOCK_CELLS // self._predictor.model.held))
        for start in range(0, rows, step):
            pulse()
            part = slice(start, start + step)
            found = {name: _slice(column, part) for name, column in columns.items()}
            table = Table(types, found, min(step, rows - start))
            outputs[part] = self._predictor.outputs(features.encode(table))
            if isinstance(line, LineCalibration) and self._level is not None:
                encoded = features.encode(table, dtype=np.float64).astype(np.float64, copy=False)
                half[part] = line.half_widths(self._level, encoded)
        return outputs, half

    def _answers(
        self, outputs: NDArray[np.float32], half: Floats, failed: NDArray[np.bool_]
    ) -> Iterator[Values]:
        calibration, level = self._calibration, self._level
        with np.errstate(all="ignore"):  # rows that are not finite are errors already
            decoded = self._predictor.features.decode(outputs)
        target = self._predictor.features.target
        if isinstance(target, ClassTarget):
            best = np.where(failed, 0, np.nan_to_num(decoded).argmax(axis=1))
            classes: Any = pa.array(list[Any](target.classes))
            yield classes.take(pa.array(best, mask=failed))
            if isinstance(calibration, ClassCalibration) and level is not None:
                yield _sets(
                    target, calibration.sets(level, np.nan_to_num(decoded)), decoded, failed
                )
        elif isinstance(calibration, NumberCalibration) and level is not None:
            half = calibration.half_widths(level, decoded)
        for place in range(decoded.shape[1]):
            yield pa.array(decoded[:, place], pa.float64(), mask=failed)
            if level is not None and not isinstance(target, ClassTarget):
                for bound in (decoded - half, decoded + half):
                    yield pa.array(bound[:, place], pa.float64(), mask=failed)


def _sets(
    target: ClassTarget, chosen: NDArray[np.bool_], shares: Floats, failed: NDArray[np.bool_]
) -> Values:
    """Return the sets of classes as JSON arrays, likeliest class first; few of them differ."""
    order = np.argsort(-shares, axis=1, kind="stable")
    ranked = np.where(np.take_along_axis(chosen, order, axis=1), order, -1)
    distinct, places = np.unique(ranked, axis=0, return_inverse=True)
    texts = [
        json.dumps([target.classes[each] for each in row if each >= 0], ensure_ascii=False)
        for row in distinct.tolist()
    ]
    taken: Any = pa.array(places.ravel(), mask=failed)
    return pa.array(texts, pa.string()).take(taken)


class Texts:
    """One text per row; few texts differ, so each is stored once."""

    def __init__(self, rows: int) -> None:
        self.places: Integers = np.zeros(rows, np.int64)
        self._texts = [""]

    def add(self, places: Integers, texts: Sequence[str]) -> None:
        """Append to each row the text at its place in `texts`; the text at 0 is empty."""
        rows = np.flatnonzero(places)
        pairs = self.places[rows] * len(texts) + places[rows]
        used, again = np.unique(pairs, return_inverse=True)
        self.places[rows] = len(self._texts) + again
        olds, news = np.divmod(used, len(texts))
        self._texts += [
            "; ".join(filter(None, (self._texts[old], texts[new])))
            for old, new in zip(olds.tolist(), news.tolist(), strict=True)
        ]

    def to_arrow(self) -> Values:
        places: Any = pa.array(self.places, mask=self.places == 0)
        return pa.array(self._texts, pa.string()).take(places)


# ---- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadColumn:
    """A column as the model reads it, and per row the place of its problems in `found`."""

    column: ColumnValues
    places: Integers
    #: the first entry is empty, for rows without a problem
    found: list[list[ValueProblem]]


def _read(column: Input, values: Values, given: ColumnType | None) -> ReadColumn:
    if not isinstance(column, Choice):
        both = {given, column.type}
        if both <= NUMBERS or both == {"boolean"}:
            return _judged(column, values.cast(pa.float64(), safe=False))
        if both == {"datetime"}:
            micros = values.cast(pa.timestamp("us")).cast(pa.int64())
            return _judged(column, micros.cast(pa.float64(), safe=False), 1e6)
    return _looked_up(column, values)


def _judged(column: Numeric | Moment, values: Values, per_unit: float = 1.0) -> ReadColumn:
    """Read numbers and find their problems; `per_unit` of them make one unit of the column."""
    numbers: Floats = values.to_numpy(zero_copy_only=False).astype(np.float64)
    if per_unit != 1.0:
        numbers /= per_unit
    if column.gaps and column.type != "boolean":
        numbers[np.isin(numbers, list(column.gaps))] = np.nan
    infinite = np.isinf(numbers)
    numbers[infinite] = np.nan
    kinds = np.isnan(numbers).astype(np.int64)
    kinds[infinite] = 4
    if column.type != "boolean" and column.min is not None and column.max is not None:
        kinds[(numbers < column.min) | (numbers > column.max)] = 2
        kinds[(numbers < column.least) | (numbers > column.most)] = 3
    missing = ValueProblem(column.name, "missing", "no value")
    far = ValueProblem(column.name, "out_of_range", "outside the training rows' range")
    clipped = ValueProblem(column.name, "clipped", "too far outside that range to compute with")
    endless = ValueProblem(column.name, "non_finite", "the number is not finite")
    found = [[], [missing], [far], [far, clipped], [endless]]
    return ReadColumn(numbers, kinds, found if kinds.any() else [[]])


def _looked_up(column: Input, values: Values) -> ReadColumn:
    """Read each distinct value once, as the value of a request."""
    is_empty = pa.types.is_null(values.type)
    encoded: Any = (values.cast(pa.string()) if is_empty else values).dictionary_encode()
    distinct: list[RawValue] = [None, *map(_plain, encoded.dictionary.to_pylist())]
    places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    problems = Problems()
    read = read_column(column, distinct, problems, from_text=False)
    found: list[list[ValueProblem]] = [[]]
    kinds = np.zeros(len(distinct), np.int64)
    for place, several in sorted(problems.rows.items()):
        kinds[place] = len(found)
        found.append(list(several))
    return ReadColumn(take(read, places), kinds[places], found)


def _plain(value: RawValue | datetime) -> RawValue:
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value


def _slice(column: ColumnValues, part: slice) -> ColumnValues:
    if isinstance(column, Categories):
        return Categories(column.codes[part], column.values)
    return column[part]


def _sentence(problem: ValueProblem) -> str:
    where = f"{problem.column}: " if problem.column else ""
    return f"{where}{problem.code}: {problem.fact}"
