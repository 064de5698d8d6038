"""Reads rows of a stored table: only the row groups and columns that are asked for."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def read_rows(path: Path, first: int, count: int, columns: list[str]) -> list[dict[str, Any]]:
    """Return rows `first` to `first + count` as JSON values, in the order of the file."""
    with pq.ParquetFile(path) as file:
        # By number: a name with a dot would be taken for a path into a nested column.
        places = {name: index for index, name in enumerate(file.schema_arrow.names)}
        wanted = [places[name] for name in columns]
        lists = [_values(file, place, first, count) for place in wanted]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _values(file: pq.ParquetFile, place: int, first: int, count: int) -> list[Any]:
    values: list[Any] = []
    for group, start, stop in _parts(file, first, count):
        found = file.reader.read_row_group(group, column_indices=[place], use_threads=False)
        values += _plain(found.column(0).slice(start, stop - start))
    return values


def _parts(file: pq.ParquetFile, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield each row group that holds some of the rows, and which of its own rows they are."""
    begin = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        start, stop = max(first, begin), min(first + count, begin + rows)
        if start < stop:
            yield group, start - begin, stop - begin
        begin += rows
        if begin >= first + count:
            return


def _plain(column: "pa.ChunkedArray[Any]") -> list[Any]:
    return [
        f"{value.isoformat()}Z" if isinstance(value, datetime) else value
        for value in column.to_pylist()
    ]
