"""Decides the type and the role of every column, and gives the reason in a sentence.

A sample of the first rows excludes types; the whole file decides. The queries run in DuckDB, locked
down, over the staged files of one table. Every name in a query is ours (`c0`, `c1`, …): no text of
a client becomes SQL.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from descent.codes import make_warning
from service.datasets.rejected import shown
from service.datasets.staging import Kind, Stage

THREADS = 2
SMALL = 100_000  # rows up to which a second thread costs more than it gains
#: the optimizers that help queries over one table; the others take longer than such queries
OPTIMIZERS = (
    "expression_rewriter",
    "filter_pushdown",
    "unused_columns",
    "column_lifetime",
    "top_n",
)
COLUMNS = 50  # the most columns of one query
#: the most columns of a query that keeps distinct values: each column takes megabytes
COLUMNS_KEPT = 8
CELLS = 4_000_000  # the most cells of a query that keeps distinct values in memory
#: forms of dates other than ISO 8601; the first that fits every value wins
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
HELD = "held"  # the name of a table that stayed in memory
SAMPLE_ROWS = 10_000
MANY = 0.5  # the share of numbers from which the reason names the first value that is not one
FEW_CATEGORIES = 20  # up to this many different values are categories, however few rows there are
MOST_CATEGORIES = 1000  # more different values are free text
SEEN = 5  # how often a category occurs on average, if there are more than FEW_CATEGORIES
LONGEST_CATEGORY = 200  # characters of a category
_ID_NAME = re.compile(r"(?i:id|uuid|index|.*_id)|.*[a-z0-9]I[dD]")


#: a connection that no query has used, and the process that opened it
_opened: list[tuple[int, duckdb.DuckDBPyConnection]] = []


def warm() -> None:
    """Open a connection, which the processes forked from this one inherit.

    Opening takes longer than all queries over a small table. The connection has no threads, which
    a fork would lose.
    """
    if not _opened:
        _opened.append((os.getpid(), _open()))


def opened() -> duckdb.DuckDBPyConnection | None:
    """Return the connection that was opened before the fork and that `connect` will give."""
    return _opened[0][1] if _opened else None


@contextmanager
def connect(folder: Path, memory_bytes: int, rows: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection that reads and writes only in `folder`."""
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
            _opened.append(
                (os.getpid(), connection)
            )  # the process ends soon, which is quicker than closing
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


def source(slab: Path | None) -> str:
    if slab is None:
        return HELD
    return f"read_parquet({quoted(slab)}, file_row_number = true)"


