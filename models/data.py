"""A table as arrays, and random orders of its rows.

An order is a pure function of the seed and a stream number, so that a resumed run sees the same
rows. Knows NumPy and Parquet, nothing of networks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from descent.spec import ColumnType
from models.errors import DataInvalid
from models.reading import Reading, TableReading

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

#: Column types whose values are text.
TEXTUAL: frozenset[str] = frozenset({"category", "text", "id"})
BATCH_CELLS = 4_000_000  # cells in memory while a table is read in batches


@dataclass(frozen=True)
class Categories:
    """A column of text: per row, the place of its text in `values`."""

    #: -1 where the value is missing.
    codes: NDArray[np.int32]
    values: Sequence[str]


#: Numbers, booleans as 0 and 1, datetimes as seconds since 1970 in UTC; NaN where missing.
ColumnValues: TypeAlias = Floats | Categories


def take(column: ColumnValues, rows: Integers) -> ColumnValues:
    """Return the values of these rows, in the order of `rows`."""
    if isinstance(column, Categories):
        return Categories(column.codes[rows], column.values)
    return column[rows]


@dataclass(frozen=True)
class Table:
    """The columns of a dataset that a run needs."""

    types: dict[str, ColumnType]
    columns: dict[str, ColumnValues]
    rows: int
    #: How the text of the cells was read, by column; a column without one has today's rules.
    readings: Mapping[str, Reading] = field(default_factory=dict)
    #: How the whole table was read; None for a table that was read by earlier versions.
    reading: TableReading | None = None

    def numbers(self, name: str) -> Floats:
        """Return a column of numbers, float64 (rows,); raises `DataInvalid` for text."""
        column = self.columns[name]
        if isinstance(column, Categories):
            raise DataInvalid(f"column {name!r} holds text where numbers are needed")
        return column

    def categories(self, name: str) -> Categories:
        """Return a column of text; raises `DataInvalid` for numbers."""
        column = self.columns[name]
        if not isinstance(column, Categories):
            raise DataInvalid(f"column {name!r} holds numbers where categories are needed")
        return column

    def present(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Return a mask (rows,): true where every one of these columns has a value."""
        mask = np.ones(self.rows, dtype=bool)
        for name in names:
            column = self.columns[name]
            mask &= column.codes >= 0 if isinstance(column, Categories) else ~np.isnan(column)
        return mask


def read_table(path: Path, types: dict[str, ColumnType], columns: list[str]) -> Table:
    """Read `columns` of a dataset version, a Parquet file that the service wrote."""
    with pq.ParquetFile(path) as file:
        arrow = file.read(columns=columns, use_threads=False)
        return _to_table(arrow, types, columns, file.metadata.num_rows)


def read_rows(
    path: Path, types: dict[str, ColumnType], columns: list[str], rows: Integers
) -> tuple[Table, pa.Table]:
    """Read the given rows, and return them as arrays and as the stored Arrow cells.

    `rows` must be ascending. The file is read in batches, because the whole table may be larger
    than the memory.
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


def epoch_order(seed: int, epoch: int, rows: int) -> Integers:
    """Return the order of an epoch's rows: a permutation of 0 to rows - 1, (rows,).

    It depends on the seed and the epoch only.
    """
    return generator(seed, epoch).permutation(rows)


def generator(seed: int, stream: int) -> np.random.Generator:
    """Return a random generator that depends on these two numbers only.

    The streams from 0 up belong to the epochs; other uses take streams from 2**63 up.
    """
    # Philox is counter-based: any key gives an independent stream without a warm-up.
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))


def _to_table(
    arrow: pa.Table, types: dict[str, ColumnType], columns: list[str], rows: int
) -> Table:
    return Table(
        types={name: types[name] for name in columns},
        columns={name: _to_column(arrow.column(name), types[name]) for name in columns},
        rows=rows,
    )


def _to_column(values: "pa.ChunkedArray[Any]", column_type: ColumnType) -> ColumnValues:
    if column_type in TEXTUAL:
        encoded: Any = values.cast(pa.string()).dictionary_encode().combine_chunks()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return Categories(codes.astype(np.int32), encoded.dictionary.to_pylist())
    if column_type == "datetime":
        micros = values.cast(pa.timestamp("us")).cast(pa.int64())
        return _to_floats(micros) / 1e6
    return _to_floats(values)


def _to_floats(values: "pa.ChunkedArray[Any]") -> Floats:
    # Not `safe`: an integer beyond 2**53 is rounded, and no network can tell the difference.
    numbers: Floats = values.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    if not np.isfinite(numbers).all():
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    return numbers
