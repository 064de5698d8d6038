"""The curves of a run. Live rows are numbered 1..n with no gap and no duplicate at every commit.

SQLite keeps NaN as NULL and JSON has no word for it, so each row says in `kind` what it holds.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.orm import Session

from service.errors import Fenced
from service.jobs import events, queue
from service.runs import levels, replays, trajectories
from service.runs.tables import Event, Metric, Run

FIELDS = ("seq", "attempt", "epoch", "step", "split", "name", "value", "at_s")
COLUMNS = (*(getattr(Metric, field) for field in FIELDS), Metric.kind)
MAX_ROWS = 10_000  # of one page
NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def append(
    session: Session,
    run_id: str,
    attempt: int,
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Add rows that follow the last one, and what the run shows of itself; fenced.

    A row that is already there (its commit was not heard of) is left out; a gap raises Fenced,
    because the sender's picture of the run is not the stored one.
    """
    run = queue.hold(session, Run, run_id, attempt)
    fresh = [row for row in rows if row["seq"] > run.metric_seq]
    last = run.metric_seq + len(fresh)
    if fresh:
        if fresh[0]["seq"] != run.metric_seq + 1 or fresh[-1]["seq"] != last:
            raise Fenced(f"rows from {fresh[0]['seq']} do not follow row {run.metric_seq}")
        stored = [_stored(row) | {"run_id": run_id, "attempt": attempt} for row in fresh]
        levels.assign(session, run_id, stored, run.latest)
        session.execute(insert(Metric), stored)
        replays.check(session, run, stored)
    latest = _latest(run.latest, fresh)
    session.execute(
        update(Run).where(Run.id == run_id).values(metric_seq=last, latest=latest, **summary)
    )
    if fresh:
        data = {"attempt": attempt, "first_seq": fresh[0]["seq"], "last_seq": last}
        events.append(session, run_id, attempt, "metrics", data)


def rewind(session: Session, run: Run, after_seq: int, step: int) -> None:
    """Replace the live rows after `after_seq`, in the transaction of the claim.

    Training goes on from `step`; the event says how many steps are known to be made again.

    So no reader ever sees the stale tail beside the new attempt's rows.
    """
    if run.metric_seq == after_seq:
        return
    session.execute(
        update(Metric)
        .where(Metric.run_id == run.id, Metric.seq > after_seq, Metric.superseded_by.is_(None))
        .values(superseded_by=run.attempt)
    )
    session.execute(
        update(Run)
        .where(Run.id == run.id)
        .values(metric_seq=after_seq, latest=_latest_at(session, run.id))
    )
    trajectories.rewind(session, run.id, step)
    again = max(0, (run.progress or {}).get("step", step) - step)
    data = {"attempt": run.attempt, "after_seq": after_seq, "steps_recomputed": again}
    events.append(session, run.id, run.attempt, "rewind", data)


def _wire_rows(session: Session, statement: Any) -> list[dict[str, Any]]:  # noqa: ANN401  a Select
    """Return rows as JSON can carry them: a value that is not finite by its name."""
    return [
        dict(zip(FIELDS, row[:-1], strict=True)) | ({} if row.kind == "finite" else _named(row))
        for row in session.execute(statement)
    ]


def _named(row: Any) -> dict[str, str]:  # noqa: ANN401  a Row of COLUMNS
    return {"value": NON_FINITE[row.kind]}


@dataclass(frozen=True)
class Query:
    """Which live rows a reader wants."""

    after: int = 0
    #: at most so many rows; None means a page of MAX_ROWS, or all rows where they are thinned
    limit: int | None = None
    names: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    max_points: int | None = None
    #: the newest attempt whose rows the reader has; None where it does not say
    attempt: int | None = None


@dataclass(frozen=True)
class Page:
    """Live rows in order, and how to go on."""

    rows: list[dict[str, Any]]
    next_after: int
    attempt: int
    rewinds: list[dict[str, int]]
    is_final: bool
    downsampled: bool
    #: the newest event when this was read
    last_event_id: int


def page(session: Session, run: Run, query: Query, *, is_terminal: bool) -> Page:
    """Return the rows that a reader does not have yet.

    A reader that holds rows which a newer attempt has replaced gets no rows, only the `rewinds`
    that say which ones to drop; `next_after` is where it reads on. Who always sends the `attempt`
    of the answer before is told of every replaced row. One that sends none cannot be told apart
    from one that has the rows which are live now, so it counts as that one where row `after` is
    live: following `next_after` it comes to the end. Where it is not, all rewinds are news to it.
    """
    rewinds = _rewinds(session, run, query)
    stale = [r["after_seq"] for r in rewinds if r["after_seq"] < query.after]
    if stale:
        return Page(
            [],
            min(stale),
            run.attempt,
            rewinds,
            is_final=False,
            downsampled=False,
            last_event_id=run.event_seq,
        )
    if query.max_points and not query.limit:
        thinned = _thinned(session, run, query, query.max_points)
        return Page(
            thinned.rows,
            max(run.metric_seq, query.after),
            run.attempt,
            rewinds,
            is_final=is_terminal,
            downsampled=thinned.is_part,
            last_event_id=run.event_seq,
        )
    limit = query.limit or MAX_ROWS
    found = _wire_rows(session, _live(run.id, query).limit(limit + 1))
    complete, rows = len(found) <= limit, found[:limit]
    next_after = run.metric_seq if complete else rows[-1]["seq"]
    shown = thin(rows, query.max_points) if query.max_points else rows
    return Page(
        shown,
        max(next_after, query.after),
        run.attempt,
        rewinds,
        is_final=is_terminal and complete,
        downsampled=len(shown) < len(rows),
        last_event_id=run.event_seq,
    )


