"""The encoding of columns to arrays and back; training and prediction use the same object.

It is fitted on training rows only and stored as JSON. Knows NumPy only: the API uses it without
torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from descent.codes import make_warning
from descent.spec import Task
from models.data import Floats, Integers, Table, take
from models.errors import CheckpointCorrupt, DataInvalid
from models.features.fits import fit_inputs
from models.features.inputs import (
    Choice,
    Input,
    Matrix,
    input_from_json,
    input_to_json,
)
from models.features.targets import (
    ClassTarget,
    Outputs,
    Target,
    fit_target,
    target_from_json,
    target_to_json,
)
from models.features.widths import MAX_CATEGORIES
from models.reading import TableReading


@dataclass(frozen=True)
class Features:
    """The inputs and the target of one model: columns become numbers, outputs become values."""

    inputs: tuple[Input, ...]
    target: Target
    #: How the table of the training was read; None in models of earlier versions.
    table: TableReading | None = None

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: Integers,
        *,
        features: list[str],
        targets: list[str],
        task: Task,
        standardize: bool,
    ) -> "Features":
        """Learn from the training rows how to encode `features` and `targets`.

        `rows` must be ascending; beside the targets only a block of them is in memory.
        Raises `DataInvalid` if these columns cannot be used for the task.
        """
        if not features:
            raise DataInvalid("there is no feature column to learn from")
        inputs = fit_inputs(table, features, rows, standardize=standardize)
        target = fit_target(table, rows, targets=targets, task=task, standardize=standardize)
        return cls(inputs, target, table.reading)

    # ---- stored ----

    def to_json(self) -> dict[str, Any]:
        """Return everything that `from_json` needs."""
        stored = {
            "inputs": [input_to_json(column) for column in self.inputs],
            "target": target_to_json(self.target),
        }
        return stored if self.table is None else stored | {"table": self.table.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Features":
        """Return stored features; raises `CheckpointCorrupt`."""
        try:
            inputs = tuple(input_from_json(column) for column in document["inputs"])
            stored = document.get("table")
            table = None if stored is None else TableReading.from_json(stored)
            return cls(inputs, target_from_json(document["target"]), table)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointCorrupt(f"the stored features cannot be read: {error}") from error

    # ---- columns ----

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the inputs."""
        return frozenset(column.name for column in self.inputs)

    @cached_property
    def targets(self) -> frozenset[str]:
        """The names of the columns that the model predicts."""
        return frozenset(output["name"] for output in self.target.signature())

    @cached_property
    def expected(self) -> frozenset[str]:
        """The columns that a row may have: the inputs and, if known, the rest of the table."""
        return self.names | frozenset(self.table.names if self.table else ())

    # ---- shape ----

    @cached_property
    def width(self) -> int:
        """The count of encoded numbers of a row."""
        return sum(column.width for column in self.inputs)

    @property
    def outputs(self) -> int:
        return self.target.outputs

    @cached_property
    def labels(self) -> list[str]:
        """The name of each encoded number, such as `Age`, `Age is missing` and `Sex=male`."""
        return [label for column in self.inputs for label in column.labels]

    @cached_property
    def numbers(self) -> Integers:
        """The places of the encoded numbers that hold a column's number or its time."""
        starts = np.cumsum([0, *(column.width for column in self.inputs)])
        return np.array(
            [
                start
                for start, column in zip(starts, self.inputs, strict=False)
                if not isinstance(column, Choice) and column.type != "boolean"
            ],
            np.int64,
        )

    # ---- arrays ----

    def encode(
        self, table: Table, rows: Integers | None = None, dtype: DTypeLike = np.float32
    ) -> Matrix:
        """Return the encoded rows, (rows, width): those of `rows`, or all rows of the table."""
        count = table.rows if rows is None else len(rows)
        out: Matrix = np.empty((count, self.width), dtype=dtype)
        start = 0
        # An extreme number may overflow float32. Prediction checks its result for that.
        with np.errstate(over="ignore", invalid="ignore"):
            for column in self.inputs:
                values = table.columns[column.name]
                if rows is not None:
                    values = take(values, rows)
                column.encode(values, out[:, start : start + column.width])
                start += column.width
        return out

    def encode_parts(
        self, table: Table, parts: Sequence[Integers]
    ) -> Iterator[list[tuple[Matrix, NDArray[np.float32] | Integers]]]:
        """Yield the encoded rows of each part, which must be ascending, block by block.

        A block holds for each part its next rows (rows, width) and their encoded targets. Each
        column is read once, and beside it only a block of rows is in memory.
        """
        names = list(dict.fromkeys([*(column.name for column in self.inputs), *self.targets]))
        for block, places in table.blocks(names, parts, self.width):
            rows = np.concatenate(places)
            x, truth = self.encode(block, rows), self.encode_targets(block, rows)
            ends = np.cumsum([len(each) for each in places]).tolist()
            starts = [0, *ends[:-1]]
            yield [
                (x[start:end], truth[start:end]) for start, end in zip(starts, ends, strict=True)
            ]

    def encode_targets(self, table: Table, rows: Integers) -> NDArray[np.float32] | Integers:
        """Return float32 (rows, outputs), or the class number of each row as int64."""
        if isinstance(self.target, ClassTarget):
            return self.target.encode(table, rows)
        return self.target.encode(table, rows).astype(np.float32)

    def truth(self, table: Table, rows: Integers) -> Floats | Integers:
        """Return the true targets: float64 (rows, outputs), or int64 class numbers (rows,)."""
        if isinstance(self.target, ClassTarget):
            return self.target.encode(table, rows)
        return self.target.truth(table, rows)

    def decode(self, outputs: Outputs) -> Floats:
        """Turn outputs (rows, outputs) into float64 of that shape.

        The result holds numbers in the targets' units, or class probabilities.
        """
        if isinstance(self.target, ClassTarget):
            return self.target.probabilities(outputs)
        return self.target.decode(outputs)

    def centers_and_scales(self) -> tuple[Floats, Floats]:
        """Return the center and the scale of each encoded number, (width,) each."""
        pairs = [pair for column in self.inputs for pair in column.scaling()]
        return np.array([center for center, _ in pairs]), np.array([scale for _, scale in pairs])

    # ---- described ----

    def signature(self) -> dict[str, Any]:
        """Describe the inputs and outputs of the model, ready for JSON."""
        return {
            "inputs": [column.signature() for column in self.inputs],
            "outputs": self.target.signature(),
        }

    def warnings(self) -> list[dict[str, Any]]:
        """Return a warning for each column that gives little to learn from.

        Each is `{"code", "column", "detail"}`.
        """
        return [warning for column in self.inputs for warning in _warn(column)]


def _warn(column: Input) -> Iterator[dict[str, Any]]:
    if isinstance(column, Choice):
        if column.rare:
            yield make_warning(
                "many_categories",
                f"only the {MAX_CATEGORIES} most frequent categories of {column.name!r} are told "
                f"apart; {column.rare} training rows have another",
                column.name,
            )
        constant = len(column.categories) < 2
    else:
        constant = column.min == column.max
    if constant and not column.missing:
        yield make_warning(
            "constant",
            f"{column.name!r} is the same in every training row: it cannot help to predict",
            column.name,
        )
