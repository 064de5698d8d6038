"""A checkpoint that answers a table of rows. Knows no torch: the API predicts without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.checkpoint import read_parameters
from models.data import Floats, Table
from models.errors import CheckpointCorrupt
from models.features import Features
from models.flawed import FlawedRows
from models.forward import FAR, Stack, load_stack
from models.inputs import Matrix
from models.plain import PlainRows
from models.sessions import MANY, Session
from models.targets import ClassTarget, Label, NumberTargets
from models.values import Problem, Problems, RawValue, read_column, unknown_column

#: What of a value is an error where the client asked for errors; the rest always warns.
STRICT = frozenset({"unknown_category", "wrong_type", "non_finite"})
NOT_FINITE = Problem(
    "", "non_finite", "the net's output is not finite; check this row for extreme numbers"
)

Value: TypeAlias = Label | dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one row: a value, or None and the error."""

    #: In the target's own type; an object by target where there are several.
    value: Value
    #: By class, in the order of the classes; None for a regression.
    probabilities: dict[str, float] | None = None
    warnings: Sequence[Problem] = ()
    error: Problem | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as the API answers it: without the fields that say nothing."""
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
    """The features and the net of one checkpoint."""

    features: Features
    stack: Stack
    #: Everything else that the checkpoint says: config, metrics, environment.
    document: dict[str, Any]

    @classmethod
    def load(cls, source: Path | bytes) -> "Predictor":
        """Read a checkpoint; raises `CheckpointCorrupt`."""
        parameters, document = read_parameters(source)
        try:
            features = Features.from_json(document["features"])
            stack = load_stack(document["net"], parameters)
        except KeyError as error:
            raise CheckpointCorrupt(f"the document lacks {error}") from error
        if (stack.inputs, stack.outputs) != (features.width, features.outputs):
            raise CheckpointCorrupt(
                f"a net {stack.inputs} → {stack.outputs} does not fit features "
                f"{features.width} → {features.outputs}"
            )
        return cls(features, stack, document)

    def predict(
        self,
        columns: Mapping[str, Sequence[RawValue]],
        rows: int,
        *,
        on_problem: Literal["warn", "error"] = "warn",
        from_text: bool = False,
    ) -> list[Prediction]:
        """Answer each of `rows` rows, in order; a bad row never touches another.

        `columns` holds a scalar per row, None where it is missing; a column that is not there is
        missing in every row. `from_text` says that all values are text, as in CSV: a number given
        as text is then nothing to warn of.
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
    def session(self) -> Session:
        """What computes the net for many rows, if it is wide."""
        return Session(self.stack)

    @cached_property
    def plain(self) -> PlainRows:
        """What reads rows that nothing is to be said about."""
        return PlainRows(self.features)

    @cached_property
    def flawed(self) -> FlawedRows:
        """What reads rows with the usual flaws."""
        return FlawedRows(self.features)

    def flawed_predictions(self, rows: Sequence[Any]) -> list[Prediction] | None:
        """Return what `predict` does for a few rows, or None where one takes the long way."""
        read = self.flawed.encode(rows)
        if read is None:
            return None
        encoded, problems = read
        found = self.plain_predictions(self.outputs_with_care(encoded))
        return found and [
            replace(each, warnings=problems.rows.get(row, ())) for row, each in enumerate(found)
        ]

    def plain_predictions(self, outputs: NDArray[np.float32]) -> list[Prediction] | None:
        """Return the answers to a few plain rows, or None where one of them has none."""
        target = self.features.target
        if isinstance(target, ClassTarget):
            decoded, is_finite = self._decode(outputs)
            return _class_predictions(target, decoded) if is_finite.all() else None
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
        """Return the inputs of a request as training had them; what is odd goes to `problems`."""
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
        targets = [output["name"] for output in self.features.target.signature()]
        for name in columns:
            if name not in inputs:
                unknown_column(name, columns[name], targets, problems)
        return table

    def outputs(self, encoded: Matrix) -> NDArray[np.float32]:
        """Run the net: (rows, width) to (rows, outputs)."""
        rows = encoded.astype(np.float32, copy=False)
        if len(rows) >= MANY and (outputs := self.session.forward(rows)) is not None:
            return outputs
        return self.stack.forward(rows)

    def outputs_with_care(self, encoded: Matrix) -> NDArray[np.float32]:
        """Run the net, in float64 where a row is far outside of the training rows."""
        far = np.flatnonzero(np.abs(encoded).max(axis=1, initial=0.0) > FAR)
        if 0 < len(far) == len(encoded):
            return self.stack.forward_precisely(encoded.astype(np.float32))
        outputs = self.outputs(encoded)
        if len(far):
            outputs[far] = self.stack.forward_precisely(encoded[far].astype(np.float32))
        return outputs

    def _decode(self, outputs: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the outputs in the targets' units, and whether each row has nothing but numbers.

        A finite output may still be too large for the target's units.
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

    def _refused(self, found: list[Problem]) -> Problem | None:
        """Return the first problem for which a row has no answer where errors are asked for."""
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
