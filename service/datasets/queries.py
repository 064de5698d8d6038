"""DuckDB, locked down, over the staged files of one table; and the expressions that type a cell.

Every name in a query is ours (`c0`, `c1`, …): no text of a client becomes SQL.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from service.datasets.staging import Kind, Stage

THREADS = 2
SMALL = 100_000  # rows up to which a second thread costs more than it brings
#: what plans of one table can gain from; the others cost more than such queries take
OPTIMIZERS = (
    "expression_rewriter",
    "filter_pushdown",
    "unused_columns",
    "column_lifetime",
    "top_n",
)
COLUMNS = 50  # of one query, at most
COLUMNS_KEPT = 8  # where it keeps distinct values: each takes megabytes, however few they are
CELLS = 4_000_000  # of one query that keeps distinct values in memory, at most
#: dates that are not ISO 8601; the first that fits every value wins
DATE_FORMATS = {"date_dot": "%d.%m.%Y", "date_us": "%m/%d/%Y", "date_slash": "%d/%m/%Y"}
#: words that mean true, and their opposites
BOOLEAN_PAIRS = {
    "true_false": ("true", "false"),
    "yes_no": ("yes", "no"),
    "t_f": ("t", "f"),
    "y_n": ("y", "n"),
}
TRUE = ("true", "yes", "t", "y", "1", "1.0")
FALSE = ("false", "no", "f", "n", "0", "0.0")


#: a connection that no query has used, and the process that opened it
_opened: list[tuple[int, duckdb.DuckDBPyConnection]] = []


def warm() -> None:
    """Open a connection for each of the processes that are forked from this one.

    To open one takes longer than all queries over a small table. It has no threads of its own,
    which a fork would lose.
    """
    if not _opened:
        _opened.append((os.getpid(), _open()))


@contextmanager
def connect(folder: Path, memory_bytes: int, rows: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection that reads and writes in `folder` only."""
    is_forked = bool(_opened) and _opened[0][0] != os.getpid()
    connection = _opened.pop()[1] if is_forked else _open()
    for statement in (
        f"SET threads = {1 if rows <= SMALL else THREADS}",
        f"SET memory_limit = '{memory_bytes // 1024}KiB'",
        f"SET temp_directory = {quoted(folder / 'spill')}",
        f"SET allowed_directories = [{quoted(folder)}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    try:
        yield connection
    finally:
        if is_forked:
            _opened.append((os.getpid(), connection))  # the end of the process is quicker
        else:
            connection.close()


def _open() -> duckdb.DuckDBPyConnection:
    """Return a connection with all settings that do not depend on the table."""
    connection = duckdb.connect(":memory:", config={"threads": 1, "async_threads": 0})
    known = connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()
    unused = ",".join(name for (name,) in known if name not in OPTIMIZERS)
    for statement in (
        f"SET disabled_optimizers = {quoted(unused)}",
        "SET enable_progress_bar = false",
        "SET allocator_flush_threshold = '16MiB'",
        "SET TimeZone = 'UTC'",
        "SET parquet_metadata_cache = true",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "CREATE MACRO finite(x) AS CASE WHEN isfinite(x) THEN x END",
    ):
        connection.execute(statement)
    return connection


def quoted(value: Path | str) -> str:
    text = str(value).replace("'", "''")
    return f"'{text}'"


HELD = "held"  # the relation of a table that stayed in memory


def source(slab: Path | None) -> str:
    if slab is None:
        return HELD
    return f"read_parquet({quoted(slab)}, file_row_number = true)"


def hold(connection: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Give a connection the table of a stage that stayed in memory, if it did."""
    if stage.held is not None:
        connection.register("arrow", stage.held)
        connection.execute(
            f"CREATE TABLE {HELD} AS SELECT *, row_number() OVER () - 1 AS file_row_number"  # noqa: S608  ours
            " FROM arrow"
        )


def groups(
    stage: Stage, wanted: Sequence[int], *, keeps_values: bool = False
) -> Iterator[tuple[Path | None, list[int]]]:
    """Yield the wanted columns in groups that one query can answer in bounded memory."""
    size = COLUMNS
    if keeps_values:
        size = max(1, min(COLUMNS_KEPT, CELLS // max(1, stage.rows)))
    chosen = set(wanted)
    for slab, columns in stage.slabs():
        present = [column for column in columns if column in chosen]
        for first in range(0, len(present), size):
            yield None if stage.held is not None else slab, present[first : first + size]


def select(
    connection: duckdb.DuckDBPyConnection, table: str, expressions: Sequence[str]
) -> tuple[Any, ...]:
    """Return the one row of an aggregate query."""
    # All rows are fetched, though there is one: a result that has not ended blocks the connection.
    (row,) = connection.execute(f"SELECT {', '.join(expressions)} FROM {table}").fetchall()  # noqa: S608  expressions are ours
    return tuple(row)


# ---- expressions ----------------------------------------------------------------------------


def is_number(cell: str) -> str:
    # DuckDB also reads 1_000, which nothing else in this service does.
    return f"(TRY_CAST({cell} AS DOUBLE) IS NOT NULL AND NOT contains({cell}, '_'))"


def is_integer(cell: str) -> str:
    # A cast to BIGINT alone would round 1.5 and read 1e5, 0x10 and 0b11.
    return (
        f"({is_number(cell)} AND TRY_CAST({cell} AS BIGINT) IS NOT NULL"
        f" AND NOT contains({cell}, '.') AND NOT contains(lower({cell}), 'e'))"
    )


def is_decimal_comma(cell: str) -> str:
    return f"regexp_full_match({cell}, '[+-]?[0-9]+(,[0-9]+)?')"


def is_digits(cell: str) -> str:
    return f"regexp_full_match({cell}, '[0-9]+')"


def has_leading_zero(cell: str) -> str:
    return f"(starts_with({cell}, '0') AND length({cell}) > 1)"


def is_datetime(cell: str) -> str:
    return f"(finite(TRY_CAST({cell} AS TIMESTAMPTZ)) IS NOT NULL)"


def is_date_of(cell: str, name: str) -> str:
    return f"({_parsed(cell, name)} IS NOT NULL)"


def is_word_of(cell: str, pair: str) -> str:
    return f"(lower({cell}) IN {_words(BOOLEAN_PAIRS[pair])})"


def typed(cell: str, kind: Kind, type_: str, date_format: str | None = None) -> str:
    """Return the expression of a staged cell as a value of a column type; NULL where it is none."""
    if kind == type_:
        return f"finite({cell})" if kind in {"number", "datetime"} else cell
    if kind != "text":
        cell = f"CAST({cell} AS VARCHAR)"
    if type_ == "number":
        return f"CASE WHEN NOT contains({cell}, '_') THEN finite(TRY_CAST({cell} AS DOUBLE)) END"
    if type_ == "integer":
        whole = f"TRY_CAST({cell} AS BIGINT)"
        return (
            f"CASE WHEN TRY_CAST({cell} AS DOUBLE) = CAST({whole} AS DOUBLE)"
            f" AND NOT contains({cell}, '_') THEN {whole} END"
        )
    if type_ == "boolean":
        return (
            f"CASE WHEN lower({cell}) IN {_words(TRUE)} THEN true"
            f" WHEN lower({cell}) IN {_words(FALSE)} THEN false END"
        )
    if type_ == "datetime":
        if date_format:
            return _parsed(cell, date_format)
        iso = f"finite(TRY_CAST({cell} AS TIMESTAMPTZ)) AT TIME ZONE 'UTC'"
        return f"coalesce({', '.join([iso, *(_parsed(cell, name) for name in DATE_FORMATS)])})"
    return cell


def _parsed(cell: str, name: str) -> str:
    day = DATE_FORMATS[name]
    forms = ", ".join(quoted(form) for form in (day, f"{day} %H:%M", f"{day} %H:%M:%S"))
    return f"try_strptime({cell}, [{forms}])"


def _words(words: Sequence[str]) -> str:
    return f"({', '.join(quoted(word) for word in words)})"
