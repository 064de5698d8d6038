"""A table as arrays, which rows train, validate and test, and the order of an epoch's rows.

Splits and orders are pure functions of the configuration, the data and the seed, so that a resumed
run sees the very same rows. Knows NumPy and Parquet, nothing of networks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from descent.spec import ColumnSplit, GroupSplit, NoSplit, SplitSpec, TimeSplit
from models.errors import DataInvalid

ColumnType = Literal["number", "integer", "boolean", "category", "datetime", "text", "id"]
Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

#: Column types whose values are text.
TEXTUAL: frozenset[str] = frozenset({"category", "text", "id"})
BATCH_CELLS = 4_000_000  # of a table that is read in batches
#: The second word of the generator's key where it shuffles for a split; epochs count up from 0.
SPLIT_STREAM = 2**63


@dataclass(frozen=True)
class Categories:
    """A column of text: a code into `values` per row."""

    #: -1 where the value is missing.
    codes: NDArray[np.int32]
    values: Sequence[str]


#: Numbers, booleans as 0 and 1, datetimes as seconds since 1970 in UTC; NaN where missing.
Column: TypeAlias = Floats | Categories


def take(column: Column, rows: Rows) -> Column:
    """Return the values of these rows."""
    if isinstance(column, Categories):
        return Categories(column.codes[rows], column.values)
    return column[rows]


@dataclass(frozen=True)
class Table:
    """The columns of a dataset that a run needs."""

    types: dict[str, ColumnType]
    columns: dict[str, Column]
    rows: int

    def numbers(self, name: str) -> Floats:
        """The values of a column that holds no text."""
        column = self.columns[name]
        if isinstance(column, Categories):
            raise DataInvalid(f"column {name!r} holds text where numbers are needed")
        return column

    def categories(self, name: str) -> Categories:
        """The values of a column that holds text."""
        column = self.columns[name]
        if not isinstance(column, Categories):
            raise DataInvalid(f"column {name!r} holds numbers where categories are needed")
        return column

    def present(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Per row, whether none of these columns is missing."""
        mask = np.ones(self.rows, dtype=bool)
        for name in names:
            column = self.columns[name]
            mask &= column.codes >= 0 if isinstance(column, Categories) else ~np.isnan(column)
        return mask


@dataclass(frozen=True)
class Split:
    """Row numbers of the table; no row is in two of them."""

    train: Rows
    validation: Rows
    test: Rows


def read_table(path: Path, types: dict[str, ColumnType], columns: list[str]) -> Table:
    """Read `columns` of a dataset version, a Parquet file that the service wrote."""
    with pq.ParquetFile(path) as file:
        arrow = file.read(columns=columns, use_threads=False)
        return _to_table(arrow, types, columns, file.metadata.num_rows)


def read_rows(
    path: Path, types: dict[str, ColumnType], columns: list[str], rows: Rows
) -> tuple[Table, pa.Table]:
    """Read some rows, in ascending order, and also return their cells as they are stored.

    In batches: the whole table may be larger than the memory.
    """
    parts, before = [], 0
    size = max(256, min(100_000, BATCH_CELLS // len(columns)))
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(size, columns=columns, use_threads=False):
            first, last = np.searchsorted(rows, [before, before + batch.num_rows])
            parts.append(batch.take(rows[first:last] - before))
            before += batch.num_rows
    arrow = pa.Table.from_batches(parts)
    return _to_table(arrow, types, columns, len(rows)), arrow


def _to_table(
    arrow: pa.Table, types: dict[str, ColumnType], columns: list[str], rows: int
) -> Table:
    return Table(
        types={name: types[name] for name in columns},
        columns={name: _to_column(arrow.column(name), types[name]) for name in columns},
        rows=rows,
    )


def split_rows(
    split: SplitSpec, table: Table, rows: Rows, *, labels: Rows | None, seed: int
) -> Split:
    """Divide `rows`, the rows that have a target.

    `labels` holds a class number per row of the table where the task has classes: a random split
    then draws from each class in proportion. Raises `DataInvalid` where a part that was asked for
    would be empty.
    """
    if len(rows) == 0:
        raise DataInvalid("no row has a value in every target column")
    if isinstance(split, NoSplit):
        return Split(rows, rows[:0], rows[:0])
    if isinstance(split, ColumnSplit):
        return _split_by_column(table, split.column, rows)
    if isinstance(split, GroupSplit):
        return _split_by_group(split, table, rows, seed)
    if isinstance(split, TimeSplit):
        latest_first = _by_time(table, split.column, rows)[::-1]
        return _take(latest_first, split.validation, split.test)
    order = generator(seed, SPLIT_STREAM).permutation(rows)
    if labels is not None and split.validation + split.test > 0:
        order = _interleave_classes(order, labels)
    result = _take(order, split.validation, split.test)
    if labels is not None:
        _check_every_class_trains(labels, rows, result.train)
    return result


def epoch_order(seed: int, epoch: int, rows: int) -> Rows:
    """Return the order of an epoch's rows: a permutation that depends on nothing else."""
    return generator(seed, epoch).permutation(rows)


def generator(seed: int, stream: int) -> np.random.Generator:
    """Return random numbers that depend on nothing else; epochs are the streams from 0."""
    # Philox is counter-based: any key gives an independent stream without a warm-up.
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))