def hold(connection: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Copy the table of a stage into the connection if it stayed in memory."""
    if stage.held is not None:
        connection.register("arrow", stage.held)
        connection.execute(
            f"CREATE TABLE {HELD} AS SELECT *, row_number() OVER () - 1 AS file_row_number"  # noqa: S608  ours
            " FROM arrow"
        )


def let_go(connection: duckdb.DuckDBPyConnection) -> None:
    """Undo `hold`."""
    connection.execute(f"DROP TABLE IF EXISTS {HELD}")
    connection.unregister("arrow")


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
    # `fetchall`, although there is one row, because an unfinished result blocks the connection.
    (row,) = connection.execute(f"SELECT {', '.join(expressions)} FROM {table}").fetchall()  # noqa: S608  expressions are ours
    return tuple(row)


# ---- expressions ----------------------------------------------------------------------------


def is_number(cell: str) -> str:
    # DuckDB also reads 1_000, unlike every other reader of this service.
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
    """Return the expression that casts a staged cell to a column type; NULL if it does not fit."""
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


# ---- types and roles ------------------------------------------------------------------------

#: tests of a cell, by name
NUMBERS = {
    "integer": is_integer,
    "number": is_number,
    "digits": is_digits,
}
WORDS = ["datetime", *DATE_FORMATS, *BOOLEAN_PAIRS]


@dataclass
class ReadColumn:
    """A column: its type, its role, the reason for both, and its counts."""

    name: str
    kind: Kind
    type: str = "text"
    role: str = "feature"
    why: str = ""
    date_format: str | None = None
    #: whether its numbers are written like 1,5
    has_decimal_comma: bool = False
    #: how many values are not missing, and how many of these its type cannot hold
    present: int = 0
    lost: int = 0
    distinct: int = 0
    longest: int = 0
    #: test → how many values pass it
    passed: dict[str, int] = field(default_factory=dict)

    def expression(self, index: int) -> str:
        cell = f"replace(c{index}, ',', '.')" if self.has_decimal_comma else f"c{index}"
        return typed(cell, self.kind, self.type, self.date_format)


def infer_types(
    connection: DuckDBPyConnection, stage: Stage, overrides: dict[str, str]
) -> tuple[list[ReadColumn], list[dict[str, str]]]:
    """Return the columns with their types and roles, and warnings."""
    columns = [ReadColumn(name, kind) for name, kind in zip(stage.names, stage.kinds, strict=True)]
    warnings: list[dict[str, str]] = []
    _count_present(connection, stage, columns)
    texts = [i for i, column in enumerate(columns) if column.kind == "text"]
    # A column that the client calls numeric is tested too, for its decimal commas.
    open_ = [
        i
        for i in texts
        if columns[i].present and overrides.get(columns[i].name, "number") == "number"
    ]
    _test(connection, stage, columns, open_)
    for column in columns:
        forced = overrides.get(column.name)
        column.type = forced or _base_type(column, warnings)
        if forced:
            column.why = "the type was given"
            column.has_decimal_comma = column.present > 0 and _has_decimal_comma(column)
    _count_distinct(connection, stage, columns)
    for index, column in enumerate(columns):
        if column.name not in overrides:
            _refine(column)
            _explain_text(connection, stage, index, column, warnings)
            column.why += _not_finite(column)
        if column.lost:
            warnings.append(_lost(column))
    _give_roles(columns, warnings)
    return columns, warnings


# ---- counting -------------------------------------------------------------------------------


def _count_present(connection: DuckDBPyConnection, stage: Stage, columns: list[ReadColumn]) -> None:
    for slab, group in groups(stage, range(len(columns))):
        asked = [
            f"count(c{i}), {f'max(length(c{i}))' if columns[i].kind == 'text' else '0'}"
            for i in group
        ]
        found = select(connection, source(slab), asked)
        for position, index in enumerate(group):
            columns[index].present = found[2 * position]
            columns[index].longest = found[2 * position + 1] or 0


def _expression(test: str, cell: str) -> str:
    if test == "zeros":
        return has_leading_zero(cell)
    if test == "comma":
        return is_decimal_comma(cell)
    if test in NUMBERS:
        return NUMBERS[test](cell)
    if test in DATE_FORMATS:
        return is_date_of(cell, test)
    if test in BOOLEAN_PAIRS:
        return is_word_of(cell, test)
    return is_datetime(cell)


def _test(
    connection: DuckDBPyConnection, stage: Stage, columns: list[ReadColumn], wanted: list[int]
) -> None:
    """Count the values that are numbers; in columns of others, also the dates and words."""
    _count_passed(connection, stage, columns, wanted, list(NUMBERS))
    others = [i for i in wanted if columns[i].passed.get("number", 0) < columns[i].present]
    tests = [*WORDS, "comma"] if stage.allows_decimal_comma else WORDS
    _count_passed(connection, stage, columns, others, tests)


def _count_passed(
    connection: DuckDBPyConnection,
    stage: Stage,
    columns: list[ReadColumn],
    wanted: list[int],
    tests: list[str],
) -> None:
    """Count passes in a sample; then over all rows, for the tests that all rows may pass."""
    for slab, group in groups(stage, wanted):
        possible = [(i, test) for i in group for test in tests]
        if stage.rows > SAMPLE_ROWS:
            possible = _possible(connection, slab, possible)
        possible += [(i, "zeros") for i, test in possible if test == "digits"]
        if not possible:
            continue
        exact = [f"count_if({_expression(test, f'c{i}')})" for i, test in possible]
        found = select(connection, source(slab), exact)
        for (i, test), passed in zip(possible, found, strict=True):
            columns[i].passed[test] = passed


def _possible(
    connection: DuckDBPyConnection, slab: Path | None, asked: list[tuple[int, str]]
) -> list[tuple[int, str]]:
    group = sorted({i for i, _test in asked})
    names = ", ".join(f"c{i}" for i in group)
    sample = f"(SELECT {names} FROM {source(slab)} LIMIT {SAMPLE_ROWS})"  # noqa: S608  names are ours
    counts = [f"count(c{i})" for i in group]
    passes = [f"count_if({_expression(test, f'c{i}')})" for i, test in asked]
    found = select(connection, sample, counts + passes)
    present = dict(zip(group, found, strict=False))
    return [
        (i, test)
        for (i, test), passed in zip(asked, found[len(group) :], strict=True)
        if passed == present[i] or (test == "number" and passed >= MANY * present[i])
    ]


def _count_distinct(
    connection: DuckDBPyConnection, stage: Stage, columns: list[ReadColumn]
) -> None:
    for slab, group in groups(stage, range(len(columns)), keeps_values=True):
        for i in group:
            columns[i].lost = columns[i].present
        if len(group) == 1:
            # GROUP BY can spill millions of values to disk; a distinct aggregate cannot.
            value = columns[group[0]].expression(group[0])
            table = f"(SELECT {value} AS v, count(*) AS n FROM {source(slab)} GROUP BY 1)"  # noqa: S608  ours
            found = select(connection, table, ["count(v)", "sum(n) FILTER (v IS NOT NULL)"])
        else:
            values = [columns[i].expression(i) for i in group]
            asked = [f"count(DISTINCT {value}), count({value})" for value in values]
            found = select(connection, source(slab), asked)
        for position, i in enumerate(group):
            columns[i].distinct = found[2 * position]
            columns[i].lost -= found[2 * position + 1] or 0


# ---- deciding -------------------------------------------------------------------------------


def _base_type(column: ReadColumn, warnings: list[dict[str, str]]) -> str:
    """Return the type that fits every present value; text if no other does."""
    if column.kind != "text":
        column.why = f"the file stores it as {_article(column.kind)}"
        return column.kind
    if not column.present:
        column.why = "every value is missing"
        warnings.append(
            make_warning(
                "all_missing", f"Every value of {shown(column.name)} is missing.", column.name
            )
        )
        return "text"
    every = {test for test, passed in column.passed.items() if passed == column.present}
    if "digits" in every and column.passed.get("zeros"):
        column.why = f"{column.passed['zeros']} values are digits with leading zeros"
        return "id"
    if "integer" in every:
        column.why = "every value is a whole number"
        return "integer"
    if "number" in every:
        column.why = "every value parses as a number"
        return "number"
    if _has_decimal_comma(column):
        column.has_decimal_comma = True
        column.why = "every value is a number with a decimal comma"
        return "number"
    for name, pair in BOOLEAN_PAIRS.items():
        if name in every:
            column.why = f"every value is {pair[0]} or {pair[1]}"
            return "boolean"
    if "datetime" in every:
        column.why = "every value is an ISO 8601 date or time"
        return "datetime"
    dates = [name for name in DATE_FORMATS if name in every]
    if dates:
        return _date_type(column, dates, warnings)
    return "text"


def _has_decimal_comma(column: ReadColumn) -> bool:
    return column.passed.get("comma") == column.present


def _date_type(column: ReadColumn, dates: list[str], warnings: list[dict[str, str]]) -> str:
    column.date_format = dates[0]
    form = DATE_FORMATS[dates[0]]
    column.why = f"every value is a date of the form {form}"
    if len(dates) > 1:
        detail = (
            f"The dates of {shown(column.name)} can be read as month/day or as day/month: they are"
            f" read as {form}. Send ISO 8601 dates (2024-12-31) to be sure."
        )
        warnings.append(make_warning("ambiguous_date", detail, column.name))
    return "datetime"


def _article(kind: Kind) -> str:
    return {"number": "a number", "integer": "an integer", "boolean": "a boolean"}.get(
        kind, "a date or time"
    )


def _refine(column: ReadColumn) -> None:
    """Distinguish ids and categories from integers and free text."""
    differ = column.present > 0 and column.distinct == column.present
    if column.type == "integer" and differ and _ID_NAME.fullmatch(column.name):
        column.type = "id"
        column.why = (
            f"all {column.present} whole numbers differ and the column is called"
            f" {shown(column.name)}"
        )
    if column.type == "boolean" and column.distinct < 2 and _is_letter(column):
        column.type, column.why = "text", ""
    if column.type != "text" or not column.present:
        return
    if differ:
        column.type, column.why = "id", f"all {column.present} values are texts that differ"
    elif column.longest <= LONGEST_CATEGORY and (
        column.distinct <= FEW_CATEGORIES
        or column.distinct <= min(MOST_CATEGORIES, column.present // SEEN)
    ):
        column.type = "category"
        column.why = f"{column.present} values are {column.distinct} different texts"
    else:
        column.why = f"{column.distinct} of {column.present} values are different texts"


def _is_letter(column: ReadColumn) -> bool:
    """Return whether the only value is one letter, which may mean anything."""
    return column.longest == 1


def _explain_text(
    connection: DuckDBPyConnection,
    stage: Stage,
    index: int,
    column: ReadColumn,
    warnings: list[dict[str, str]],
) -> None:
    """If most values are numbers, count the others and name the first one."""
    numbers = column.passed.get("number", 0)
    is_text = column.kind == "text" and column.type in {"text", "category", "id"}
    if not is_text or not MANY * column.present <= numbers < column.present:
        return
    ((slab, _group),) = groups(stage, [index])
    table = f"{source(slab)} WHERE c{index} IS NOT NULL AND NOT {is_number(f'c{index}')}"
    number, value = select(
        connection, table, ["min(file_row_number)", f"arg_min(c{index}, file_row_number)"]
    )
    bad = column.present - numbers
    verb, noun = ("is not a number", "it") if bad == 1 else ("are not numbers", "them")
    reason = f"{bad} of {column.present} values {verb}, first in row {number + 1}: {shown(value)}"
    column.why = f"{reason}; {column.why}"
    detail = f"{reason}. Give {shown(column.name)} the type number to treat {noun} as missing."
    warnings.append(make_warning("mostly_numbers", detail, column.name))


def _not_finite(column: ReadColumn) -> str:
    """Return an addition to the reason of an inferred type.

    Every value is written as one of the type, so lost values are infinite or too large for a
    double.
    """
    if not column.lost:
        return ""
    verb = "is not finite and becomes" if column.lost == 1 else "are not finite and become"
    return f"; {column.lost} of {column.present} values {verb} missing"


def _lost(column: ReadColumn) -> dict[str, str]:
    noun = "value is" if column.lost == 1 else "values are"
    detail = (
        f"{column.lost} {noun} not a valid {column.type}, and missing now, in {shown(column.name)}."
    )
    return make_warning("values_lost", detail, column.name)


def _give_roles(columns: list[ReadColumn], warnings: list[dict[str, str]]) -> None:
    for column in columns:
        if column.type in {"id", "text"}:
            column.role = "ignored"
            column.why += "; an id or a free text is not a feature by default"
    if all(column.role == "ignored" for column in columns):
        for column in columns:
            column.role = "feature"
            column.why = column.why.partition("; an id or")[0]
        detail = (
            "Every column is an id or a free text: all stay features, because no other is left."
        )
        warnings.append(make_warning("only_ids_and_text", detail))
