"""Builds the JSON bodies of sweeps, their leaderboards, plans and events."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.runs.tables import Run
from service.sweeps.members import order_of, value_of
from service.sweeps.plan import SweepPlan
from service.sweeps.steering import PRUNED
from service.sweeps.tables import Sweep, SweepEvent, Trial

Body = dict[str, Any]
#: state of a member → its count in the body of a sweep
COUNTED = {
    "queued": "queued",
    "interrupted": "queued",
    "paused": "paused",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
COUNTS = ("queued", "running", "paused", "succeeded", "pruned", "failed", "cancelled")


@dataclass(frozen=True)
class Row:
    """A trial as it is now: the stored one with the values of its run."""

    trial: Trial
    state: str
    state_reason: str | None
    value: float | None
    epochs: int


def sweep_body(session: Session, sweep: Sweep) -> Body:
    """Return a sweep with its leaderboard, as `GET /sweeps/{id}` shows it."""
    rows = _rows(session, [sweep])[sweep.id]
    return _body(sweep, rows) | {"leaderboard": [_row_body(row) for row in rows]}


def sweep_bodies(session: Session, sweeps: Sequence[Sweep]) -> list[Body]:
    """Return sweeps without their leaderboards, as `GET /sweeps` shows them."""
    rows = _rows(session, sweeps)
    return [_body(sweep, rows[sweep.id]) for sweep in sweeps]


def _rows(session: Session, sweeps: Sequence[Sweep]) -> dict[str, list[Row]]:
    """Return the rows of the leaderboards of sweeps, best first, by one query."""
    metrics = {sweep.id: sweep.metric for sweep in sweeps}
    found = session.execute(
        select(Trial, Run.id, Run.state, Run.state_reason, Run.best, Run.progress)
        .outerjoin(Run, Run.id == Trial.run_id)
        .where(Trial.sweep_id.in_(metrics))
    ).all()
    rows: dict[str, list[Row]] = {sweep.id: [] for sweep in sweeps}
    for trial, run_id, state, reason, best, progress in found:
        if run_id is None or state == trial.state != "running":
            row = Row(trial, trial.state, trial.state_reason, trial.value, trial.epochs)
        else:
            value = value_of(metrics[trial.sweep_id], best, None)
            row = Row(trial, state, reason, value, (progress or {}).get("epoch", 0))
        rows[trial.sweep_id].append(row)
    for sweep_id, each in rows.items():
        each.sort(
            key=lambda row: order_of(metrics[sweep_id], row.value, row.state, row.trial.number)
        )
    return rows


def _body(sweep: Sweep, rows: Sequence[Row]) -> Body:
    best = rows[0] if rows and rows[0].value is not None else None
    named = {"name": sweep.model_name, "version": sweep.model_version}
    return {
        "id": sweep.id,
        "name": sweep.name,
        "tags": sweep.tags,
        "state": sweep.state,
        "state_reason": sweep.state_reason,
        "dataset": {"id": sweep.dataset_id, "version": sweep.dataset_version},
        "base": sweep.config,
        "space": sweep.space,
        "strategy": sweep.strategy,
        "metric": sweep.metric,
        "rungs": sweep.rungs,
        "budget": sweep.budget,
        "seed": sweep.seed,
        "trials": _counts(sweep, rows),
        "best": _row_body(best) if best else None,
        "leaderboard": None,
        "register_best_as": sweep.register_best_as,
        "model": named if sweep.model_version else None,
        "warnings": sweep.warnings,
        "error": sweep.error,
        "created_at": sweep.created_at,
        "started_at": sweep.started_at,
        "finished_at": sweep.finished_at,
    }


def _counts(sweep: Sweep, rows: Sequence[Row]) -> Body:
    found = Counter(
        PRUNED if row.state_reason == PRUNED else COUNTED.get(row.state, "running") for row in rows
    )
    return {"total": sweep.trials} | {name: found[name] for name in COUNTS}


def _row_body(row: Row) -> Body:
    trial = row.trial
    return {
        "trial": trial.number,
        "run": trial.run_id,
        "parameters": trial.parameters,
        "state": row.state,
        "state_reason": row.state_reason,
        "value": row.value,
        "epochs": row.epochs,
        "error": trial.error,
    }


def plan_body(plan: SweepPlan) -> Body:
    """Return a plan as `POST /sweeps/validate` shows it."""
    return {
        "base": plan.plan.config.model_dump(mode="json"),
        "strategy": plan.strategy.model_dump(mode="json"),
        "metric": plan.metric,
        "rungs": plan.rungs,
        "parameters": [member.parameters for member in plan.members],
        "trials": plan.trials,
        "warnings": plan.warnings,
        "estimate": vars(plan.estimate()),
    }


def event_bodies(_session: Session, _sweep_id: str, found: Sequence[SweepEvent]) -> list[Body]:
    return [
        {"seq": event.seq, "event": event.kind, "data": event.data, "created_at": event.at}
        for event in found
    ]
