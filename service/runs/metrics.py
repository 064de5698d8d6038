"""Metrics and parameters of a run over time: rows, levels of thinning, replays, trajectories.

- Rows: a row is one value of a curve, and a curve is one name in one split. At every commit, live
  rows are numbered 1..n without gaps or duplicates. A new attempt replaces the rows that its
  checkpoint does not cover. SQLite stores NaN as NULL and JSON has no NaN, so the column `kind`
  says which value a row holds.
- Levels: rows with the extremes of a block get a level, so that a plot of a long curve reads few
  rows.
- Replays: rows of a new attempt are compared with the rows that they replace.
- Trajectories: frames hold all parameters of a small net after each epoch.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from descent.codes import make_warning
from models.nets.graph import Graph
from models.training.interface import Frame as NetFrame
from service.errors import Fenced
from service.jobs import events, queue
from service.runs.tables import Event, Frame, Metric, Run, Trajectory

#: the fields of a row in answers, and the columns that give them
FIELDS = ("seq", "attempt", "epoch", "step", "split", "name", "value", "at_s")
COLUMNS = (*(getattr(Metric, field) for field in FIELDS), Metric.kind)
#: `kind` of a row → its value in JSON
NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
MAX_ROWS = 10_000  # rows of one page
MAX_FRAMES = 500  # frames of one page
#: rows in a block of level 1, 2, 3, 4; each block consists of blocks of the level below. A plot of
#: usual width draws a curve of a million rows from the rows of level 3, which are hardly more than
#: its points.
SIZES = (32, 256, 1024, 8192)
TOP = len(SIZES)
#: the columns that setting levels reads, and those that it needs for the update
READ = (*Metric.__table__.primary_key, Metric.split, Metric.name, Metric.value, Metric.kind)
CHANGED = ("run_id", "attempt", "seq", "level")
#: the fields that must be equal, besides the value, when an attempt repeats a row
POINT = ("epoch", "step", "split", "name")

Row = dict[str, Any]


# ---- rows: written by the supervisor ------------------------------------------------------------


def append(
    session: Session,
    run_id: str,
    attempt: int,
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Add rows that follow the last one, and update columns of the run from `summary`; fenced.

    A row that is stored already is skipped: the sender repeats rows if it got no answer to a
    commit. A gap raises Fenced, because the sender and the database disagree about the run.
    """
    run = queue.hold(session, Run, run_id, attempt)
    fresh = [row for row in rows if row["seq"] > run.metric_seq]
    last = run.metric_seq + len(fresh)
    if fresh:
        if fresh[0]["seq"] != run.metric_seq + 1 or fresh[-1]["seq"] != last:
            raise Fenced(f"rows from {fresh[0]['seq']} do not follow row {run.metric_seq}")
        stored = [_stored(row) | {"run_id": run_id, "attempt": attempt} for row in fresh]
        assign(session, run_id, stored, run.latest)
        # Without the session, whose bookkeeping would take most of the time.
        session.connection().execute(insert(Metric), stored)
        check(session, run, stored)
        run.metric_seq, run.latest = last, _latest(run.latest, fresh)
        data = {"attempt": attempt, "first_seq": fresh[0]["seq"], "last_seq": last}
        events.append(session, run, "metrics", data)
    for column, value in summary.items():
        setattr(run, column, value)


def rewind(session: Session, run: Run, after_seq: int, step: int) -> None:
    """Replace the live rows after `after_seq`, in the transaction of the claim.

    So no reader sees the replaced rows beside the new attempt's rows. Training resumes at `step`;
    the event holds the number of steps that are known to be repeated.
    """
    if run.metric_seq == after_seq:
        return
    session.execute(
        update(Metric)
        .where(Metric.run_id == run.id, Metric.seq > after_seq, Metric.superseded_by.is_(None))
        .values(superseded_by=run.attempt)
    )
    run.metric_seq, run.latest = after_seq, _latest_at(session, run.id)
    rewind_frames(session, run.id, step)
    again = max(0, (run.progress or {}).get("step", step) - step)
    data = {"attempt": run.attempt, "after_seq": after_seq, "steps_recomputed": again}
    events.append(session, run, "rewind", data)


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