@dataclass(frozen=True)
class _Thinned:
    rows: list[dict[str, Any]]
    #: whether there are others
    is_part: bool


def _thinned(session: Session, run: Run, query: Query, max_points: int) -> _Thinned:
    """Return all rows that are wanted, thinned; of very many only the telling ones are read."""
    live = _live(run.id, query).where(Metric.seq <= run.metric_seq)
    level = levels.level_for(run.metric_seq - query.after, max_points)
    if not level:
        rows = _wire_rows(session, live)
        thinned = thin(rows, max_points)
        return _Thinned(thinned, is_part=len(thinned) < len(rows))
    tail = max(query.after, levels.tail(run.metric_seq, level))
    # In the order of the index, else SQLite reads every row to have them in the order of their
    # numbers.
    telling = live.where(*levels.conditions(level), Metric.seq <= tail)
    rows = _wire_rows(session, telling.order_by(None).order_by(Metric.level, Metric.seq))
    rows.sort(key=lambda row: int(row["seq"]))
    # One lower bound: of two SQLite seeks the first one.
    rest = _live(run.id, replace(query, after=tail))
    rows += _wire_rows(session, rest.where(Metric.seq <= run.metric_seq))
    return _Thinned(thin(rows, max_points), is_part=True)


def rows_of_events(
    session: Session, run_id: str, spans: Sequence[Mapping[str, int]]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each `metrics` event, also where they have been replaced since.

    `spans` are the data of the events, in the order of the stream: the rows of an attempt follow
    each other, so one range for each attempt holds the rows of all of them, and no others.
    """
    if not spans:
        return
    ranges: dict[int, tuple[int, int]] = {}
    for span in spans:
        first, _last = ranges.get(span["attempt"], (span["first_seq"], 0))
        ranges[span["attempt"]] = (first, span["last_seq"])
    wanted = or_(
        *(
            and_(Metric.attempt == attempt, Metric.seq.between(*bounds))
            for attempt, bounds in ranges.items()
        )
    )
    statement = select(*COLUMNS).where(Metric.run_id == run_id, wanted)
    found = {(row["attempt"], row["seq"]): row for row in _wire_rows(session, statement)}
    for span in spans:
        numbers = range(span["first_seq"], span["last_seq"] + 1)
        places = ((span["attempt"], number) for number in numbers)
        yield [found[place] for place in places if place in found]


def thin(rows: list[dict[str, Any]], max_points: int) -> list[dict[str, Any]]:
    """Keep at most about `max_points` rows per curve: in each bucket the least and the greatest.

    The first and the last row and every non-finite one are always kept.
    """
    curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault((row["split"], row["name"]), []).append(row)
    kept = (row for curve in curves.values() for row in _thin_curve(curve, max_points))
    return sorted(kept, key=lambda row: int(row["seq"]))


def _thin_curve(curve: list[dict[str, Any]], max_points: int) -> list[dict[str, Any]]:
    if len(curve) <= max_points:
        return curve
    values = np.array([float(row["value"]) for row in curve])
    finite = np.flatnonzero(np.isfinite(values))
    keep = set(np.flatnonzero(~np.isfinite(values)).tolist()) | {0, len(curve) - 1}
    if max_points >= 4:  # two of the points are the first and the last
        for bucket in np.array_split(finite, (max_points - 2) // 2):
            if len(bucket):
                keep.add(int(bucket[values[bucket].argmin()]))
                keep.add(int(bucket[values[bucket].argmax()]))
    elif len(finite):
        keep |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
    return [curve[index] for index in sorted(keep)]


def as_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {field: [row[field] for row in rows] for field in FIELDS}


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _live(run_id: str, query: Query) -> Any:  # noqa: ANN401  a Select of Metric
    statement = (
        select(*COLUMNS)
        .where(Metric.run_id == run_id, Metric.superseded_by.is_(None), Metric.seq > query.after)
        .order_by(Metric.seq)
    )
    if query.names:
        statement = statement.where(Metric.name.in_(query.names))
    if query.splits:
        statement = statement.where(Metric.split.in_(query.splits))
    return statement


def _rewinds(session: Session, run: Run, query: Query) -> list[dict[str, int]]:
    if query.attempt is None and query.after <= run.metric_seq:
        return []  # no row yet, or one that is live
    found = (event.data for event in events.of_kind(session, Event, run.id, "rewind"))
    return [
        {"attempt": data["attempt"], "after_seq": data["after_seq"]}
        for data in found
        if data["attempt"] > (query.attempt or 0)
    ]


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    value = float(row["value"])
    kind = "finite" if math.isfinite(value) else str(value)
    return row | {"value": value if kind == "finite" else None, "kind": kind}


def _latest(latest: dict[str, Any] | None, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return latest
    merged = {split: dict(values) for split, values in (latest or {}).items()}
    for row in rows:
        value = float(row["value"])
        shown = value if math.isfinite(value) else NON_FINITE[str(value)]
        merged.setdefault(row["split"], {})[row["name"]] = shown
    return merged


def _latest_at(session: Session, run_id: str) -> dict[str, Any] | None:
    found = _wire_rows(
        session,
        select(*COLUMNS)
        .where(Metric.run_id == run_id, Metric.superseded_by.is_(None))
        .order_by(Metric.seq.desc())
        .limit(8),
    )
    return _latest(None, found[::-1])
