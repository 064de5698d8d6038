"""Describes typed columns: range, mean, spread, histogram, most frequent values."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from service.datasets.infer import ReadColumn, groups, select, source
from service.datasets.staging import Stage

BINS = 20
MOST_TOP = 1000  # most frequent values of a column
TOP_OF_ALL = 200_000  # and of all columns together, which bounds the size of a profile
LONGEST_TOP = 200  # characters of a frequent value; longer ones are left out

NUMERIC = {"number", "integer"}


def describe(
    connection: DuckDBPyConnection, stage: Stage, columns: list[ReadColumn]
) -> list[dict[str, Any]]:
    """Return the profile of each column, as the API shows it."""
    profiles = [_plain(column, stage.rows) for column in columns]
    numeric = [i for i, column in enumerate(columns) if column.type in NUMERIC]
    _ranges(connection, stage, columns, profiles)
    _spreads(connection, stage, columns, profiles, numeric)
    _histograms(connection, stage, columns, profiles, numeric)
    _tops(connection, stage, columns, profiles)
    return profiles


def _plain(column: ReadColumn, rows: int) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "role": column.role,
        "missing": rows - column.present + column.lost,
        "distinct": column.distinct,
        "why": column.why,
    }


def _ranges(
    connection: DuckDBPyConnection,
    stage: Stage,
    columns: list[ReadColumn],
    profiles: list[dict[str, Any]],
) -> None:
    wanted = [i for i, column in enumerate(columns) if column.type in {*NUMERIC, "datetime"}]
    for slab, group in groups(stage, wanted):
        values = [columns[i].expression(i) for i in group]
        found = select(connection, source(slab), [f"min({v}), max({v})" for v in values])
        for position, i in enumerate(group):
            least, most = found[2 * position : 2 * position + 2]
            profiles[i] |= {"min": _shown(least), "max": _shown(most)}


def _shown(value: float | datetime | None) -> float | str | None:
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value


def _spreads(
    connection: DuckDBPyConnection,
    stage: Stage,
    columns: list[ReadColumn],
    profiles: list[dict[str, Any]],
    numeric: list[int],
) -> None:
    for slab, group in groups(stage, numeric):
        values = [columns[i].expression(i) for i in group]
        asked = [f"avg({v}), stddev_samp({v})" for v in values]
        try:
            found = select(connection, source(slab), asked)
        except duckdb.OutOfRangeException:
            found = tuple(x for each in asked for x in _spread_alone(connection, slab, each))
        for position, i in enumerate(group):
            mean, std = found[2 * position : 2 * position + 2]
            is_single = std is None and mean is not None
            profiles[i] |= {"mean": _finite(mean), "std": 0.0 if is_single else _finite(std)}


def _spread_alone(connection: DuckDBPyConnection, slab: Path | None, asked: str) -> tuple[Any, ...]:
    try:
        return select(connection, source(slab), [asked])
    except duckdb.OutOfRangeException:
        # Squares of numbers near the largest double have no double.
        return (math.nan, math.nan)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _histograms(
    connection: DuckDBPyConnection,
    stage: Stage,
    columns: list[ReadColumn],
    profiles: list[dict[str, Any]],
    numeric: list[int],
) -> None:
    wanted = [i for i in numeric if profiles[i]["min"] is not None]
    for slab, group in groups(stage, wanted):
        legs, edges = [], {}
        for i in group:
            least, most = float(profiles[i]["min"]), float(profiles[i]["max"])
            bins = max(1, min(BINS, columns[i].distinct))
            width = (most - least) / bins
            if width <= 0 or not math.isfinite(width):
                bins, width = 1, 1.0
            value = columns[i].expression(i)
            number = f"least({bins - 1}, floor((CAST({value} AS DOUBLE) - {least!r}) / {width!r}))"
            place = "0" if bins == 1 else f"CAST({number} AS INTEGER)"
            legs.append(
                f"SELECT {i}, {place} AS place, count(*) FROM {source(slab)}"  # noqa: S608  ours
                f" WHERE {value} IS NOT NULL GROUP BY place"
            )
            inner = [least + width * step for step in range(1, bins)]
            edges[i] = [least, *inner, most]
            profiles[i]["histogram"] = {"edges": edges[i], "counts": [0] * bins}
        for i, place, count in connection.execute(" UNION ALL ".join(legs)).fetchall():
            profiles[i]["histogram"]["counts"][max(0, place)] += count


def _tops(
    connection: DuckDBPyConnection,
    stage: Stage,
    columns: list[ReadColumn],
    profiles: list[dict[str, Any]],
) -> None:
    most = max(10, min(MOST_TOP, TOP_OF_ALL // len(columns)))
    wanted = [i for i, column in enumerate(columns) if _has_top(column)]
    for slab, group in groups(stage, wanted, keeps_values=True):
        legs = []
        for i in group:
            profiles[i]["top"] = []
            value = columns[i].expression(i)
            legs.append(
                f"(SELECT {i}, CAST({value} AS VARCHAR) AS v, count(*) AS n FROM {source(slab)}"  # noqa: S608  ours
                f" WHERE {value} IS NOT NULL GROUP BY v"
                f" HAVING length(v) <= {LONGEST_TOP} ORDER BY n DESC, v LIMIT {most})"
            )
        for i, value, count in connection.execute(" UNION ALL ".join(legs)).fetchall():
            shown = _value(value, columns[i])
            profiles[i]["top"].append({"value": shown, "count": count})
    for i in wanted:
        profiles[i]["top"].sort(key=lambda item: -item["count"])


def _has_top(column: ReadColumn) -> bool:
    if column.type in {"number", "datetime"}:
        return False
    if column.type in {"integer", "text", "id"}:
        # Where every value differs, none is frequent.
        return 0 < column.distinct <= MOST_TOP
    return column.distinct > 0


def _value(text: str, column: ReadColumn) -> bool | int | str:
    if column.type == "boolean":
        return text == "true"
    return int(text) if column.type == "integer" else text
