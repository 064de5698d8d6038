"""The steering of sweeps: one transaction moves a sweep from the states of its members onwards.

A step reads what has happened to the members, writes it down with events, and decides: which
members continue or end, which trials are added, whether the sweep has ended. All of that commits
together, and the next step starts from what is stored. So a step can be repeated or lost, and a
kill at any point neither loses nor doubles a trial. Supervisors call `steer_due` between claims;
the row of the sweep is locked meanwhile, before those of its members.
"""

import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import and_, bindparam, exists, or_, select, update
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.errors import Conflict, NotFound
from service.jobs import events, life
from service.jobs.kind import Site
from service.runs import lifecycle
from service.runs.tables import Checkpoint, Run
from service.storage.columns import new_id
from service.storage.database import reading, time_of_day, writing
from service.sweeps.members import order_of, value_of
from service.sweeps.space import kept
from service.sweeps.tables import Suggestion, Sweep, Trial

PRUNED = "pruned"
ENDED = life.TERMINAL
#: the states of members that no process trains and none will, unless they are resumed
AT_REST = ENDED | {"paused"}
#: Whether a run is in another state than its trial. A member that a person paused may have reached
#: the end of its rung before the next step: then only the reason differs.
HAS_MOVED = or_(Run.state != Trial.state, Run.state_reason.is_distinct_from(Trial.state_reason))
#: the states through which a sweep has to go to reach another one
WAYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("queued", "pausing"): ("starting", "running"),
    ("queued", "cancelling"): ("starting",),
    ("queued", "succeeded"): ("starting", "running"),
    ("queued", "failed"): ("starting",),
    ("starting", "pausing"): ("running",),
    ("starting", "paused"): ("running", "pausing"),
    ("starting", "cancelled"): ("cancelling",),
    ("starting", "succeeded"): ("running",),
    ("running", "paused"): ("pausing",),
    ("running", "cancelled"): ("cancelling",),
    ("pausing", "cancelled"): ("cancelling",),
    ("paused", "cancelling"): ("queued", "starting"),
}

_NOW = bindparam("now", type_=Sweep.ends_at.type)
#: the ids of the sweeps that a step would change; made once, because supervisors ask often
_DUE = (
    select(Sweep.id)
    .where(
        Sweep.state.not_in((*ENDED, "paused")),
        or_(
            Sweep.is_due,
            Sweep.state.in_(("pausing", "cancelling")),
            and_(
                Sweep.state == "running",
                Sweep.ends_at <= bindparam("now", type_=Sweep.ends_at.type),
            ),
            exists().where(Trial.sweep_id == Sweep.id, Run.id == Trial.run_id, HAS_MOVED),
        ),
    )
    .order_by(Sweep.created_at, Sweep.id)
)

log = structlog.get_logger("worker")


# ---- which sweeps -------------------------------------------------------------------------------


def steer_due(site: Site) -> bool:
    """Steer every sweep to which something has happened; return whether there was one."""
    with reading(site.engine) as session:
        found = due(session)
    for sweep_id in found:
        reach("sweep.steer")
        try:
            with writing(site.engine) as session:
                steer(session, sweep_id)
                reach("sweep.steered")
        except NotFound:  # deleted meanwhile
            continue
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            log.exception("cannot steer", sweep_id=sweep_id)
            _give_up(site, sweep_id, f"The sweep could not be steered: {error!r}.")
    return bool(found)


def due(session: Session) -> list[str]:
    """Return the ids of the sweeps that a step would change."""
    return list(session.scalars(_DUE, {"now": time_of_day(session)}))


def _give_up(site: Site, sweep_id: str, detail: str) -> None:
    """End a sweep that meets a defect, so that it does not stop the worker."""
    with writing(site.engine) as session:
        sweep = life.lock(session, Sweep, sweep_id)
        if sweep.state not in ENDED:
            problem = life.problem("internal_error", detail)
            to = "cancelled" if sweep.state == "cancelling" else "failed"
            end(session, sweep, to, error=problem, state_reason="internal_error")


# ---- a step -------------------------------------------------------------------------------------


def steer(session: Session, sweep_id: str) -> None:
    """Make one step of a sweep. A step that finds nothing new changes nothing."""
    sweep = life.lock(session, Sweep, sweep_id)
    if sweep.state in ENDED | {"paused"}:
        return
    sweep.is_due = False
    trials = see(session, sweep)
    if sweep.state == "cancelling":
        cancel_all(session, sweep, trials)
    elif sweep.state == "pausing":
        pause_all(session, sweep, trials)
    else:
        _advance(session, sweep, trials)


