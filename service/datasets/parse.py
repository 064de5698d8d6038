"""What the parser's process does: a file becomes a typed Parquet file and its profile.

It knows folders and files, and neither the database nor HTTP. It answers with JSON.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from service.datasets import queries
from service.datasets.columnar import stage_arrow, stage_parquet
from service.datasets.dialect import detect
from service.datasets.documents import stage_body, stage_ndjson
from service.datasets.infer import Column, infer
from service.datasets.profile import describe
from service.datasets.rejected import Rejected, shown
from service.datasets.sandbox import TABLE, Task
from service.datasets.staging import Stage, stage_csv

ROW_GROUP = 100_000  # rows
#: the values that are missing unless the upload says otherwise
MISSING = (
    "", "NA", "na", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "Null", "?",
)  # fmt: skip
MAGIC = {
    "application/vnd.apache.parquet": (b"PAR1", "Parquet"),
    "application/vnd.apache.arrow.file": (b"ARROW1", "an Arrow file"),
}
_ARROW: dict[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}


def parse(task: Task) -> dict[str, Any]:
    """Return rows, columns, warnings and name; the table is `table.parquet` in the folder.

    Raises Rejected.
    """
    path, folder = Path(task.path), Path(task.folder)
    if path.stat().st_size == 0 and task.media_type != "application/json":  # which tells itself
        raise Rejected("empty_file", "The file is empty: send at least one row of data.")
    stage, name = _stage(task, path, folder)
    overrides: dict[str, str] = task.options.get("types") or {}
    if unknown := sorted(set(overrides) - set(stage.names)):
        raise Rejected("unknown_column", f"There is no column {shown(unknown[0])}.")
    with queries.connect(folder, task.memory_bytes, stage.rows) as connection:
        queries.hold(connection, stage)
        columns, warnings = infer(connection, stage, overrides)
        profiles = describe(connection, stage, columns)
        _write(connection, stage, columns, folder / TABLE)
    return {
        "rows": stage.rows,
        "columns": profiles,
        "warnings": stage.warnings + warnings,
        "name": name,
    }


def _stage(task: Task, path: Path, folder: Path) -> tuple[Stage, str | None]:
    given = task.options.get("missing_values")
    missing = frozenset(MISSING if given is None else [*given, ""])
    if task.media_type in MAGIC:
        check_magic(path, task.media_type)
        if task.media_type.endswith("parquet"):
            return stage_parquet(path, folder, task.max_columns), None
        return stage_arrow(path, folder, task.max_columns), None
    if task.media_type == "application/x-ndjson":
        return stage_ndjson(path, folder, missing, task.max_columns), None
    if task.media_type == "application/json":
        return stage_body(path, folder, missing, task.max_columns)
    dialect = detect(
        path,
        delimiter=task.options.get("delimiter"),
        header=task.options.get("header") or "auto",
        missing=missing,
        max_columns=task.max_columns,
    )
    return stage_csv(path, folder, dialect, missing), None


def check_magic(path: Path, media_type: str) -> None:
    magic, what = MAGIC[media_type]
    with path.open("rb") as file:
        if file.read(len(magic)) != magic:
            raise Rejected(
                "wrong_format",
                f"The content type says {what}, but the file does not begin as one does: send the"
                " content type that it has.",
            )


def _write(
    connection: duckdb.DuckDBPyConnection, stage: Stage, columns: list[Column], target: Path
) -> None:
    """Write the typed table, row group by row group: memory is bounded and the order is kept."""
    schema = pa.schema([(c.name, _ARROW.get(c.type, pa.string())) for c in columns])
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for found in _typed(connection, stage, columns):
            typed = [array.cast(field.type) for array, field in zip(found, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(typed, schema=schema), ROW_GROUP)


def _typed(
    connection: duckdb.DuckDBPyConnection, stage: Stage, columns: list[Column]
) -> Iterator[list["pa.ChunkedArray[Any]"]]:
    """Yield the columns as values of their types, row group by row group."""

    def select(part: range, table: str) -> list["pa.ChunkedArray[Any]"]:
        values = ", ".join(f"{columns[i].expression(i)} AS c{i}" for i in part)
        found = connection.sql(f"SELECT {values} FROM {table}").to_arrow_table()  # noqa: S608  ours
        return list(found.columns)

    if stage.held is not None:
        yield select(range(len(columns)), f"{queries.HELD} ORDER BY file_row_number")
        return
    slabs = [(pq.ParquetFile(path), part) for path, part in stage.slabs()]
    for number in range(slabs[0][0].num_row_groups):
        arrays: list[pa.ChunkedArray[Any]] = []
        for file, part in slabs:
            connection.register("staged", file.read_row_group(number))
            arrays += select(part, "staged")
            connection.unregister("staged")
        yield arrays