# ---- rows: read by clients ----------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """Selects live rows."""

    after: int = 0
    #: the maximum number of rows; None means MAX_ROWS, or all rows if they are thinned
    limit: int | None = None
    names: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    max_points: int | None = None
    #: the newest attempt whose rows the client has; None if it did not send it
    attempt: int | None = None


@dataclass(frozen=True)
class CurvePage:
    """Live rows in order, and the position of the next page."""

    rows: list[dict[str, Any]]
    next_after: int
    attempt: int
    rewinds: list[dict[str, int]]
    is_final: bool
    downsampled: bool
    #: the number of the run's newest event when the page was read
    last_event_id: int


def page(session: Session, run: Run, query: Query, *, is_terminal: bool) -> CurvePage:
    """Return the rows that a client does not have yet.

    A client that holds replaced rows gets no rows, only the `rewinds` that list the rows to drop;
    it continues at `next_after`. A client that always sends the `attempt` of its last answer
    learns of every replaced row. Without `attempt`, the service cannot know which rows the client
    holds. If row `after` is live, the service assumes that the client has the live rows: it
    reaches the end by following `next_after`. Otherwise the answer lists all rewinds.
    """
    rewinds = _rewinds(session, run, query)
    stale = [r["after_seq"] for r in rewinds if r["after_seq"] < query.after]
    if stale:
        return CurvePage(
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
        return CurvePage(
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
    return CurvePage(
        shown,
        max(next_after, query.after),
        run.attempt,
        rewinds,
        is_final=is_terminal and complete,
        downsampled=len(shown) < len(rows),
        last_event_id=run.event_seq,
    )


def rows_of_events(
    session: Session, run_id: str, spans: Sequence[Mapping[str, int]]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each `metrics` event, including rows that have been replaced since.

    `spans` are the data of the events in the order of the stream. Rows of an attempt are
    consecutive, so one range per attempt holds exactly the rows of these events.
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
    """Keep about `max_points` rows per curve: the least and the greatest value of each bucket.

    The first row, the last row and every non-finite row are always kept.
    """
    curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault((row["split"], row["name"]), []).append(row)
    kept = (row for curve in curves.values() for row in _thin_curve(curve, max_points))
    return sorted(kept, key=lambda row: int(row["seq"]))


def as_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {field: [row[field] for row in rows] for field in FIELDS}


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class _Thinned:
    rows: list[dict[str, Any]]
    #: whether rows were left out
    is_part: bool


def _thinned(session: Session, run: Run, query: Query, max_points: int) -> _Thinned:
    """Return all selected rows, thinned; of a long curve, only rows of a high level are read."""
    live = _live(run.id, query).where(Metric.seq <= run.metric_seq)
    level = level_for(run.metric_seq - query.after, max_points)
    if not level:
        rows = _wire_rows(session, live)
        thinned = thin(rows, max_points)
        return _Thinned(thinned, is_part=len(thinned) < len(rows))
    tail = max(query.after, tail_of(run.metric_seq, level))
    # Order by the index: to order by number, SQLite would read every row.
    marked = live.where(*conditions(level), Metric.seq <= tail)
    rows = _wire_rows(session, marked.order_by(None).order_by(Metric.level, Metric.seq))
    rows.sort(key=lambda row: int(row["seq"]))
    # Give one lower bound only: of two, SQLite uses the first one for its seek.
    rest = _live(run.id, replace(query, after=tail))
    rows += _wire_rows(session, rest.where(Metric.seq <= run.metric_seq))
    return _Thinned(thin(rows, max_points), is_part=True)


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


def _live(run_id: str, query: Query) -> Select[Any]:
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
        return []  # the client has no row yet, or its last row is live
    found = (event.data for event in events.of_kind(session, Event, run.id, "rewind"))
    return [
        {"attempt": data["attempt"], "after_seq": data["after_seq"]}
        for data in found
        if data["attempt"] > (query.attempt or 0)
    ]


def _wire_rows(session: Session, statement: Select[Any]) -> list[dict[str, Any]]:
    """Return rows for JSON: a value that is not finite becomes its name."""
    return [
        dict(zip(FIELDS, row[:-1], strict=True))
        | ({} if row.kind == "finite" else {"value": NON_FINITE[row.kind]})
        for row in session.execute(statement)
    ]


# ---- levels of thinning -------------------------------------------------------------------------


def assign(
    session: Session, run_id: str, fresh: Sequence[Row], latest: dict[str, Any] | None
) -> None:
    """Set the levels of `fresh`, the rows that follow the live ones, and raise those of older rows.

    `latest` holds the curves that exist already. A replaced row keeps its level; its block is
    computed again when the new attempt completes it.
    """
    known = {(split, name) for split, values in (latest or {}).items() for name in values}
    for row in fresh:
        curve = (row["split"], row["name"])
        row["level"] = 0 if row["kind"] == "finite" and curve in known else TOP
        known.add(curve)
    old = _raise(session, run_id, fresh)
    if old:
        session.execute(update(Metric), [{name: row[name] for name in CHANGED} for row in old])


def level_for(rows: int, max_points: int) -> int:
    """Return the highest level at which a curve of `rows` rows still has enough points."""
    # Each block gives two points of each curve; half of `max_points` is enough.
    enough = (
        level for level, size in enumerate(SIZES, start=1) if 2 * (rows // size) >= max_points / 2
    )
    return max(enough, default=0)


def conditions(level: int) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that select rows of at least this level by the index on levels."""
    # The zero is part of the SQL text: else the database does not see that the partial index fits.
    # The levels are listed one by one, because SQLite does not use the index for a range.
    return (Metric.level > literal_column("0"), Metric.level.in_(range(level, TOP + 1)))


def tail_of(metric_seq: int, level: int) -> int:
    """Return the number of the last row before the unfinished block of this level."""
    size = SIZES[level - 1]
    return max(0, (metric_seq - 1) // size * size)


def _raise(session: Session, run_id: str, fresh: Sequence[Row]) -> list[Row]:
    """Set the levels of the blocks that `fresh` completes; return the older rows that changed."""
    first, last = fresh[0]["seq"], fresh[-1]["seq"]
    rows: dict[int, Row] = {row["seq"]: row for row in fresh}
    before: dict[int, int] = {}
    for level, size in enumerate(SIZES, start=1):
        end = last // size * size
        if end < first:
            break  # no block of this size is complete, so no larger one is
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


# ---- checks of replays --------------------------------------------------------------------------


def check(session: Session, run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Compare new rows, as they are stored, with the rows of the same numbers of earlier attempts.

    The first difference of an attempt becomes an event and a warning of the run. The caller has
    locked the run. A first attempt costs nothing; later ones cost a seek per earlier attempt.
    """
    if run.attempt == 1:
        return
    columns = [getattr(Metric, name) for name in ("seq", *POINT, "kind", "value")]
    replaced = session.execute(
        select(*columns)
        .where(Metric.run_id == run.id, Metric.attempt.in_(range(1, run.attempt)))
        .where(Metric.seq.between(rows[0]["seq"], rows[-1]["seq"]))
        .order_by(Metric.attempt)
    )
    newest = {row.seq: row._asdict() for row in replaced}
    for row in rows:
        was = newest.get(row["seq"])
        if was is not None and _differs(was, row):
            _warn_of_divergence(session, run, was, row)
            return


def _differs(was: dict[str, Any], row: dict[str, Any]) -> bool:
    if (was["split"] == "test") != (row["split"] == "test"):
        return False  # a time budget may end two attempts at different epochs
    return _bits(was) != _bits(row)


def _bits(row: dict[str, Any]) -> list[Any]:
    # Adding zero drops the sign of a negative zero, which SQLite does not store.
    value = None if row["value"] is None else (row["value"] + 0.0).hex()
    return [*(row[name] for name in POINT), row["kind"], value]


def _warn_of_divergence(
    session: Session, run: Run, was: dict[str, Any], row: dict[str, Any]
) -> None:
    logs = events.of_kind(session, Event, run.id, "log")
    if any(
        log.attempt == run.attempt and log.data.get("code") == "resume_divergence" for log in logs
    ):
        return
    is_foreseen = any(each["code"] == "resume_inexact" for each in run.warnings)
    reason = "see resume_inexact" if is_foreseen else "though nothing around it is known to differ"
    line = (
        f"Attempt {run.attempt} made step {row['step']} again and got another {row['split']}"
        f" {row['name']}: it was {_shown(was)}, is {_shown(row)}; {reason}"
    )
    data = {"line": line, "code": "resume_divergence", "was": _point(was), "now": _point(row)}
    events.append(session, run, "log", data)
    run.warnings = [*run.warnings, make_warning("resume_divergence", line)]


def _shown(row: dict[str, Any]) -> str:
    if row["kind"] != "finite":
        return str(row["kind"])
    return f"{row['value']!r} at step {row['step']}"


def _point(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("seq", *POINT, "kind", "value")}


# ---- trajectories -------------------------------------------------------------------------------


def begin_trajectory(
    session: Session,
    run_id: str,
    subject: dict[str, Any] | None,
    frames: Sequence[NetFrame],
) -> None:
    """Store the columns and the net that an attempt's frames show, and its first frames.

    A newer attempt overwrites the description.
    """
    if subject is None:
        return
    session.merge(Trajectory(run_id=run_id, subject=subject))
    session.flush()
    append_frames(session, run_id, frames)


def append_frames(session: Session, run_id: str, frames: Sequence[NetFrame]) -> None:
    """Add frames and skip stored ones, which the sender repeats if it got no answer to a commit."""
    if not frames:
        return
    newest = session.scalar(select(func.max(Frame.epoch)).where(Frame.run_id == run_id))
    fresh = [frame for frame in frames if newest is None or frame.epoch > newest]
    if fresh:
        stored = [_stored_frame(frame) | {"run_id": run_id} for frame in fresh]
        session.connection().execute(insert(Frame), stored)


def rewind_frames(session: Session, run_id: str, step: int) -> None:
    """Delete the frames after `step`: the new attempt makes them again."""
    session.execute(delete(Frame).where(Frame.run_id == run_id, Frame.step > step))


@dataclass(frozen=True)
class FramesPage:
    """Frames in order, with the columns and the net that they show."""

    subject: dict[str, Any] | None
    epochs: list[int]
    steps: list[int]
    #: (frames, parameters), float32
    frames: list[NDArray[np.float32]]
    #: the epoch after which the next page starts; None if there are no more frames yet
    next_after: int | None


def page_of_frames(session: Session, run_id: str, after: int, limit: int) -> FramesPage:
    """Return the frames of the epochs after `after`."""
    trajectory = session.get(Trajectory, run_id)
    found = session.scalars(
        select(Frame)
        .where(Frame.run_id == run_id, Frame.epoch > after)
        .order_by(Frame.epoch)
        .limit(limit + 1)
    ).all()
    shown = found[:limit]
    return FramesPage(
        subject=_in_the_present_format(trajectory.subject) if trajectory else None,
        epochs=[frame.epoch for frame in shown],
        steps=[frame.step for frame in shown],
        frames=[np.frombuffer(frame.parameters, dtype="<f4") for frame in shown],
        next_after=shown[-1].epoch if len(found) > limit else None,
    )


def _in_the_present_format(subject: dict[str, Any]) -> dict[str, Any]:
    return subject | {"net": Graph.from_json(subject["net"]).to_json()}


def _stored_frame(frame: NetFrame) -> dict[str, Any]:
    return {"epoch": frame.epoch, "step": frame.step, "parameters": frame.values}
