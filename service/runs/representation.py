"""Builds the JSON bodies of runs, checkpoints and events, and the text of a run's log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from service.jobs import events, queue
from service.runs import metrics
from service.runs.tables import Checkpoint, Event, Run

Body = dict[str, Any]


def run_body(session: Session, run: Run) -> Body:
    """Return a run as `GET /runs/{id}` shows it."""
    return run_bodies(session, [run])[0]


def run_bodies(session: Session, runs: Sequence[Run]) -> list[Body]:
    """Return runs as `GET /runs` shows them, with at most one query."""
    positions = _queue_positions(session, [run for run in runs if run.state == "queued"])
    return [_run_body(run, positions.get(run.id)) for run in runs]


def _run_body(run: Run, queue_position: int | None) -> Body:
    progress, times = _progress(run)
    return {
        "id": run.id,
        "name": run.name,
        "tags": run.tags,
        "state": run.state,
        "state_reason": run.state_reason,
        "attempt": run.attempt,
        "dataset": {"id": run.dataset_id, "version": run.dataset_version},
        "config": run.config,
        "progress": progress,
        "latest": run.latest,
        "best": run.best,
        "evaluation": run.evaluation,
        "device": run.device,
        "engine": run.engine,
        "queue_position": queue_position,
        "not_before": run.waits_until if run.state == "queued" else None,
        "timings": _timings(run, times),
        "warnings": run.warnings,
        "error": run.error,
        "model": (
            {"name": run.model_name, "version": run.model_version} if run.model_version else None
        ),
        "retry_of": run.retry_of,
        "sweep": {"id": run.sweep_id, "trial": run.trial} if run.sweep_id else None,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def checkpoint_body(checkpoint: Checkpoint) -> Body:
    fields = ("id", "run_id", "attempt", "epoch", "step", "metrics", "metrics_epoch")
    rest = ("bytes", "sha256", "is_best", "created_at")
    return {name: getattr(checkpoint, name) for name in (*fields, *rest)}


def event_bodies(session: Session, run_id: str, found: Sequence[Event]) -> list[Body]:
    """Return events of a run; events of kind `metrics` include their rows, read by one query."""
    spans = [event.data for event in found if event.kind == "metrics"]
    rows = metrics.rows_of_events(session, run_id, spans)
    return [
        {
            "seq": event.seq,
            "event": event.kind,
            "attempt": event.attempt,
            "data": event.data | ({"rows": next(rows)} if event.kind == "metrics" else {}),
            "created_at": event.at,
        }
        for event in found
    ]


def _queue_positions(session: Session, queued: Sequence[Run]) -> dict[str, int]:
    """Return the position in the queue of each of these runs; the first run has position 1."""
    if not queued:
        return {}
    places = sorted((run.queued_at, run.id) for run in queued)
    columns = (Run.queued_at, Run.id)
    place, types = tuple_(*columns), [column.type for column in columns]
    first, last = (tuple_(*each, types=types) for each in (places[0], places[-1]))
    is_queued = Run.state == "queued"
    before = select(func.count()).select_from(Run).where(is_queued, place < first)
    # Number only the part of the queue between the first and the last of these runs; count the
    # runs before it.
    numbered = (
        select(Run.id, func.row_number().over(order_by=columns).label("number"))
        .where(is_queued, place >= first, place <= last)
        .subquery()
    )
    position = before.scalar_subquery() + numbered.c.number
    wanted = numbered.c.id.in_([run.id for run in queued])
    return dict(session.execute(select(numbered.c.id, position).where(wanted)).all())


def _progress(run: Run) -> tuple[Body | None, Body]:
    """Return the progress, and its times separately; only a running run has a time to its end."""
    if run.progress is None:
        return None, {}
    progress = dict(run.progress)
    times = {name: progress.pop(name, None) for name in ("elapsed_s", "saving_s")}
    if run.state == "succeeded":
        progress |= {"fraction": 1.0, "eta_s": 0.0}
    elif run.state not in queue.OWNED:
        progress["eta_s"] = None
    return progress, times


def _timings(run: Run, times: Body) -> Body:
    """Return durations. They change only with the run, so that the ETag stays the same."""
    claimed, started, finished = run.claimed_at, run.started_at, run.finished_at
    training_s = times.get("elapsed_s")
    if started and finished:
        training_s = (finished - started).total_seconds()
    return {
        "queued_s": (claimed - run.queued_at).total_seconds() if claimed else None,
        "start_s": (
            (started - claimed).total_seconds()
            if claimed and started and started > claimed
            else None
        ),
        "training_s": training_s,
        "saving_s": times.get("saving_s"),
    }


def log_text(session: Session, run_id: str) -> str:
    """Return the log of a run, one line per event."""
    kinds = ("state", "log", "checkpoint", "rewind")
    found = [row for kind in kinds for row in events.of_kind(session, Event, run_id, kind)]
    found.sort(key=lambda row: row.seq)
    return "".join(_line(row.at, row.kind, row.data) for row in found)


def _line(at: datetime, kind: str, data: dict[str, Any]) -> str:
    if kind == "log":
        text = data["line"]
    elif kind == "state":
        text = data["state"] + (f": {data['reason']}" if "reason" in data else "")
        text += f" ({data['error']['detail']})" if "error" in data else ""
    elif kind == "checkpoint":
        text = f"checkpoint at epoch {data['epoch']}, step {data['step']}"
    else:
        text = f"attempt {data['attempt']} goes on after row {data['after_seq']}"
    return f"{at.isoformat(timespec='milliseconds')} {text}\n"