def _advance(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    if sweep.ends_at is not None and sweep.ends_at <= time_of_day(session):
        _end_by_time(session, sweep)
        trials = see(session, sweep)
    if sweep.rungs:
        _halve(session, sweep, trials)
        trials = see(session, sweep)
    if not _have_ended(trials):
        return
    missing = sweep.trials - len(trials)
    if missing and sweep.state_reason != "budget":
        _ask_sampler(session, sweep, len(trials), missing)
    else:
        _finish(session, sweep, trials)


def see(session: Session, sweep: Sweep) -> list[Trial]:
    """Write down how the runs have changed since the last step; return all trials, in order."""
    columns = (Run.state, Run.state_reason, Run.best, Run.evaluation, Run.progress, Run.error)
    changed = session.execute(
        select(Trial, *columns)
        .join(Run, Run.id == Trial.run_id)
        .where(Trial.sweep_id == sweep.id, HAS_MOVED)
        .order_by(Trial.number)
    ).all()
    for trial, state, reason, best, evaluation, progress, error in changed:
        trial.state, trial.state_reason, trial.error = state, reason, error
        trial.epochs = (progress or {}).get("epoch", 0)
        if state in AT_REST:
            trial.value = value_of(sweep.metric, best, evaluation)
    tell(session, sweep, [trial for trial, *_columns in changed])
    session.flush()
    trials = list(
        session.scalars(
            select(Trial).where(Trial.sweep_id == sweep.id).order_by(Trial.number)
        ).all()
    )
    _follow(session, sweep, trials)
    return trials


def tell(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Add an event with the state of each of these trials."""
    data = [
        {
            "trial": trial.number,
            "run": trial.run_id,
            "parameters": trial.parameters,
            "state": trial.state,
            "state_reason": trial.state_reason,
            "value": trial.value,
            "epochs": trial.epochs,
        }
        for trial in trials
    ]
    events.append_all(session, sweep, "trial", data)


def _follow(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Let a sweep that waits start with its first member."""
    begun = {trial.state for trial in trials} - {"queued", "paused", "cancelled"}
    if sweep.state == "queued" and begun:
        move(session, sweep, "starting")
    if sweep.state == "starting" and begun - {"starting"}:
        now = time_of_day(session)
        left_s = sweep.left_s
        ends_at = now + timedelta(seconds=left_s) if left_s is not None else None
        started_at = sweep.started_at or now
        move(session, sweep, "running", started_at=started_at, ends_at=ends_at)


def move(session: Session, sweep: Sweep, to: str, **values: object) -> None:
    """Move a sweep to a state, with the states on the way to it."""
    session.flush()  # the refresh of a transition would undo changes that are not written
    for state in WAYS.get((sweep.state, to), ()):
        life.move(session, sweep, state)
    life.move(session, sweep, to, **values)


def _have_ended(trials: Sequence[Trial]) -> bool:
    return all(trial.state in ENDED for trial in trials)


# ---- requests to members ------------------------------------------------------------------------


def cancel_all(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Cancel all members; the sweep is cancelled once all have ended."""
    life.move_idle(session, Run, Run.sweep_id == sweep.id, "cancelled", reason="cancel")
    _ask_all(session, trials, lifecycle.cancel)
    if _have_ended(see(session, sweep)):
        end(session, sweep, "cancelled", state_reason="cancel")
    elif sweep.state != "cancelling":
        move(session, sweep, "cancelling")


def pause_all(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Pause all members; the sweep is paused once none trains."""
    life.move_idle(session, Run, Run.sweep_id == sweep.id, "paused", reason=None)
    _ask_all(session, trials, lifecycle.pause)
    if all(trial.state in AT_REST for trial in see(session, sweep)):
        _note_time_left(session, sweep)
        move(session, sweep, "paused")
    elif sweep.state != "pausing":
        move(session, sweep, "pausing")


def _ask_all(
    session: Session, trials: Sequence[Trial], request: Callable[[Session, str], object]
) -> None:
    """Make a request to the members that a process trains."""
    for trial in trials:
        if trial.run_id is not None and trial.state not in {"queued", *AT_REST}:
            # Its state may not allow it now: the next step asks again.
            with contextlib.suppress(Conflict, NotFound):
                request(session, trial.run_id)


def _note_time_left(session: Session, sweep: Sweep) -> None:
    if sweep.ends_at is not None:
        left = sweep.ends_at - time_of_day(session)
        sweep.left_s, sweep.ends_at = max(0.0, left.total_seconds()), None


def _end_by_time(session: Session, sweep: Sweep) -> None:
    """Cancel the members that have not started; those that train end by their own budget."""
    sweep.ends_at, sweep.state_reason = None, "budget"
    session.flush()
    life.move_idle(session, Run, Run.sweep_id == sweep.id, "cancelled", reason="budget")


# ---- strategies ---------------------------------------------------------------------------------


def _halve(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """End a rung if all its members have reached it: the best continue, the others end."""
    rung = max(trial.rung for trial in trials)
    entrants = [trial for trial in trials if trial.rung == rung]
    if rung >= len(sweep.rungs) or not all(_is_compared(trial) for trial in entrants):
        return
    # One that has ended by itself, by early stopping say, is compared too.
    able = [trial for trial in entrants if trial.state in {"paused", "succeeded"}]
    ranked = sorted(able, key=lambda trial: _rank(sweep, trial))
    most = kept(sweep.trials, sweep.strategy["factor"], rung + 1)
    for place, trial in enumerate(ranked):
        if place >= most:
            if trial.state == "paused":
                lifecycle.cancel(session, trial.run_id or "", reason=PRUNED)
            continue
        trial.rung = rung + 1
        if trial.state == "paused":
            later = sweep.rungs[rung + 1 :]
            _continue_to(session, trial, later[0] if later else None)
    session.flush()


def _is_compared(trial: Trial) -> bool:
    has_rested = trial.state == "paused" and trial.state_reason == lifecycle.RUNG
    return trial.state in ENDED or has_rested


def _rank(sweep: Sweep, trial: Trial) -> tuple[bool, bool, float, int]:
    """Return the key that sorts members which have trained for equally many epochs."""
    return order_of(sweep.metric, trial.value, "succeeded", trial.number)


def _continue_to(session: Session, trial: Trial, pause_after: int | None) -> None:
    session.execute(update(Run).where(Run.id == trial.run_id).values(pause_after=pause_after))
    lifecycle.resume(session, trial.run_id or "")


def _ask_sampler(session: Session, sweep: Sweep, made: int, missing: int) -> None:
    """Queue the job that chooses the next trials, unless it is queued already.

    If the last one failed, the sweep fails for the same reason.
    """
    newest = session.scalar(
        select(Suggestion)
        .where(Suggestion.sweep_id == sweep.id)
        .order_by(Suggestion.created_at.desc(), Suggestion.id.desc())
        .limit(1)
    )
    if newest is not None and newest.state not in ENDED:
        return
    if newest is not None and newest.state == "failed":
        end(session, sweep, "failed", error=newest.error, state_reason=newest.state_reason)
        return
    count = min(missing, sweep.strategy["parallel"])
    life.enqueue(
        session,
        Suggestion(id=new_id("suggest"), sweep_id=sweep.id, first=made + 1, count=count),
    )


# ---- the end ------------------------------------------------------------------------------------


def _finish(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """End a sweep whose trials have all ended."""
    able = [trial for trial in trials if trial.state == "succeeded" and trial.value is not None]
    best = min(able, key=lambda trial: _rank(sweep, trial), default=None)
    if best is None:
        problem = life.problem("no_trial_succeeded", _why_none(sweep, trials))
        end(session, sweep, "failed", error=problem, state_reason="no_trial_succeeded")
        return
    values: dict[str, Any] = {"best_trial": best.number}
    if sweep.register_best_as:
        values |= _register(session, sweep.register_best_as, best)
    if sweep.state_reason == "budget":
        values["state_reason"] = "budget"
    end(session, sweep, "succeeded", **values)


def _why_none(sweep: Sweep, trials: Sequence[Trial]) -> str:
    metric = f"{sweep.metric['name']} of the split {sweep.metric['split']}"
    error = next((trial.error for trial in trials if trial.error), None)
    if error is None:
        return (
            f"None of the {len(trials)} trials ended with a value of {metric}: look at their runs."
        )
    count = sum(trial.error is not None for trial in trials)
    return (
        f"None of the {len(trials)} trials ended with a value of {metric}; {count} failed, the"
        f" first because: {error['detail']}"
    )


def _register(session: Session, name: str, best: Trial) -> dict[str, Any]:
    """Make the best checkpoint of the best run the next version of a model."""
    run = session.get(Run, best.run_id)
    if run is None or run.best_checkpoint_id is None:
        return {}
    checkpoint = session.get_one(Checkpoint, run.best_checkpoint_id)
    outcome = run.outcome or {}
    document = {
        "signature": outcome["signature"],
        "parameters": outcome.get("parameters"),
        "metrics": run.evaluation,
    }
    version = lifecycle.register(session, run, checkpoint, name, document)
    run.model_name, run.model_version = name, version.version
    session.flush()
    return {"model_name": name, "model_version": version.version}


def end(session: Session, sweep: Sweep, to: str, **values: object) -> None:
    """End a sweep, and with it what was kept only for its members' sake."""
    session.execute(update(Run).where(Run.sweep_id == sweep.id).values(outcome=None))
    session.flush()
    for state in WAYS.get((sweep.state, to), ()):
        life.move(session, sweep, state)
    life.finish(session, sweep, to, values)
