"""The requests of clients for a sweep: submit, cancel, pause, resume, delete."""

from sqlalchemy import and_, exists, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session, aliased

from service.errors import Conflict
from service.jobs import life
from service.runs import lifecycle
from service.runs.tables import Checkpoint, Run
from service.storage.columns import new_id
from service.sweeps import members, steering
from service.sweeps.plan import SweepPlan
from service.sweeps.tables import Sweep, Trial


def get(session: Session, sweep_id: str) -> Sweep:
    return life.get(session, Sweep, sweep_id)


def submit(session: Session, plan: SweepPlan) -> Sweep:
    """Store a sweep with its first members, as queued."""
    asked, config = plan.request, plan.plan.config.model_dump(mode="json")
    dataset = plan.base["dataset"]
    sweep = Sweep(
        id=new_id("sweep"),
        name=asked.name,
        tags=asked.tags,
        dataset_id=dataset["id"],
        dataset_version=dataset["version"],
        base=plan.base,
        config=config,
        space=plan.space,
        strategy=plan.strategy.model_dump(mode="json"),
        metric=plan.metric,
        budget=asked.budget.model_dump(mode="json") if asked.budget else None,
        seed=asked.seed,
        trials=plan.trials,
        rungs=plan.rungs,
        register_best_as=asked.register_best_as,
        warnings=plan.warnings,
        is_due=False,
        left_s=asked.budget.time_s if asked.budget else None,
    )
    life.enqueue(session, sweep)
    members.submit(session, sweep, 1, plan.members)
    return get(session, sweep.id)


def cancel(session: Session, sweep_id: str) -> tuple[Sweep, bool]:
    """Cancel the unfinished members; return the sweep and whether anything changed."""
    sweep = life.lock(session, Sweep, sweep_id)
    if sweep.state in {"cancelling", "cancelled"}:
        return sweep, False
    if sweep.state in life.TERMINAL:
        raise life.not_allowed(sweep, "cancel")
    steering.cancel_all(session, sweep, steering.see(session, sweep))
    return get(session, sweep_id), True


def pause(session: Session, sweep_id: str) -> tuple[Sweep, bool]:
    """Pause the unfinished members; return the sweep and whether anything changed."""
    sweep = life.lock(session, Sweep, sweep_id)
    if sweep.state in {"pausing", "paused"}:
        return sweep, False
    if sweep.state not in {"queued", "starting", "running"}:
        raise life.not_allowed(sweep, "pause")
    steering.pause_all(session, sweep, steering.see(session, sweep))
    return get(session, sweep_id), True


def resume(session: Session, sweep_id: str) -> tuple[Sweep, bool]:
    """Queue the paused members again; they continue exactly where they paused."""
    sweep = life.lock(session, Sweep, sweep_id)
    if sweep.state in {"queued", "starting", "running"}:
        return sweep, False
    if sweep.state != "paused":
        raise life.not_allowed(sweep, "resume")
    sweep.is_due = True
    steering.move(session, sweep, "queued")
    # The next step decides which of those at the end of a rung continue.
    mine = and_(Run.sweep_id == sweep_id, Run.state_reason.is_distinct_from(lifecycle.RUNG))
    life.move_idle(session, Run, mine, "queued", reason=None)
    steering.see(session, sweep)
    return get(session, sweep_id), True


def delete(session: Session, sweep_id: str) -> None:
    """Delete a finished sweep with its members; their model versions stay."""
    sweep = life.lock_ended(session, Sweep, sweep_id)
    if heir := _heir(session, sweep_id):
        needs = f"The run {heir} resumes from a checkpoint of a member of this sweep"
        raise Conflict(f"{needs}: wait until it has its own.", code="in_use", run=heir)
    session.execute(sql_delete(Trial).where(Trial.sweep_id == sweep_id))
    session.execute(sql_delete(Run).where(Run.sweep_id == sweep_id))
    session.delete(sweep)
    session.flush()


def _heir(session: Session, sweep_id: str) -> str | None:
    """Return the id of an unfinished run that resumes from a checkpoint of a member."""
    heir, member = aliased(Run), aliased(Run)
    inherited = exists().where(
        Checkpoint.id == heir.resume_checkpoint_id,
        member.id == Checkpoint.run_id,
        member.sweep_id == sweep_id,
        heir.id != member.id,
    )
    query = select(heir.id).where(heir.state.not_in(life.TERMINAL), inherited)
    return session.scalar(query.limit(1))
