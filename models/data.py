"""A table as arrays, and random orders of its rows.

A table may be larger than the memory that its columns should take, so its columns can stay in their
file: each is read when it is used. An order is a pure function of the seed and a stream number, so
that a resumed run sees the same rows. Knows NumPy and Parquet, nothing of networks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from descent.spec import TEXTUAL, ColumnType
from models.errors import DataInvalid
from models.reading import Reading, TableReading

Floats: TypeAlias = NDArray[np.float64]
#: int64, or int32 where there are many.
Integers: TypeAlias = NDArray[np.signedinteger[Any]]

BATCH_CELLS = 4_000_000  # cells in memory while a table is read in batches
#: Cells of columns that are read together and kept until others are read: 8 MB as float64. A table
#: with fewer cells is read once.
KEPT_CELLS = 1_000_000
#: Rows and cells of a block in which a table is read from its first row to its last.
BLOCK_ROWS, BLOCK_CELLS = 16_384, 2_000_000
EXACT = 2**53  # whole numbers up to here are exact as float64


@dataclass(frozen=True)
class Categories:
    """A column of text: per row, the place of its text in `values`."""

    #: -1 where the value is missing.
    codes: NDArray[np.int32]
    values: Sequence[str]


#: Numbers, booleans as 0 and 1, datetimes as seconds since 1970 in UTC; NaN where missing.
ColumnValues: TypeAlias = Floats | Categories


def _cut(column: ColumnValues, rows: slice) -> ColumnValues:
    if isinstance(column, Categories):
        return Categories(column.codes[rows], column.values)
    return column[rows]


def take(column: ColumnValues, rows: Integers) -> ColumnValues:
    """Return the values of these rows, in the order of `rows`."""
    if isinstance(column, Categories):
        return Categories(column.codes[rows], column.values)
    return column[rows]


@dataclass(frozen=True)
class Table:
    """The columns of a dataset that a run needs."""

    types: Mapping[str, ColumnType]
    columns: Mapping[str, ColumnValues]
    rows: int
    #: How the text of the cells was read, by column; a column without one has today's rules.
    readings: Mapping[str, Reading] = field(default_factory=dict)
    #: How the whole table was read; None for a table that was read by earlier versions.
    reading: TableReading | None = None
    #: The columns of whole numbers beyond 2**53, which float64 rounds: int64, 0 where missing.
    exact: Mapping[str, Integers] = field(default_factory=dict)
    #: The file that the columns are read from when they are used; None if they are in memory.
    stored: "Stored | None" = None

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

    def blocks(
        self, names: Sequence[str], parts: Sequence[Integers], width: int = 0
    ) -> Iterator[tuple["Table", list[Integers]]]:
        """Yield these columns in blocks of rows, with the places in it of the rows of each part.

        The rows of a part must be ascending. A block is small enough that its cells, or `width`
        numbers for each of its rows, take little memory; one without a row of a part is left out.
        """
        size = max(1, min(BLOCK_ROWS, BLOCK_CELLS // max(1, len(names), width)))
        before = 0
        for block in self._cut(names, size):
            limits = [_between(rows, before, before + block.rows) for rows in parts]
            if any(last > first for first, last in limits):
                pairs = zip(parts, limits, strict=True)
                yield block, [rows[first:last] - before for rows, (first, last) in pairs]
            before += block.rows

    def _cut(self, names: Sequence[str], size: int) -> Iterator["Table"]:
        before = 0
        for columns, rows in self._columns_in_blocks(names, size):
            here = slice(before, before + rows)
            exact = {name: self.exact[name][here] for name in names if name in self.exact}
            yield replace(self, columns=columns, rows=rows, exact=exact, stored=None)
            before += rows

    def _columns_in_blocks(
        self, names: Sequence[str], size: int
    ) -> Iterator[tuple[Mapping[str, ColumnValues], int]]:
        if self.stored is not None:
            if isinstance(self.columns, Lazy):
                self.columns.forget()
            for batch in self.stored.cut(names, size):
                part = self.stored.table(pa.Table.from_batches([batch]), names)
                yield part.columns, part.rows
            return
        columns = {name: self.columns[name] for name in names}
        for start in range(0, self.rows, size):
            here = slice(start, start + size)
            cut = {name: _cut(column, here) for name, column in columns.items()}
            yield cut, min(size, self.rows - start)

    def parts(self, rows: Integers, size: int) -> Iterator["Table"]:
        """Yield the given rows, which must be ascending, as tables of at most `size` rows."""
        if self.stored is not None:
            for batch in self.stored.batches(rows, size):
                part = self.stored.table(pa.Table.from_batches([batch]))
                yield replace(self, columns=part.columns, rows=part.rows, exact={}, stored=None)
            return
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            columns = {name: take(column, chosen) for name, column in self.columns.items()}
            yield replace(self, columns=columns, rows=len(chosen), exact={})


def read_table(
    path: Path,
    types: Mapping[str, ColumnType],
    columns: Sequence[str],
) -> Table:
    """Read `columns` of a dataset version, a Parquet file that the service wrote."""
    with Stored(path, types, columns) as stored:
        return Table(
            types=stored.types,
            columns=stored.read(columns),
            rows=stored.rows,
            exact=stored.read_exactly(columns),
        )


def open_table(
    path: Path,
    types: Mapping[str, ColumnType],
    columns: Sequence[str],
    exactly: Sequence[str],
) -> Table:
    """Return the table of these columns, each of which is read whenever it is used.

    The whole numbers of the columns in `exactly` are also kept as such, if float64 rounds them. A
    small table is read at once.
    """
    stored = Stored(path, types, columns)
    if stored.rows * len(columns) <= KEPT_CELLS:
        stored.close()
        return read_table(path, types, columns)
    return Table(
        types=stored.types,
        columns=Lazy(stored),
        rows=stored.rows,
        exact=stored.read_exactly(exactly),
        stored=stored,
    )


def read_rows(
    path: Path,
    types: Mapping[str, ColumnType],
    columns: Sequence[str],
    rows: Integers,
) -> tuple[Table, pa.Table]:
    """Read the given rows, and return them as arrays and as the stored Arrow cells.

    `rows` must be ascending. The file is read in batches, because the whole table may be larger
    than the memory.
    """
    with Stored(path, types, columns) as stored:
        arrow = pa.Table.from_batches(list(stored.batches(rows)))
        return stored.table(arrow), arrow


class Stored:
    """The Parquet file of a dataset version, and the columns of it that are needed."""

    def __init__(self, path: Path, types: Mapping[str, ColumnType], columns: Sequence[str]) -> None:
        self.types = {name: types[name] for name in columns}
        self._file = pq.ParquetFile(path, pre_buffer=False)
        self.rows: int = self._file.metadata.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self, names: Sequence[str]) -> dict[str, ColumnValues]:
        """Return whole columns; beside them only a row group of them is in memory."""
        readers = {name: _reader(self.types[name], self.rows) for name in names}
        for group in range(self._file.num_row_groups if names else 0):
            cells = self._file.read_row_group(group, columns=list(names), use_threads=False)
            for name, reader in readers.items():
                for chunk in cells.column(name).chunks:
                    reader.add(chunk)
        return {name: reader.values() for name, reader in readers.items()}

    def table(self, arrow: pa.Table, names: Sequence[str] | None = None) -> Table:
        """Return some rows of the file as arrays: all columns, or those of `names`."""
        names = list(self.types) if names is None else names
        readers = {name: _reader(self.types[name], arrow.num_rows) for name in names}
        for name, reader in readers.items():
            for chunk in arrow.column(name).chunks:
                reader.add(chunk)
        columns = {name: reader.values() for name, reader in readers.items()}
        return Table(self.types, columns, arrow.num_rows)

    def read_exactly(self, names: Sequence[str]) -> dict[str, Integers]:
        """Return those columns of whole numbers that float64 would round."""
        found = {}
        for name in names:
            if self.types[name] == "integer" and not self._is_within_doubles(name):
                found[name] = _whole(self._file.read(columns=[name], use_threads=False)[name])
        return found

    def _is_within_doubles(self, name: str) -> bool:
        return not any(_is_rounded(batch.column(0)) for batch in self.cut([name], BLOCK_ROWS))

    def cut(self, names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yield these columns in batches of `size` rows, of which the last may have fewer."""
        yield from self._file.iter_batches(size, columns=list(names), use_threads=False)

    def batches(self, rows: Integers, size: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the given rows, which must be ascending, in parts."""
        before = 0
        size = size or max(256, min(100_000, BATCH_CELLS // len(self.types)))
        for batch in self.cut(list(self.types), size):
            first, last = _between(rows, before, before + batch.num_rows)
            yield batch.take(rows[first:last] - before)
            before += batch.num_rows


class Lazy(Mapping[str, ColumnValues]):
    """Columns of a file, each of which is read when it is used.

    Neighbours are read together, as many as `KEPT_CELLS` allows, and the last ones are kept.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        names = list(stored.types)
        size = max(1, KEPT_CELLS // max(1, stored.rows))
        groups = [names[start : start + size] for start in range(0, len(names), size)]
        self._group = {name: group for group in groups for name in group}
        self._kept: dict[str, ColumnValues] = {}

    def __getitem__(self, name: str) -> ColumnValues:
        group = self._group[name]
        if name not in self._kept:
            self._kept = {}  # free these columns before others are read
            self._kept = self._stored.read(group)
        return self._kept[name]

    def forget(self) -> None:
        """Free the columns that were read last."""
        self._kept = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored.types)

    def __len__(self) -> int:
        return len(self._stored.types)


def _between(rows: Integers, first: int, last: int) -> tuple[int, int]:
    """Return the places in ascending rows of those from `first` to before `last`."""
    # Of the same type, or NumPy would convert all rows each time.
    begin, end = np.searchsorted(rows, np.array([first, last], rows.dtype)).tolist()
    return begin, end


def release() -> None:
    """Return the memory that reading a table took to the system."""
    pa.default_memory_pool().release_unused()


def epoch_order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
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


def _reader(column_type: ColumnType, rows: int) -> "_Texts | _Numbers":
    if column_type in TEXTUAL:
        return _Texts(rows)
    return _Numbers(rows, is_time=column_type == "datetime")


class _Texts:
    """Collects the chunks of a column of text; its values are in the order of the rows."""

    def __init__(self, rows: int) -> None:
        self._codes = np.empty(rows, np.int32)
        self._places: dict[str, int] = {}
        self._done = 0

    def add(self, chunk: "pa.Array[Any]") -> None:
        encoded: Any = chunk.cast(pa.string()).dictionary_encode()
        places = [
            self._places.setdefault(text, len(self._places))
            for text in encoded.dictionary.to_pylist()
        ]
        indices: Any = encoded.indices
        codes = indices.fill_null(-1).to_numpy(zero_copy_only=False)
        end = self._done + len(codes)
        # The code of a missing value, -1, selects the last place.
        self._codes[self._done : end] = np.array([*places, -1], np.int32)[codes]
        self._done = end

    def values(self) -> Categories:
        return Categories(self._codes, list(self._places))


class _Numbers:
    """Collects the chunks of a column of numbers, booleans or times."""

    def __init__(self, rows: int, *, is_time: bool) -> None:
        self._values = np.empty(rows)
        self._is_time = is_time
        self._done = 0

    def add(self, chunk: "pa.Array[Any]") -> None:
        if self._is_time:
            chunk = chunk.cast(pa.timestamp("us")).cast(pa.int64())
        # Not `safe`: an integer beyond 2**53 is rounded, and no network can tell the difference.
        numbers = chunk.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        end = self._done + len(numbers)
        out = self._values[self._done : end]
        np.divide(numbers, 1e6 if self._is_time else 1.0, out=out)
        out[~np.isfinite(out)] = np.nan
        self._done = end

    def values(self) -> Floats:
        return self._values


def _is_rounded(cells: "pa.Array[Any]") -> bool:
    """Return whether these whole numbers reach beyond those that float64 holds."""
    limits = pc.min_max(cells)
    least, most = limits["min"].as_py(), limits["max"].as_py()
    return least is not None and (least < -EXACT or most > EXACT)


def _whole(cells: "pa.ChunkedArray[Any]") -> Integers:
    whole: Any = cells.cast(pa.int64())
    found: Integers = whole.fill_null(0).to_numpy()
    return found
