"""The targets of a model: numbers in their own units, or one class of several.

A target turns its columns into arrays that a loss compares with, and a net's outputs into values
for a reader. Knows NumPy only.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from descent.spec import ColumnType, Task
from models.data import Categories, Floats, Integers, Table
from models.errors import DataInvalid
from models.features.fits import Moments
from models.reading import Reading, category_key

#: A class in its column's own type.
Label: TypeAlias = str | int | float | bool
Outputs: TypeAlias = NDArray[np.floating[Any]]
#: Spellings of false and true that JSON's own values stand for.
PLAIN_TRUTH = ({"false", "true"}, {"0", "1"}, {"0.0", "1.0"})


@dataclass(frozen=True)
class NumberTargets:
    """One or several numbers; each output is (number - center) / scale."""

    kind: ClassVar[str] = "numbers"
    names: tuple[str, ...]
    types: tuple[ColumnType, ...]
    #: These four are of the training rows.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    #: Mean and standard deviation if the run standardises, otherwise 0 and 1.
    center: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def output_names(self) -> list[str]:
        return list(self.names)

    def encode(self, table: Table, rows: Integers) -> Floats:
        """Return float64 (rows, outputs), scaled like the net's outputs."""
        scaled: Floats = (self.truth(table, rows) - np.array(self.center)) / np.array(self.scale)
        return scaled

    def truth(self, table: Table, rows: Integers) -> Floats:
        """Return float64 (rows, outputs) in the targets' own units."""
        return np.column_stack([table.numbers(name)[rows] for name in self.names])

    def decode(self, outputs: Outputs) -> Floats:
        """Turn outputs (rows, outputs) into float64 of that shape in the targets' own units."""
        center, scale = self._units
        values: Floats = outputs.astype(np.float64) * scale
        values += center
        return values

    def decode_few(self, outputs: Outputs) -> list[list[float]]:
        """Do the same as `decode` in plain Python, which is faster for a few rows."""
        pairs = list(zip(self.center, self.scale, strict=True))
        return [
            [number * scale + center for number, (center, scale) in zip(row, pairs, strict=True)]
            for row in outputs.tolist()
        ]

    @cached_property
    def _units(self) -> tuple[Floats, Floats]:
        return np.array(self.center), np.array(self.scale)

    def signature(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "type": "number", "classes": None, "min": low, "max": high}
            for name, low, high in zip(self.names, self.min, self.max, strict=True)
        ]


@dataclass(frozen=True)
class ClassTarget:
    """One of the classes of a column; the net has one output per class, for a softmax."""

    kind: ClassVar[str] = "classes"
    name: str
    #: The type of the classes.
    type: ColumnType
    #: In the order of the values of the column; each as the answers spell it.
    classes: tuple[Label, ...]
    #: How the column was read; None for a table that was read by earlier versions.
    reading: Reading | None = None

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> list[str]:
        """The classes as text: the keys of `probabilities`."""
        return [
            ("false", "true")[value] if isinstance(value, bool) else str(value)
            for value in self.classes
        ]

    @property
    def output_names(self) -> list[str]:
        return self.labels

    def encode(self, table: Table, rows: Integers) -> Integers:
        """Return the class number of each of `rows`, int64; -1 if its value is no known class."""
        return self.labels_of(table)[rows]

    def labels_of(self, table: Table) -> Integers:
        """Return the class number of every row of the table, int64; -1 if it has none."""
        column = table.columns[self.name]
        if isinstance(column, Categories):
            codes = np.array([*(self.place(value) for value in column.values), -1])
            found: Integers = codes[column.codes].astype(np.int64)
            return found
        if isinstance(self.classes[0], str):
            return self._spelled_labels_of(column)
        values: Floats | Integers = column
        if self.name in table.exact:
            values = table.exact[self.name]
        classes = np.array(self.classes, dtype=values.dtype)
        places = np.searchsorted(classes, values).clip(max=len(classes) - 1)
        return np.where((classes[places] == values) & ~np.isnan(column), places, -1)

    def _spelled_labels_of(self, column: Floats) -> Integers:
        """Return the class numbers of a column of booleans that the table spells otherwise."""
        words = spelling(self.reading)
        false, true = (self._places.get(word, -1) for word in words or ("false", "true"))
        return np.where(column == 1, true, np.where(column == 0, false, -1))

    def place(self, text: str) -> int:
        """Return the number of the class that a text names; -1 if it names none."""
        place = self._places.get(text)
        return self._places_by_key.get(category_key(text), -1) if place is None else place

    @cached_property
    def _places(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.labels)}

    @cached_property
    def _places_by_key(self) -> dict[str, int]:
        """The places of classes by the key of their text, where no two classes have one key."""
        keys = Counter(map(category_key, self.labels))
        return {
            key: place
            for place, label in enumerate(self.labels)
            if keys[key := category_key(label)] == 1
        }

    def probabilities(self, outputs: Outputs) -> Floats:
        """Return the softmax of the outputs: float64 (rows, classes), each row sums to one."""
        scores = outputs.astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        shares: Floats = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def signature(self) -> list[dict[str, Any]]:
        return [{"name": self.name, "type": self.type, "classes": list(self.classes)}]


