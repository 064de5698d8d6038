"""The life of a run: what it has in common with other jobs (`jobs.life`), and what is its own.

What a supervisor does is fenced by the attempt; what a client asks for (cancel, pause) is a state
that the supervisor honours, never a write over a running attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.errors import Conflict, Fenced
from service.ids import new_id
from service.jobs import life, queue
from service.jobs.life import (
    TERMINAL,
    TRANSITIONS,
    crashed,
    fail,
    rescue,
    started,
    stopped,
    succeed,
)
from service.runs import events, metrics
from service.tables import Checkpoint, Run, utc_now

__all__ = [
    "TERMINAL",
    "TRANSITIONS",
    "crashed",
    "fail",
    "rescue",
    "started",
    "stopped",
    "succeed",
]

KEEP_CHECKPOINTS = 2  # the newest ones that are kept beside the best


def get(session: Session, run_id: str) -> Run:
    return life.get(session, Run, run_id)


def unfinished_runs_of(session: Session, dataset_id: str) -> Sequence[str]:
    """Return the ids of the runs that still need the dataset."""
    return session.scalars(
        select(Run.id)
        .where(Run.dataset_id == dataset_id, Run.state.not_in(TERMINAL))
        .order_by(Run.id)
    ).all()


# ---- what clients do ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """A run to be made: its complete configuration and the dataset version that it reads."""

    config: dict[str, Any]
    dataset_id: str
    dataset_version: int
    warnings: list[dict[str, Any]]
    retry_of: str | None = None
    resume_checkpoint_id: str | None = None


def submit(session: Session, submission: Submission) -> Run:
    """Store the run as queued; the row is its job, so one commit makes both."""
    run = Run(
        id=new_id("run"),
        name=submission.config.get("name"),
        tags=submission.config.get("tags") or {},
        config=submission.config,
        dataset_id=submission.dataset_id,
        dataset_version=submission.dataset_version,
        state="queued",
        warnings=submission.warnings,
        retry_of=submission.retry_of,
        resume_checkpoint_id=submission.resume_checkpoint_id,
        best_checkpoint_id=submission.resume_checkpoint_id,
    )
    session.add(run)
    session.flush()
    events.append(session, run.id, 0, "state", {"state": "queued"})
    return get(session, run.id)


def cancel(session: Session, run_id: str) -> tuple[Run, bool]:
    """Ask for the end of a run; return it and whether anything was changed."""
    return life.cancel(session, Run, run_id)


def pause(session: Session, run_id: str) -> tuple[Run, bool]:
    """Ask the run to stop at its next step boundary and to keep its place."""
    return life.ask(session, Run, run_id, "pausing")


def resume(session: Session, run_id: str) -> tuple[Run, bool]:
    """Put a paused run back into the queue; it goes on from its last checkpoint."""
    run = life.lock(session, Run, run_id)
    if run.state != "paused":
        if run.state in {"queued", "starting", "running"}:
            return run, False
        raise life.not_allowed(run, "resume")
    life.move(session, run, "queued", queued_at=utc_now())
    return get(session, run_id), True


def retry(session: Session, run_id: str) -> Run:
    """Make a new run from one that failed or was cancelled; it starts at its last checkpoint."""
    old = life.lock(session, Run, run_id)  # or its checkpoints could be deleted meanwhile
    if old.state not in {"failed", "cancelled"}:
        raise life.not_allowed(old, "retry")
    return submit(
        session,
        Submission(
            config=old.config,
            dataset_id=old.dataset_id,
            dataset_version=old.dataset_version,
            warnings=old.warnings,
            retry_of=old.id,
            resume_checkpoint_id=old.resume_checkpoint_id,
        ),
    )


def delete(session: Session, run_id: str) -> None:
    """Remove a finished run with its curve and checkpoints; its model versions stay."""
    run = life.lock_ended(session, Run, run_id)
    if heir := _heir(session, run_id):
        needs = f"The run {heir} goes on from a checkpoint of this one"
        raise Conflict(f"{needs}: wait until it has its own.", code="in_use", run=heir)
    session.delete(run)
    session.flush()


def _heir(session: Session, run_id: str) -> str | None:
    """Return an unfinished run that would start over without a checkpoint of this one."""
    query = select(Run.id).join(Checkpoint, Checkpoint.id == Run.resume_checkpoint_id)
    others = query.where(Checkpoint.run_id == run_id, Run.id != run_id)
    return session.scalar(others.where(Run.state.not_in(TERMINAL)).limit(1))


# ---- what supervisors do ------------------------------------------------------------------------


def claim(session: Session, owner: str, *, lease_s: float, now: float | None = None) -> Run | None:
    """Start a new attempt of the oldest queued run, replacing rows that no checkpoint covers."""
    run = queue.claim(session, Run, owner, lease_s=lease_s, now=now)
    if run is None:
        return None
    checkpoint = resume_checkpoint(session, run)
    step = checkpoint.step if checkpoint else 0
    metrics.rewind(session, run, covered_seq(run.id, checkpoint), step)
    reach("claim.rewound")
    events.append(session, run.id, run.attempt, "state", {"state": "starting"})
    return get(session, run.id)


def resume_checkpoint(session: Session, run: Run) -> Checkpoint | None:
    """Return the checkpoint that the next attempt starts from, if there is one."""
    if run.resume_checkpoint_id is None:
        return None
    return session.get(Checkpoint, run.resume_checkpoint_id)


def covered_seq(run_id: str, checkpoint: Checkpoint | None) -> int:
    """Return the last metric row of the run that an attempt from this checkpoint keeps."""
    return checkpoint.metric_seq if checkpoint and checkpoint.run_id == run_id else 0


def add_checkpoint(
    session: Session, run_id: str, attempt: int, checkpoint: Checkpoint, *, is_resumable: bool
) -> None:
    """Add a checkpoint whose bytes are stored, and drop those that it makes needless."""
    run = queue.fence(session, run_id, attempt)
    if checkpoint.metric_seq > run.metric_seq:
        raise Fenced(f"checkpoint at row {checkpoint.metric_seq}, but only {run.metric_seq} rows")
    checkpoint.is_resumable = is_resumable
    session.add(checkpoint)
    session.flush()
    values: dict[str, Any] = {"crash_streak": 0}
    if is_resumable:
        values["resume_checkpoint_id"] = checkpoint.id
    if checkpoint.is_best:
        values["best_checkpoint_id"] = checkpoint.id
        session.execute(
            update(Checkpoint)
            .where(Checkpoint.run_id == run_id, Checkpoint.id != checkpoint.id)
            .values(is_best=False)
        )
    session.execute(update(Run).where(Run.id == run_id).values(**values))
    data = {"id": checkpoint.id, "epoch": checkpoint.epoch, "step": checkpoint.step}
    events.append(session, run_id, attempt, "checkpoint", data | {"is_best": checkpoint.is_best})
    _drop_old_checkpoints(session, run_id)


def log(session: Session, run_id: str, attempt: int, line: str) -> None:
    queue.fence(session, run_id, attempt)
    events.append(session, run_id, attempt, "log", {"line": line})


# ---- private ------------------------------------------------------------------------------------


def _drop_old_checkpoints(session: Session, run_id: str) -> None:
    newest_first = session.scalars(
        select(Checkpoint)
        .where(Checkpoint.run_id == run_id)
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
    ).all()
    run = get(session, run_id)
    keep = {run.resume_checkpoint_id, run.best_checkpoint_id}
    old = [c for c in newest_first[KEEP_CHECKPOINTS:] if c.id not in keep]
    for checkpoint in old:
        session.delete(checkpoint)
    session.flush()