# ---- reading --------------------------------------------------------------------------------


def _to_column(values: "pa.ChunkedArray[Any]", column_type: ColumnType) -> Column:
    if column_type in TEXTUAL:
        encoded: Any = values.cast(pa.string()).dictionary_encode().combine_chunks()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return Categories(codes.astype(np.int32), encoded.dictionary.to_pylist())
    if column_type == "datetime":
        micros = values.cast(pa.timestamp("us")).cast(pa.int64())
        return _to_floats(micros) / 1e6
    return _to_floats(values)


def _to_floats(values: "pa.ChunkedArray[Any]") -> Floats:
    # Not `safe`: an integer beyond 2**53 is rounded, which no network can tell.
    numbers: Floats = values.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    if not np.isfinite(numbers).all():
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    return numbers


# ---- splitting ------------------------------------------------------------------------------


def _take(order: Rows, validation: float, test: float) -> Split:
    """The first rows of `order` test, the next validate, the rest train."""
    tests = _count(test, len(order))
    validations = _count(validation, len(order))
    held_out = tests + validations
    if held_out >= len(order):
        raise DataInvalid(
            f"{len(order)} rows are too few for a split with validation {validation} and "
            f"test {test}: no row is left to train on; use smaller shares or split 'none'"
        )
    return Split(
        train=np.sort(order[held_out:]),
        validation=np.sort(order[tests:held_out]),
        test=np.sort(order[:tests]),
    )


def _count(share: float, rows: int) -> int:
    return max(1, round(share * rows)) if share else 0


def _interleave_classes(order: Rows, labels: Rows) -> Rows:
    """Sort shuffled rows so that any stretch of them has the classes in proportion.

    The k-th of a class's n rows goes to the place (k + ½) / n of the whole.
    """
    classes = labels[order]
    place = np.empty(len(order))
    for label, count in zip(*np.unique(classes, return_counts=True), strict=True):
        place[classes == label] = (np.arange(count) + 0.5) / count
    return order[np.argsort(place, kind="stable")]


def _check_every_class_trains(labels: Rows, rows: Rows, train: Rows) -> None:
    counts = np.bincount(labels[rows])
    trained = np.bincount(labels[train], minlength=len(counts))
    # Of a single row no share can be held out: its class would be trained or tested, never both.
    bad = (counts > 0) & ((trained == 0) | ((counts == 1) & (len(train) < len(rows))))
    if bad.any():
        label = int(np.flatnonzero(bad)[0])
        row = int(rows[labels[rows] == label][0])
        raise DataInvalid(
            f"the class of row {row + 1} has {counts[label]} row(s), too few to hold out a share "
            "of each class: add rows, remove the class, or use split 'none'"
        )


def _by_time(table: Table, name: str, rows: Rows) -> Rows:
    _check_complete(table, name, rows)
    if isinstance(table.columns[name], Categories):
        raise DataInvalid(
            f"split 'time' needs a column of datetimes or numbers; {name!r} holds text"
        )
    return rows[np.argsort(table.numbers(name)[rows], kind="stable")]


def _split_by_group(split: GroupSplit, table: Table, rows: Rows, seed: int) -> Split:
    _check_complete(table, split.column, rows)
    column = table.columns[split.column]
    values = column.codes if isinstance(column, Categories) else column
    _, groups, sizes = np.unique(values[rows], return_inverse=True, return_counts=True)
    shares = [share for share in (split.test, split.validation) if share]
    if len(sizes) <= len(shares):
        raise DataInvalid(
            f"split 'group' needs more than {len(shares)} distinct values in {split.column!r}, "
            f"found {len(sizes)}"
        )
    left = list(generator(seed, SPLIT_STREAM).permutation(len(sizes)))
    parts = []
    for later, share in ((int(split.validation > 0) + 1, split.test), (1, split.validation)):
        wanted = _count(share, len(rows))
        taken: list[int] = []
        while sum(sizes[taken]) < wanted and len(left) > later:
            taken.append(left.pop())
        parts.append(rows[np.isin(groups, taken)])
    return Split(train=rows[np.isin(groups, left)], validation=parts[1], test=parts[0])


def _split_by_column(table: Table, name: str, rows: Rows) -> Split:
    _check_complete(table, name, rows)
    column = table.columns[name]
    if not isinstance(column, Categories):
        raise DataInvalid(f"split 'column' needs the words train, validation and test in {name!r}")
    words = np.array([*column.values, ""], dtype=object)[column.codes[rows]]
    for row, word in zip(rows, words, strict=True):
        if word not in {"train", "validation", "test"}:
            raise DataInvalid(
                f"column {name!r} must say train, validation or test; row {row + 1} says {word!r}"
            )
    if not (words == "train").any():
        raise DataInvalid(f"column {name!r} says train in no row that has a target")
    return Split(rows[words == "train"], rows[words == "validation"], rows[words == "test"])


def _check_complete(table: Table, name: str, rows: Rows) -> None:
    missing = rows[~table.present([name])[rows]]
    if len(missing):
        raise DataInvalid(
            f"column {name!r} splits the rows but is missing in {len(missing)} of them, "
            f"first in row {missing[0] + 1}"
        )