Target: TypeAlias = NumberTargets | ClassTarget


def fit_target(
    table: Table, rows: Integers, *, targets: list[str], task: Task, standardize: bool
) -> Target:
    """Learn the scale of number targets from the training rows, or classes from the whole table.

    Raises `DataInvalid` if the task does not fit the target columns.
    """
    if task == "regression":
        return _fit_numbers(table, rows, targets, standardize=standardize)
    if len(targets) > 1:
        raise DataInvalid(f"several targets need task 'regression', got {task!r}")
    return fit_classes(table, targets[0], task)


def fit_classes(table: Table, name: str, task: Task) -> ClassTarget:
    """Collect the classes of a column, including classes without a training row.

    Raises `DataInvalid` if there are fewer than two, or more than two for a binary task.
    """
    column, kind, reading = table.columns[name], table.types[name], table.readings.get(name)
    classes: list[Label]
    if isinstance(column, Categories):
        used = np.unique(column.codes[column.codes >= 0])
        classes = sorted(column.values[code] for code in used)
    elif kind == "integer":
        present = ~np.isnan(column)
        values = table.exact.get(name, column)
        classes = [int(value) for value in np.unique(values[present])]
    else:
        found = np.unique(column[~np.isnan(column)]).tolist()
        words = spelling(reading) if kind == "boolean" else None
        if words is not None:
            kind = "category"
            classes = [words[int(value)] for value in found]
        else:
            classes = [bool(value) for value in found] if kind == "boolean" else found
    if len(classes) < 2 or (task == "binary" and len(classes) > 2):
        wanted = "two classes" if task == "binary" else "at least two classes"
        raise DataInvalid(f"task {task!r} needs {wanted} in {name!r}, found {len(classes)}")
    return ClassTarget(name, kind, tuple(classes), reading)


def spelling(reading: Reading | None) -> tuple[str, str] | None:
    """Return the words of false and true in the table; None if JSON's own values say the same."""
    if reading is None or reading.type != "boolean":
        return None
    words = reading.false, reading.true
    return None if {word.lower() for word in words} in PLAIN_TRUTH else words


def target_to_json(target: Target) -> dict[str, Any]:
    """Return the fields of a target and its kind, ready for JSON."""
    stored = {field.name: getattr(target, field.name) for field in fields(target)}
    if stored.get("reading") is None:
        stored.pop("reading", None)  # as earlier versions store a target
    else:
        stored["reading"] = stored["reading"].to_json()
    return {"kind": target.kind} | stored


def target_from_json(document: Mapping[str, Any]) -> Target:
    """Return a stored target; raises KeyError, TypeError or ValueError if the document is none."""
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.items()
        if key != "kind"
    }
    if stored.get("reading") is not None:
        stored["reading"] = Reading.from_json(stored["reading"])
    kinds: dict[str, type[NumberTargets | ClassTarget]] = {
        NumberTargets.kind: NumberTargets,
        ClassTarget.kind: ClassTarget,
    }
    return kinds[document["kind"]](**stored)


def _fit_numbers(
    table: Table, rows: Integers, targets: list[str], *, standardize: bool
) -> NumberTargets:
    for name in targets:
        if table.types[name] not in {"number", "integer", "boolean"}:
            raise DataInvalid(
                f"task 'regression' needs numbers in {name!r}, which holds {table.types[name]}"
            )
    moments = [Moments() for _ in targets]
    for block, (places,) in table.blocks(targets, [rows]):
        values = np.column_stack([block.numbers(name)[places] for name in targets])
        each = (values.mean(axis=0), values.std(axis=0), values.min(axis=0), values.max(axis=0))
        for joined, figures in zip(moments, np.column_stack(each).tolist(), strict=True):
            joined.join(Moments(len(values), *figures))
    for name, seen in zip(targets, moments, strict=True):
        if seen.low == seen.high:
            raise DataInvalid(
                f"target {name!r} is {seen.low:g} in every training row: there is nothing to learn"
            )
    return NumberTargets(
        names=tuple(targets),
        types=tuple(table.types[name] for name in targets),
        mean=tuple(seen.mean for seen in moments),
        std=tuple(seen.std for seen in moments),
        min=tuple(seen.low for seen in moments),
        max=tuple(seen.high for seen in moments),
        center=tuple(seen.mean if standardize else 0.0 for seen in moments),
        scale=tuple(seen.std if standardize else 1.0 for seen in moments),
    )
