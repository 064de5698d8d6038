"""What a run does about a checkpoint whose bytes are damaged: it goes on from the one before."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.jobs import queue
from service.runs import events, lifecycle, metrics
from service.tables import Checkpoint, Run


def fall_back(
    session: Session, run_id: str, attempt: int, damaged: Checkpoint
) -> Checkpoint | None:
    """Give a damaged checkpoint up, for all to see; return the one to start from instead.

    The rows that only the damaged one covered are replaced before any reader sees new ones.
    """
    run = queue.fence(session, run_id, attempt)
    older = _before(session, damaged)
    older_id = older.id if older else None
    values = {"resume_checkpoint_id": older_id}
    if run.best_checkpoint_id == damaged.id:
        values["best_checkpoint_id"] = older_id
    session.execute(update(Run).where(Run.id == run_id).values(**values))
    if damaged.run_id == run_id:
        session.execute(delete(Checkpoint).where(Checkpoint.id == damaged.id))
    run = lifecycle.get(session, run_id)
    warning = {"code": "checkpoint_corrupt", "detail": _tell(damaged, older)}
    run.warnings = [*run.warnings, warning]
    events.append(session, run_id, attempt, "log", {"line": warning["detail"]} | warning)
    step = older.step if older else 0
    metrics.rewind(session, run, lifecycle.covered_seq(run_id, older), step)
    return older


def _before(session: Session, damaged: Checkpoint) -> Checkpoint | None:
    return session.scalars(
        select(Checkpoint)
        .where(Checkpoint.run_id == damaged.run_id, Checkpoint.is_resumable)
        .where(Checkpoint.step < damaged.step)
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    ).one_or_none()


def _tell(damaged: Checkpoint, older: Checkpoint | None) -> str:
    goes_on = f"goes on from step {older.step}" if older else "starts from the beginning"
    return (
        f"The stored checkpoint {damaged.id} of step {damaged.step} is damaged or missing and is"
        f" not used: the training {goes_on}."
    )
