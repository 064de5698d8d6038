"""Rows of a run as bodies of the contract."""

from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from service.jobs import events, queue
from service.runs import metrics
from service.runs.tables import Checkpoint, Event, Run

Body = dict[str, Any]


def run_body(session: Session, run: Run) -> Body:
    """Return a run as `GET /runs/{id}` shows it."""
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
        "queue_position": _queue_position(session, run),
        "not_before": run.waits_until if run.state == "queued" else None,
        "timings": _timings(run, times),
        "warnings": run.warnings,
        "error": run.error,
        "model": (
            {"name": run.model_name, "version": run.model_version} if run.model_version else None
        ),
        "retry_of": run.retry_of,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def checkpoint_body(checkpoint: Checkpoint) -> Body:
    fields = ("id", "run_id", "attempt", "epoch", "step", "metrics", "metrics_epoch")
    rest = ("bytes", "sha256", "is_best", "created_at")
    return {name: getattr(checkpoint, name) for name in (*fields, *rest)}


def event_body(session: Session, event: Event) -> Body:
    """Return an event; one of kind `metrics` carries its rows."""
    data = dict(event.data)
    if event.kind == "metrics":
        data["rows"] = metrics.rows_between(
            session, event.job_id, data["attempt"], data["first_seq"], data["last_seq"]
        )
    return {
        "seq": event.seq,
        "event": event.kind,
        "attempt": event.attempt,
        "data": data,
        "created_at": event.at,
    }


def _queue_position(session: Session, run: Run) -> int | None:
    """Return how many runs start before this one, plus one."""
    if run.state != "queued":
        return None
    earlier = or_(
        Run.queued_at < run.queued_at, and_(Run.queued_at == run.queued_at, Run.id < run.id)
    )
    query = select(func.count()).select_from(Run).where(Run.state == "queued", earlier)
    return session.execute(query).scalar_one() + 1


def _progress(run: Run) -> tuple[Body | None, Body]:
    """Return the progress, and its times apart; what has ended has nothing left to do."""
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
    """Return durations; none of them ticks while nothing happens, so that ETags stay equal."""
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
    """Return what happened to a run, a line each."""
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
