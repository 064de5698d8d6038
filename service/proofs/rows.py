"""The rows that a version is proved by, and what is due for each of them.

Held-out rows where there are some, else training rows; where the table is not to be had, golden
rows: of an imported version those that its bundle brought, with the answers that it brought.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from descent.spec import RunConfig
from models.data import Floats, Integers, Table, generator, read_rows, read_table
from models.export.card import golden_rows
from models.export.reference import Reference
from models.features.inputs import Choice, Input
from models.features.targets import ClassTarget
from models.predict.predictor import Predictor
from models.predict.values import Problems, RawValue
from models.training.split import columns_that_split, split_table
from service.proofs.messages import ProofJob, StoredTable

Source = Literal["held_out", "training", "golden"]

MOST_ROWS, LEAST_ROWS = 1000, 20
MOST_CELLS = 200_000  # of the table that goes through each way
MOST_WORK = 2 * 10**9  # multiplications of one way: a second or two
#: The second word of the generator's key where it draws rows; see `models.data`.
STREAM = 2**63 + 2


@dataclass(frozen=True)
class Sample:
    """Some rows, as a client would send them and as training reads them."""

    source: Source
    rows: int
    columns: dict[str, list[RawValue]]
    table: Table
    #: (rows, outputs); NaN where no number can be answered
    expected: Floats
    #: the row of the dataset that each is, from 0; None of golden rows
    places: Integers | None = None

    def named(self, row: int) -> str:
        """Return what people can find a row by."""
        if self.places is None:
            return f"golden row {row + 1}"
        return f"row {self.places[row] + 1} of the dataset"


def read_sample(job: ProofJob, predictor: Predictor, reference: Reference) -> Sample:
    """Return the rows that a job is to be proved by."""
    if job.table is None:
        return _golden(predictor, reference)
    return _from_table(job, job.table, predictor, reference)


# ---- rows of the dataset ------------------------------------------------------------------------


def _from_table(
    job: ProofJob, stored: StoredTable, predictor: Predictor, reference: Reference
) -> Sample:
    inputs = predictor.features.inputs
    config = RunConfig.model_validate(job.config)
    source, places = _places(stored, config, _most_rows(predictor))
    names = [column.name for column in inputs]
    table, cells = read_rows(stored.path, stored.types, names, places)
    return Sample(
        source=source,
        rows=len(places),
        columns={column.name: _cells(column, cells.column(column.name)) for column in inputs},
        table=table,
        expected=reference.predict(table),
        places=places,
    )


def _places(stored: StoredTable, config: RunConfig, most: int) -> tuple[Source, Integers]:
    """Return the rows of the table to take, in order: a draw that is the same each time."""
    names = columns_that_split(config)
    table = read_table(stored.path, {name: stored.types[name] for name in names}, names)
    split = split_table(config, table)
    held_out = np.concatenate([split.validation, split.test])
    rows = held_out if len(held_out) else split.train
    drawn = generator(config.seed, STREAM).permutation(rows)[:most]
    return ("held_out" if len(held_out) else "training"), np.sort(drawn)


def _most_rows(predictor: Predictor) -> int:
    affordable = min(
        MOST_CELLS // max(1, len(predictor.features.inputs)),
        MOST_WORK // max(1, predictor.stack.parameters),
    )
    return max(LEAST_ROWS, min(MOST_ROWS, affordable))


def _cells(column: Input, values: "pa.ChunkedArray[Any]") -> list[RawValue]:
    """Return what a client would send who has this column: JSON has no datetimes."""
    if isinstance(column, Choice):
        return list(values.cast(pa.string()).to_pylist())
    if pa.types.is_timestamp(values.type):
        micros = values.cast(pa.timestamp("us")).cast(pa.int64())
        return [None if each is None else _moment(each) for each in micros.to_pylist()]
    return [_scalar(value) for value in values.to_pylist()]


def _moment(micros: int) -> RawValue:
    """Spell a time; beyond the years 1 to 9999 it is a number of seconds."""
    try:
        seconds, rest = divmod(micros, 10**6)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat()
    except (OverflowError, ValueError, OSError):
        return micros / 1e6


def _scalar(value: RawValue) -> RawValue:
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---- golden rows --------------------------------------------------------------------------------


def _golden(predictor: Predictor, reference: Reference) -> Sample:
    known = predictor.document.get("golden")
    rows: Sequence[Mapping[str, RawValue]]
    rows = golden_rows(predictor.features) if known is None else known["rows"]
    names = [column.name for column in predictor.features.inputs]
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = predictor.read(columns, len(rows), Problems())
    expected = reference.predict(table)
    if known is not None:
        expected = numbers_of(predictor, known["predictions"])
    return Sample("golden", len(rows), columns, table, expected)


# ---- rows and columns ---------------------------------------------------------------------------


def records_of(columns: Mapping[str, Sequence[RawValue]]) -> list[dict[str, RawValue]]:
    """Return the cells row by row."""
    cells = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in cells]


def numbers_of(predictor: Predictor, answers: Sequence[Mapping[str, Any]]) -> Floats:
    """Return (rows, outputs) of answers in the API's JSON; NaN where a row has none."""
    target = predictor.features.target
    found = np.full((len(answers), target.outputs), np.nan)
    for row, answer in enumerate(answers):
        value = answer["value"]
        if value is None:
            continue
        if isinstance(target, ClassTarget):
            found[row] = [answer["probabilities"][label] for label in target.labels]
        elif len(target.names) == 1:
            found[row] = value
        else:
            found[row] = [value[name] for name in target.names]
    return found
