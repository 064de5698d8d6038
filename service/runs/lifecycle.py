"""The life of a run: the one table of transitions, and every change of state.

Each transition is one UPDATE that names the states it may start from, plus one event, in one
transaction. What a supervisor does is fenced by the attempt; what a client asks for (cancel,
pause) is a state that the supervisor honours, never a write over a running attempt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.database import boot_id, clock
from service.errors import Conflict, Fenced, NotFound
from service.ids import new_id
from service.jobs import deaths, queue
from service.runs import events, metrics
from service.tables import Checkpoint, Run, utc_now

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"starting", "cancelled"}),
    "starting": frozenset({"running", "interrupted", "failed", "cancelling"}),
    "running": frozenset({"pausing", "cancelling", "interrupted", "succeeded", "failed"}),
    "pausing": frozenset({"paused", "cancelling", "interrupted", "succeeded", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    "cancelling": frozenset({"cancelled", "succeeded"}),
    "interrupted": frozenset({"queued", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL = frozenset(state for state, to in TRANSITIONS.items() if not to)
KEEP_CHECKPOINTS = 2  # the newest ones that are kept beside the best


def from_states(to: str) -> frozenset[str]:
    """Return the states from which `to` can be reached."""
    return frozenset(state for state, targets in TRANSITIONS.items() if to in targets)


def get(session: Session, run_id: str) -> Run:
    run = session.get(Run, run_id, populate_existing=True)
    if run is None:
        raise NotFound(f"There is no run {run_id!r}.")
    return run


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
    return _ask(session, run_id, {"queued": "cancelled", "paused": "cancelled"}, "cancelling")


def pause(session: Session, run_id: str) -> tuple[Run, bool]:
    """Ask the run to stop at its next step boundary and to keep its place."""
    return _ask(session, run_id, {}, "pausing")


def resume(session: Session, run_id: str) -> tuple[Run, bool]:
    """Put a paused run back into the queue; it goes on from its last checkpoint."""
    run = _lock(session, run_id)
    if run.state != "paused":
        if run.state in {"queued", "starting", "running"}:
            return run, False
        raise _not_allowed(run, "resume")
    _move(session, run, "queued", queued_at=utc_now())
    return get(session, run_id), True


def retry(session: Session, run_id: str) -> Run:
    """Make a new run from one that failed or was cancelled; it starts at its last checkpoint."""
    old = _lock(session, run_id)  # or its checkpoints could be deleted meanwhile
    if old.state not in {"failed", "cancelled"}:
        raise _not_allowed(old, "retry")
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
    run = _lock(session, run_id)
    if run.state not in TERMINAL:
        raise Conflict(
            f"The run is {run.state}: cancel it first.",
            code="in_use",
            state=run.state,
            allowed=["cancel"],
        )
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


def _ask(session: Session, run_id: str, at_once: dict[str, str], request: str) -> tuple[Run, bool]:
    """Move to the state that asks for something, or straight to its end where nobody runs it."""
    run = _lock(session, run_id)
    reached = {"cancelling": {"cancelling", "cancelled"}, "pausing": {"pausing", "paused"}}
    if run.state in reached[request]:
        return run, False
    to = at_once.get(run.state, request)
    if to not in TRANSITIONS[run.state]:
        raise _not_allowed(run, "cancel" if request == "cancelling" else "pause")
    if to in TERMINAL:
        _finish(session, run, to, {"state_reason": "cancel"})
    else:
        _move(session, run, to)
    return get(session, run_id), True


def _not_allowed(run: Run, verb: str) -> Conflict:
    verbs = {
        "queued": ["cancel"],
        "starting": ["cancel"],
        "running": ["cancel", "pause"],
        "pausing": ["cancel"],
        "paused": ["cancel", "resume"],
        "failed": ["retry"],
        "cancelled": ["retry"],
    }
    allowed = verbs.get(run.state, [])
    detail = f"A {run.state} run cannot {verb}."
    if allowed:
        detail += f" It can {' or '.join(allowed)}."
    return Conflict(detail, code="state_conflict", state=run.state, allowed=allowed)


# ---- what supervisors do ------------------------------------------------------------------------


def claim(session: Session, owner: str, *, lease_s: float, now: float | None = None) -> Run | None:
    """Start a new attempt of the oldest queued run, replacing rows that no checkpoint covers."""
    run = queue.claim(session, owner, lease_s=lease_s, now=now)
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


def started(session: Session, run_id: str, attempt: int, values: dict[str, Any]) -> None:
    """The trainer computes its first step. A request that came meanwhile stands."""
    run = queue.fence(session, run_id, attempt)
    values["started_at"] = run.started_at or utc_now()
    if run.state == "starting":
        _move(session, run, "running", **values)
    else:
        session.execute(update(Run).where(Run.id == run_id).values(**values))


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


def succeed(session: Session, run_id: str, attempt: int, values: dict[str, Any]) -> None:
    """End the run with its model. A pause or cancel that came too late is overruled."""
    run = queue.fence(session, run_id, attempt)
    if run.state == "starting":  # a run that resumes after its last step
        _move(session, run, "running")
        run = get(session, run_id)
    _finish(session, run, "succeeded", values)


def fail(session: Session, run_id: str, attempt: int, error: dict[str, Any]) -> None:
    """End the run with a problem object; where a cancel was asked for, it is cancelled instead."""
    run = queue.fence(session, run_id, attempt)
    if run.state == "cancelling":
        _finish(session, run, "cancelled", {"state_reason": "cancel"})
    else:
        _finish(session, run, "failed", {"error": error, "state_reason": error["code"]})


def stopped(session: Session, run_id: str, attempt: int, *, wait_s: float | None = None) -> None:
    """The trainer obeyed: end a cancelled run, park a paused one, requeue one handed back.

    One that is requeued is not tried again for `wait_s` seconds.
    """
    run = queue.fence(session, run_id, attempt)
    if run.state == "cancelling":
        _finish(session, run, "cancelled", {"state_reason": "cancel"})
    elif run.state == "pausing":
        _move(session, run, "paused", owner=None, lease_expires=None)
    else:
        _interrupt(session, run, "handed_back", _waiting(session, wait_s) if wait_s else {})


def crashed(
    session: Session,
    run_id: str,
    attempt: int,
    last_words: str,
    *,
    code: str = "worker_lost",
    now: float | None = None,
) -> None:
    """The trainer died without a word while its supervisor lived: try again, but not for ever."""
    run = queue.fence(session, run_id, attempt)
    streak = run.crash_streak + 1
    where = "host" if code == "out_of_memory" else None  # a GPU's lack of memory has a word
    if run.state == "cancelling":
        _finish(session, run, "cancelled", {"state_reason": "cancel"})
    elif streak >= deaths.MOST[code]:
        error = deaths.problem(code, deaths.sentence(code, last_words, streak), where=where)
        _finish(session, run, "failed", {"error": error, "state_reason": code})
    else:
        wait_s = min(300.0, math.pow(2.0, streak) - 1)
        waiting = _waiting(session, wait_s, now)
        reason = "crashed" if code == "worker_lost" else code
        _interrupt(session, run, reason, {"crash_streak": streak} | waiting)


def rescue(session: Session, run_id: str, attempt: int, *, now: float | None = None) -> bool:
    """Take a run from a supervisor that has been silent too long; return whether it was taken."""
    run = queue.take_expired(session, run_id, attempt, now=now)
    if run is None:
        return False
    if run.state == "cancelling":
        _finish(session, run, "cancelled", {"state_reason": "cancel"})
    else:
        _interrupt(session, run, "worker_lost", {})
    return True


# ---- private ------------------------------------------------------------------------------------


def _lock(session: Session, run_id: str) -> Run:
    run = session.get(Run, run_id, with_for_update=True, populate_existing=True)
    if run is None:
        raise NotFound(f"There is no run {run_id!r}.")
    return run


def _interrupt(session: Session, run: Run, reason: str, values: dict[str, Any]) -> None:
    """Give a run back to the queue; one that was being paused keeps its place and is parked."""
    free = {"owner": None, "lease_expires": None, "state_reason": reason}
    if run.state == "pausing":
        _move(session, run, "paused", **free, **values)
        return
    _move(session, run, "interrupted", **free)
    _move(session, get(session, run.id), "queued", **values)


def _waiting(session: Session, wait_s: float, now: float | None = None) -> dict[str, Any]:
    """Return the columns of a run that is not tried again for `wait_s` seconds."""
    return {
        "not_before": clock(session, now) + wait_s,
        "boot_id": boot_id(session),
        "waits_until": utc_now() + timedelta(seconds=wait_s),
    }


def _finish(session: Session, run: Run, to: str, values: dict[str, Any]) -> None:
    _move(session, run, to, owner=None, lease_expires=None, finished_at=utc_now(), **values)
    events.append(session, run.id, run.attempt, "end", {"state": to})


def _move(session: Session, run: Run, to: str, **values: Any) -> None:  # noqa: ANN401  columns
    """Write one transition and its event. The caller has locked the row."""
    done = session.execute(
        update(Run)
        .where(Run.id == run.id, Run.attempt == run.attempt, Run.state.in_(from_states(to)))
        .values(state=to, **values)
        .returning(Run.id),
        execution_options={"synchronize_session": False},
    ).scalar_one_or_none()
    if done is None:
        raise Fenced(f"{run.id} cannot go from {run.state} to {to}")
    data: dict[str, Any] = {"state": to}
    if values.get("state_reason"):
        data["reason"] = values["state_reason"]
    if values.get("error"):
        data["error"] = values["error"]
    events.append(session, run.id, run.attempt, "state", data)
    session.expire(run)


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
