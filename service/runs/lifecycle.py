"""The lifecycle of a run: that of every job (`jobs.life`), plus pause, checkpoints and versions.

Writes of a supervisor are fenced by the attempt. A client's request (cancel, pause) sets a state
that the supervisor acts on; it never overwrites data of a running attempt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from descent.codes import make_warning
from models.failpoints import reach
from service.errors import Conflict, Fenced, NotFound
from service.jobs import events, life, queue
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
from service.registry import versions
from service.registry.tables import ModelVersion
from service.registry.versions import Target
from service.runs import metrics
from service.runs.tables import Checkpoint, Run
from service.storage import references
from service.storage.columns import new_id
from service.storage.database import time_of_day

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

#: the `state_reason` of a run that paused at the end of the epoch `pause_after`
RUNG = "rung"
MOST_TOGETHER = 64  # runs in one process
KEEP_CHECKPOINTS = 2  # the newest checkpoints, which are kept besides the best


def get(session: Session, run_id: str) -> Run:
    return life.get(session, Run, run_id)


# ---- requests of clients ------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """A new run: its complete configuration and its dataset version."""

    config: dict[str, Any]
    dataset_id: str
    dataset_version: int
    warnings: list[dict[str, Any]]
    retry_of: str | None = None
    resume_checkpoint_id: str | None = None
    sweep_id: str | None = None
    trial: int | None = None
    group: str | None = None
    pause_after: int | None = None


def submit(session: Session, submission: Submission) -> Run:
    """Store the run as queued. Its row is also its job, so one commit creates both."""
    return life.enqueue(session, _row(submission))


def submit_all(session: Session, submissions: Sequence[Submission]) -> list[Run]:
    """Store runs as queued, in this order, with few statements."""
    runs = [_row(submission) for submission in submissions]
    life.enqueue_all(session, runs)
    return runs


def _row(submission: Submission) -> Run:
    return Run(
        id=new_id("run"),
        name=submission.config.get("name"),
        tags=submission.config.get("tags") or {},
        config=submission.config,
        dataset_id=submission.dataset_id,
        dataset_version=submission.dataset_version,
        warnings=submission.warnings,
        retry_of=submission.retry_of,
        resume_checkpoint_id=submission.resume_checkpoint_id,
        best_checkpoint_id=submission.resume_checkpoint_id,
        sweep_id=submission.sweep_id,
        trial=submission.trial,
        group=submission.group,
        pause_after=submission.pause_after,
    )


def cancel(session: Session, run_id: str, *, reason: str = "cancel") -> tuple[Run, bool]:
    """Request the cancellation of a run; return the run and whether anything changed.

    `reason` is the `state_reason` of a run that no process trains.
    """
    return life.ask(session, Run, run_id, "cancelling", reason=reason)


def pause(session: Session, run_id: str) -> tuple[Run, bool]:
    """Request that a run stops after its current step; return it and whether anything changed."""
    return life.ask(session, Run, run_id, "pausing")


def resume(session: Session, run_id: str) -> tuple[Run, bool]:
    """Queue a paused run again; it resumes from its last checkpoint."""
    run = life.lock(session, Run, run_id)
    if run.state != "paused":
        if run.state in {"queued", "starting", "running"}:
            return run, False
        raise life.not_allowed(run, "resume")
    life.move(session, run, "queued", queued_at=time_of_day(session))
    return get(session, run_id), True


def retry(session: Session, run_id: str) -> Run:
    """Create a run from one that failed or was cancelled; it starts from its last checkpoint."""
    old = life.lock(session, Run, run_id)  # so that its checkpoints are not deleted meanwhile
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
    """Delete a finished run with its metrics and checkpoints; its model versions stay."""
    run = life.lock_ended(session, Run, run_id)
    sweep = session.get(queue.table_of(run.sweep_id), run.sweep_id) if run.sweep_id else None
    if sweep is not None and sweep.state not in TERMINAL:
        raise Conflict(
            f"The run is trial {run.trial} of the sweep {sweep.id}, which is {sweep.state}:"
            " cancel the sweep or wait until it has ended.",
            code="in_use",
            sweep=sweep.id,
        )
    if heir := _heir(session, run_id):
        needs = f"The run {heir} resumes from a checkpoint of this run"
        raise Conflict(f"{needs}: wait until it has its own.", code="in_use", run=heir)
    session.delete(run)
    session.flush()


def _heir(session: Session, run_id: str) -> str | None:
    """Return the id of an unfinished run that needs a checkpoint of this run to resume from."""
    query = select(Run.id).join(Checkpoint, Checkpoint.id == Run.resume_checkpoint_id)
    others = query.where(Checkpoint.run_id == run_id, Run.id != run_id)
    return session.scalar(others.where(Run.state.not_in(TERMINAL)).limit(1))


def target_of(session: Session, run_id: str) -> Target:
    """Return the best checkpoint of a run, for predictions."""
    run = get(session, run_id)
    # Before training ends no checkpoint may be marked best, but each holds the best parameters so
    # far.
    best_id = run.best_checkpoint_id or run.resume_checkpoint_id
    best = best_id and session.get(Checkpoint, best_id)
    if not best:
        raise Conflict(
            f"The run {run_id} is {run.state} and has no checkpoint to predict with: "
            "wait until it has one.",
            code="no_checkpoint",
        )
    name = run.model_name if run.model_version else None
    named = {"model": name, "version": run.model_version, "run": run_id, "checkpoint": best.id}
    return Target(best.sha256, named)


def find_checkpoint(session: Session, run: Run, checkpoint_id: str) -> Checkpoint:
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None or checkpoint.run_id != run.id:
        raise NotFound(f"The run {run.id} has no checkpoint {checkpoint_id!r}.")
    return checkpoint


def register(
    session: Session, run: Run, checkpoint: Checkpoint, model: str, document: Mapping[str, Any]
) -> ModelVersion:
    """Publish a checkpoint as the next version of a model, which is created if needed.

    `document` holds `signature`, `metrics` and, for a linear model, `parameters`.
    """
    # The version becomes a second owner of the blob. The lock prevents that the blob is collected
    # between the deletion of the checkpoint and this commit.
    references.lock(session, checkpoint.sha256)
    if session.get(Checkpoint, checkpoint.id, populate_existing=True) is None:
        raise NotFound(f"The checkpoint {checkpoint.id} has just been deleted.")
    version = ModelVersion(
        model_name=model,
        run_id=run.id,
        checkpoint_id=checkpoint.id,
        sha256=checkpoint.sha256,
        bytes=checkpoint.bytes,
        signature=document["signature"],
        metrics=document.get("metrics") or {},
        config=run.config,
        dataset_id=run.dataset_id,
        dataset_version=run.dataset_version,
        parameters=document.get("parameters"),
    )
    return versions.add(session, version)


# ---- writes of supervisors ----------------------------------------------------------------------


def claim(session: Session, owner: str, *, lease_s: float, now: float | None = None) -> Run | None:
    """Start a new attempt of the oldest queued run, and replace rows that no checkpoint covers."""
    run = queue.claim(session, Run, owner, lease_s=lease_s, now=now)
    return _begin(session, run) if run else None


def claim_companions(
    session: Session,
    first: Run,
    owner: str,
    choose: Callable[[Sequence[Run]], Sequence[Run]],
    *,
    lease_s: float,
) -> list[Run]:
    """Start new attempts of queued runs of the group and the dataset of `first`, oldest first.

    `choose` is given the oldest of them, and returns those that there is room for. A run whose
    process has died trains alone until its next checkpoint, because it may be the reason, and the
    others would die with it.
    """
    if first.group is None or first.crash_streak:
        return []
    same = [
        Run.group == first.group,
        Run.dataset_id == first.dataset_id,
        Run.dataset_version == first.dataset_version,
        Run.crash_streak == 0,
    ]
    waiting = select(Run).where(Run.state == "queued", *same).order_by(Run.queued_at, Run.id)
    chosen = choose(session.scalars(waiting.limit(MOST_TOGETHER - 1)).all())
    if not chosen:
        return []
    only = [*same, Run.id.in_([run.id for run in chosen])]
    choice = queue.ClaimRule(only=only, most=len(chosen))
    runs = queue.claim_several(session, Run, owner, lease_s=lease_s, choice=choice)
    return [_begin(session, run) for run in runs]


def _begin(session: Session, run: Run) -> Run:
    checkpoint = resume_checkpoint(session, run)
    step = checkpoint.step if checkpoint else 0
    metrics.rewind(session, run, covered_seq(run.id, checkpoint), step)
    reach("claim.rewound")
    events.append(session, run, "state", {"state": "starting"})
    return run


def resume_checkpoint(session: Session, run: Run) -> Checkpoint | None:
    """Return the checkpoint from which the next attempt starts, or None."""
    if run.resume_checkpoint_id is None:
        return None
    return session.get(Checkpoint, run.resume_checkpoint_id)


def covered_seq(run_id: str, checkpoint: Checkpoint | None) -> int:
    """Return the number of the last metric row that an attempt from this checkpoint keeps."""
    return checkpoint.metric_seq if checkpoint and checkpoint.run_id == run_id else 0


def add_checkpoint(
    session: Session,
    run_id: str,
    attempt: int,
    checkpoint: Checkpoint,
    *,
    is_resumable: bool,
    progress: dict[str, Any] | None = None,
) -> None:
    """Add a checkpoint whose blob is stored, and delete older ones that are no longer needed."""
    run = queue.hold(session, Run, run_id, attempt)
    if checkpoint.metric_seq > run.metric_seq:
        raise Fenced(f"checkpoint at row {checkpoint.metric_seq}, but only {run.metric_seq} rows")
    checkpoint.is_resumable = is_resumable
    session.add(checkpoint)
    run.crash_streak = 0
    if progress is not None:
        run.progress = progress
    if is_resumable:
        run.resume_checkpoint_id = checkpoint.id
    if checkpoint.is_best:
        run.best_checkpoint_id = checkpoint.id
        session.execute(
            update(Checkpoint)
            .where(Checkpoint.run_id == run_id, Checkpoint.id != checkpoint.id)
            .values(is_best=False)
        )
    data = {"id": checkpoint.id, "epoch": checkpoint.epoch, "step": checkpoint.step}
    events.append(session, run, "checkpoint", data | {"is_best": checkpoint.is_best})
    _drop_old_checkpoints(session, run)


def fall_back(
    session: Session, run_id: str, attempt: int, damaged: Checkpoint
) -> Checkpoint | None:
    """Delete a damaged checkpoint, with a warning; return the one to start from instead.

    The rows that only the damaged checkpoint covered are replaced before a reader sees new rows.
    """
    run = queue.hold(session, Run, run_id, attempt)
    older = _before(session, damaged)
    older_id = older.id if older else None
    values = {"resume_checkpoint_id": older_id}
    if run.best_checkpoint_id == damaged.id:
        values["best_checkpoint_id"] = older_id
    session.execute(update(Run).where(Run.id == run_id).values(**values))
    if damaged.run_id == run_id:
        session.execute(sql_delete(Checkpoint).where(Checkpoint.id == damaged.id))
    run = get(session, run_id)
    warning = make_warning("checkpoint_corrupt", _fall_back_text(damaged, older))
    run.warnings = [*run.warnings, warning]
    events.append(session, run, "log", {"line": warning["detail"]} | warning)
    step = older.step if older else 0
    metrics.rewind(session, run, covered_seq(run_id, older), step)
    return older


def rest(session: Session, run_id: str, attempt: int) -> None:
    """Record that a training paused by itself, at the end of the epoch `pause_after`."""
    run = queue.hold(session, Run, run_id, attempt)
    if run.state == "cancelling":
        life.finish(session, run, "cancelled", {"state_reason": "cancel"})
        return
    if run.state == "running":
        life.move(session, run, "pausing")
    life.move(session, run, "paused", owner=None, lease_expires=None, state_reason=RUNG)


def log(session: Session, run_id: str, attempt: int, line: str) -> None:
    run = queue.hold(session, Run, run_id, attempt)
    events.append(session, run, "log", {"line": line})


# ---- private ------------------------------------------------------------------------------------


def _drop_old_checkpoints(session: Session, run: Run) -> None:
    newest_first = session.scalars(
        select(Checkpoint)
        .where(Checkpoint.run_id == run.id)
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
    ).all()
    keep = {run.resume_checkpoint_id, run.best_checkpoint_id}
    old = [c for c in newest_first[KEEP_CHECKPOINTS:] if c.id not in keep]
    for checkpoint in old:
        session.delete(checkpoint)
    session.flush()


def _before(session: Session, damaged: Checkpoint) -> Checkpoint | None:
    return session.scalars(
        select(Checkpoint)
        .where(Checkpoint.run_id == damaged.run_id, Checkpoint.is_resumable)
        .where(Checkpoint.step < damaged.step)
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
        .limit(1)
    ).one_or_none()


def _fall_back_text(damaged: Checkpoint, older: Checkpoint | None) -> str:
    goes_on = f"goes on from step {older.step}" if older else "starts from the beginning"
    return (
        f"The stored checkpoint {damaged.id} of step {damaged.step} is damaged or missing and is"
        f" not used: the training {goes_on}."
    )
