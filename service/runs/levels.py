"""Which rows of a long curve stand for the others, so that it is drawn without reading all of it.

Rows are numbered 1, 2, 3, …; each `SIZES[0]` of them are a block, each `SIZES[1]` a larger one, and
so on. Once a block is complete, the least and the greatest value of each curve in it get its level.
What must never be left out (a curve's first row, a value that is not finite) has the highest level.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, literal_column, select, update
from sqlalchemy.orm import Session

from service.runs.tables import Metric

#: rows of a block of level 1, 2, 3, 4: each block consists of blocks of the level below. A curve of
#: a million rows is drawn in a plot of usual width from those of level 3, which are not many more.
SIZES = (32, 256, 1024, 8192)
TOP = len(SIZES)
READ = (*Metric.__table__.primary_key, Metric.split, Metric.name, Metric.value, Metric.kind)
CHANGED = ("run_id", "attempt", "seq", "level")

Row = dict[str, Any]


def assign(
    session: Session, run_id: str, fresh: Sequence[Row], latest: dict[str, Any] | None
) -> None:
    """Give each of `fresh`, the rows that follow the live ones, its level; raise that of others.

    `latest` has the curves that exist already. A row that a new attempt replaced keeps its level;
    the block in which that happened is gone through again when it is complete again.
    """
    known = {(split, name) for split, values in (latest or {}).items() for name in values}
    for row in fresh:
        curve = (row["split"], row["name"])
        row["level"] = 0 if row["kind"] == "finite" and curve in known else TOP
        known.add(curve)
    old = _raise(session, run_id, fresh)
    if old:
        session.execute(update(Metric), [{name: row[name] for name in CHANGED} for row in old])


def _raise(session: Session, run_id: str, fresh: Sequence[Row]) -> list[Row]:
    """Set the levels of the blocks that `fresh` completes; return the older rows that changed."""
    first, last = fresh[0]["seq"], fresh[-1]["seq"]
    rows: dict[int, Row] = {row["seq"]: row for row in fresh}
    before: dict[int, int] = {}
    for level, size in enumerate(SIZES, start=1):
        end = last // size * size
        if end < first:
            break  # no block of this size is completed, and so no larger one
        start = (first - 1) // size * size + 1
        for row in _older(session, run_id, start, first - 1, level - 1):
            if row["seq"] not in rows:
                rows[row["seq"]], before[row["seq"]] = row, row["level"]
        inside = (row for seq, row in rows.items() if start <= seq <= end)
        _mark(inside, level, size)
    return [rows[seq] for seq, level in before.items() if rows[seq]["level"] != level]


def _older(session: Session, run_id: str, start: int, end: int, level: int) -> list[Row]:
    """Return the live rows from `start` to `end` that have at least this level."""
    if end < start:
        return []
    found = session.execute(
        select(*READ, Metric.level).where(
            Metric.run_id == run_id,
            Metric.superseded_by.is_(None),
            Metric.seq.between(start, end),
            Metric.level >= level,
        )
    )
    return [dict(row._mapping) for row in found]  # noqa: SLF001  the public way to a dict


def _mark(rows: Iterable[Row], level: int, size: int) -> None:
    """Raise the least and the greatest value of each curve in each block to `level`."""
    extremes: dict[tuple[int, str, str], tuple[Row, Row]] = {}
    for row in rows:
        if row["kind"] != "finite" or row["level"] < level - 1:
            continue
        curve = ((row["seq"] - 1) // size, row["split"], row["name"])
        least, most = extremes.get(curve, (row, row))
        least = row if row["value"] < least["value"] else least
        most = row if row["value"] > most["value"] else most
        extremes[curve] = (least, most)
    for pair in extremes.values():
        for row in pair:
            row["level"] = max(row["level"], level)


def level_for(rows: int, max_points: int) -> int:
    """Return the highest level at which each curve of `rows` rows still has points enough."""
    # Each block gives two points of each curve; half of what is asked for is enough.
    enough = (
        level for level, size in enumerate(SIZES, start=1) if 2 * (rows // size) >= max_points / 2
    )
    return max(enough, default=0)


def conditions(level: int) -> Sequence[ColumnElement[bool]]:
    """Return what rows of at least this level fulfil, as the index on levels is defined."""
    # The number stands in the text, because a database must see that the index fits. The levels
    # are named one by one: SQLite holds a range to be worth no index.
    return (Metric.level > literal_column("0"), Metric.level.in_(range(level, TOP + 1)))


def tail(metric_seq: int, level: int) -> int:
    """Return the number after which rows belong to a block that may still grow."""
    size = SIZES[level - 1]
    return max(0, (metric_seq - 1) // size * size)
