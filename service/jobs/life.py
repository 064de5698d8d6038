"""The life of a job of any kind: the table of transitions, every change of state, and deaths.

Each transition is one UPDATE that names the states it may start from, plus one event, in one
transaction. The attempt fences the writes of a supervisor. A request of a client sets a state that
the supervisor obeys; it never overwrites a running attempt.
"""

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, UpdateBase, bindparam, select, update
from sqlalchemy.orm import Session

from descent.codes import ErrorCode
from service.errors import Conflict, DeathCode, Fenced, NotFound
from service.jobs import events, queue
from service.jobs.kind import JOB_TABLES, Job, JobT
from service.storage import database
from service.storage.database import boot_id, clock, time_of_day

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"starting", "paused", "cancelled"}),
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
#: state → the requests of clients that it allows, if the kind of job has the verb
VERBS = {
    "queued": ["cancel", "pause"],
    "starting": ["cancel"],
    "running": ["cancel", "pause"],
    "pausing": ["cancel"],
    "paused": ["cancel", "resume"],
    "failed": ["retry"],
    "cancelled": ["retry"],
}


@dataclass(frozen=True)
class Death:
    """The cause of a death, for the row of the job."""

    code: DeathCode
    #: the exit status and the last output of the process
    words: str


def from_states(to: str) -> frozenset[str]:
    """Return the states from which `to` can be reached."""
    return frozenset(state for state, targets in TRANSITIONS.items() if to in targets)


def get(session: Session, table: type[JobT], job_id: str) -> JobT:
    job = session.get(table, job_id, populate_existing=True)
    if job is None:
        raise NotFound(f"There is no {table.noun} {job_id!r}.")
    return job


def lock(session: Session, table: type[JobT], job_id: str) -> JobT:
    job = session.get(table, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound(f"There is no {table.noun} {job_id!r}.")
    return job


def users_of(session: Session, **reads: str | int) -> dict[type[Job], list[str]]:
    """Return the ids of the unfinished jobs that read a dataset or a model, by table.

    `reads` are columns and their values, such as `dataset_id`, or `model_name`.
    """
    found: dict[type[Job], list[str]] = {}
    for table in JOB_TABLES.values():
        if not reads.keys() <= table.reads:
            continue
        wanted = [getattr(table, column) == value for column, value in reads.items()]
        query = select(table.id).where(*wanted, table.state.not_in(TERMINAL)).order_by(table.id)
        if ids := list(session.scalars(query)):
            found[table] = ids
    return found


def in_use(users: dict[type[Job], list[str]], noun: str) -> Conflict:
    """Return the error that names the unfinished jobs that need a resource."""
    table, ids = next(iter(users.items()))
    lists: dict[str, Any] = {each.plural: found[:100] for each, found in users.items()}
    return Conflict(
        f"{len(ids)} unfinished {table.noun}s need {noun}, such as {ids[0]}: cancel them or wait"
        " until they are finished.",
        code="in_use",
        **lists,
    )


# ---- requests of clients ------------------------------------------------------------------------


def enqueue(session: Session, job: JobT) -> JobT:
    """Add a job to the queue, in the transaction of the caller.

    Jobs start in the order of `queued_at`, so the database's clock sets it.
    """
    enqueue_all(session, [job])
    return job


def enqueue_all(session: Session, jobs: Sequence[Job]) -> None:
    """Add jobs of one kind to the queue, in this order; see `enqueue`."""
    now = time_of_day(session)
    for place, job in enumerate(jobs):
        job.state, job.event_seq, job.attempt = "queued", 1, 0
        job.created_at = job.queued_at = now + timedelta(microseconds=place)
    session.add_all(jobs)
    session.flush()
    queued = {"seq": 1, "attempt": 0, "kind": "state", "data": {"state": "queued"}}
    for table in {type(job) for job in jobs}:
        events.write_all(session, table, [queued | {"job_id": job.id} for job in jobs])
    database.tell(session, database.QUEUE)


def cancel(session: Session, table: type[JobT], job_id: str) -> tuple[JobT, bool]:
    """Request the end of a job; return it and whether its state changed."""
    return ask(session, table, job_id, "cancelling")


def ask(
    session: Session, table: type[JobT], job_id: str, request: str, *, reason: str = "cancel"
) -> tuple[JobT, bool]:
    """Move a job to the requested state, or directly to its end if no process runs it.

    `reason` is the `state_reason` of a job that is cancelled at once.
    """
    job = lock(session, table, job_id)
    reached = {"cancelling": {"cancelling", "cancelled"}, "pausing": {"pausing", "paused"}}
    if job.state in reached[request]:
        return job, False
    idle = {"cancelling": {"queued", "paused"}, "pausing": {"queued"}}
    rests = {"cancelling": "cancelled", "pausing": "paused"}
    to = rests[request] if job.state in idle[request] else request
    if to not in TRANSITIONS[job.state]:
        raise not_allowed(job, "cancel" if request == "cancelling" else "pause")
    if to in TERMINAL:
        finish(session, job, to, {"state_reason": reason})
    else:
        move(session, job, to)
        database.tell(session, database.QUEUE)
    return get(session, table, job_id), True


def lock_ended(session: Session, table: type[JobT], job_id: str) -> JobT:
    """Lock a job that has ended and return it, so that it can be removed."""
    job = lock(session, table, job_id)
    if job.state not in TERMINAL:
        raise Conflict(
            f"The {table.noun} is {job.state}: cancel it first.",
            code="in_use",
            state=job.state,
            allowed=["cancel"],
        )
    return job


def not_allowed(job: Job, verb: str) -> Conflict:
    allowed = [verb for verb in VERBS.get(job.state, []) if verb in job.verbs]
    detail = f"A {job.state} {job.noun} cannot {verb}."
    if allowed:
        detail += f" It can {' or '.join(allowed)}."
    return Conflict(detail, code="state_conflict", state=job.state, allowed=allowed)


# ---- writes of supervisors ----------------------------------------------------------------------


def claim(
    session: Session,
    table: type[JobT],
    owner: str,
    *,
    lease_s: float,
    choice: queue.ClaimRule = queue.OLDEST,
) -> JobT | None:
    """Give the oldest job that may start to `owner`, as a new attempt; see `queue.claim`."""
    job = queue.claim(session, table, owner, lease_s=lease_s, choice=choice)
    if job is not None:
        events.append(session, job, "state", {"state": "starting"})
    return job


def started(session: Session, job_id: str, attempt: int, values: dict[str, Any]) -> None:
    """Record that the process begins to compute. An earlier request of a client stays valid."""
    table = queue.table_of(job_id)
    job = queue.hold(session, table, job_id, attempt)
    values["started_at"] = job.started_at or time_of_day(session)
    if job.state == "starting":
        move(session, job, "running", **values)
    else:
        session.execute(update(table).where(table.id == job_id).values(**values))


def succeed(session: Session, job_id: str, attempt: int, values: dict[str, Any]) -> None:
    """End the job with its result, also if a pause or cancel came too late."""
    job = queue.hold(session, queue.table_of(job_id), job_id, attempt)
    if job.state == "starting":  # a run that resumes after its last step
        move(session, job, "running")
    finish(session, job, "succeeded", values)


def fail(session: Session, job_id: str, attempt: int, error: dict[str, Any]) -> None:
    """End the job with a problem object, or as cancelled if a client requested that."""
    job = queue.hold(session, queue.table_of(job_id), job_id, attempt)
    if job.state == "cancelling":
        finish(session, job, "cancelled", {"state_reason": "cancel"})
    else:
        finish(session, job, "failed", {"error": error, "state_reason": error["code"]})


def stopped(session: Session, job_id: str, attempt: int, *, wait_s: float | None = None) -> None:
    """Record that the process stopped on request: cancelled, paused, or handed back to the queue.

    A job that is handed back does not start again for `wait_s` seconds.
    """
    job = queue.hold(session, queue.table_of(job_id), job_id, attempt)
    if job.state == "cancelling":
        finish(session, job, "cancelled", {"state_reason": "cancel"})
    elif job.state == "pausing":
        move(session, job, "paused", owner=None, lease_expires=None)
    else:
        _interrupt(session, job, "handed_back", _waiting(session, wait_s) if wait_s else {})


def crashed(
    session: Session,
    job_id: str,
    attempt: int,
    last_words: str,
    *,
    code: DeathCode = "worker_lost",
    now: float | None = None,
) -> None:
    """Record a death without a last message: queue the job again, or fail it after several."""
    table = queue.table_of(job_id)
    job = queue.hold(session, table, job_id, attempt)
    streak = job.crash_streak + 1
    if job.state == "cancelling":
        finish(session, job, "cancelled", {"state_reason": "cancel"})
    elif streak >= table.most_deaths[code]:
        _fail_by_deaths(session, job, code, last_words)
    else:
        wait_s = min(300.0, math.pow(2.0, streak) - 1)
        waiting = _waiting(session, wait_s, now)
        reason = "crashed" if code == "worker_lost" else code
        _interrupt(session, job, reason, {"crash_streak": streak} | waiting)


def rescue(session: Session, job_id: str, attempt: int, *, now: float | None = None) -> bool:
    """Take a job from a supervisor whose lease has expired; return whether it was taken."""
    job = queue.take_expired(session, job_id, attempt, now=now)
    if job is None:
        return False
    if job.state == "cancelling":
        finish(session, job, "cancelled", {"state_reason": "cancel"})
    elif job.most_losses is None:
        _interrupt(session, job, "worker_lost", {})
    elif job.crash_streak + 1 >= job.most_losses:
        _fail_by_deaths(session, job, "worker_lost", "its worker was lost too")
    else:
        _interrupt(session, job, "worker_lost", {"crash_streak": job.crash_streak + 1})
    return True


# ---- transitions --------------------------------------------------------------------------------


def finish(session: Session, job: Job, to: str, values: dict[str, Any]) -> None:
    free = {"owner": None, "lease_expires": None, "finished_at": time_of_day(session)}
    move(session, job, to, **free, **values)
    events.append(session, job, "end", {"state": to})
    job.settle(session, to, values.get("error"))


def move_idle(
    session: Session, table: type[Job], mine: ColumnElement[bool], to: str, *, reason: str | None
) -> None:
    """Move the jobs that meet a condition and that no process runs, with few statements.

    `to` is `queued`, `paused` or `cancelled`.
    """
    idle = from_states(to) & {"queued", "paused"}
    is_end, now = int(to in TERMINAL), time_of_day(session)
    values: dict[str, Any] = {"state": to, "event_seq": table.event_seq + 1 + is_end}
    values |= {"finished_at": now} if is_end else {}
    values |= {"queued_at": now} if to == "queued" else {"state_reason": reason}
    moved = session.execute(
        update(table)
        .where(mine, table.state.in_(idle))
        .values(values)
        .returning(table.id, table.attempt, table.event_seq),
        execution_options={"synchronize_session": False},
    ).all()
    data = {"state": to} | ({"reason": reason} if reason else {})
    rows = []
    for job, attempt, seq in moved:
        common = {"job_id": job, "attempt": attempt}
        rows.append(common | {"seq": seq - is_end, "kind": "state", "data": data})
        if is_end:
            rows.append(common | {"seq": seq, "kind": "end", "data": {"state": to}})
    events.write_all(session, table, rows)
    database.tell(session, database.QUEUE)


def _fail_by_deaths(session: Session, job: Job, code: DeathCode, last_words: str) -> None:
    sentence = job.deaths[code].format(streak=job.crash_streak + 1, words=last_words)
    where = (
        "host" if code == "out_of_memory" else None
    )  # a process reports a GPU's lack of memory itself
    error = problem(code, sentence, where=where)
    finish(session, job, "failed", {"error": error, "state_reason": code})


def move(session: Session, job: Job, to: str, **values: object) -> None:
    """Write one transition, columns and the event; refresh `job`. The caller has locked the row."""
    table, came_from = type(job), job.state
    moved = session.execute(
        _transition(table.prefix, to, tuple(sorted(values))),
        {"moved": job.id, "number": job.attempt} | {f"new_{name}": values[name] for name in values},
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).scalar_one_or_none()
    if moved is None:
        raise Fenced(f"{job.id} cannot go from {came_from} to {to}")
    data: dict[str, Any] = {"state": to}
    if values.get("state_reason"):
        data["reason"] = values["state_reason"]
    if values.get("error"):
        data["error"] = values["error"]
    events.write(session, job, "state", data)
    if to == "queued":
        database.tell(session, database.QUEUE)


@cache
def _transition(prefix: str, to: str, columns: tuple[str, ...]) -> UpdateBase:
    """Return the statement of a transition that sets these columns too; making it takes long."""
    table = JOB_TABLES[prefix]
    new = {name: bindparam(f"new_{name}", type_=getattr(table, name).type) for name in columns}
    return (
        update(table)
        .where(table.id == bindparam("moved"), table.attempt == bindparam("number"))
        .where(table.state.in_(from_states(to)))
        .values(state=to, event_seq=table.event_seq + 1, **new)
        .returning(table)
    )


def _interrupt(session: Session, job: Job, reason: str, values: dict[str, Any]) -> None:
    """Put a job back into the queue; a job that was pausing becomes paused."""
    free = {"owner": None, "lease_expires": None, "state_reason": reason}
    if job.state == "pausing":
        move(session, job, "paused", **free, **values)
        return
    move(session, job, "interrupted", **free)
    move(session, job, "queued", **values)


def _waiting(session: Session, wait_s: float, now: float | None = None) -> dict[str, Any]:
    """Return the columns of a job that must not start for `wait_s` seconds."""
    return {
        "not_before": clock(session, now) + wait_s,
        "boot_id": boot_id(session),
        "waits_until": time_of_day(session) + timedelta(seconds=wait_s),
    }


# ---- deaths -------------------------------------------------------------------------------------
# The cause of an end without a last message. These functions read only the kernel's counters.


def problem(code: ErrorCode, detail: str, *, where: str | None = None) -> dict[str, Any]:
    """Return the problem object of a job that failed; `where` says which memory ran out."""
    place = {"where": where} if where else {}
    return {
        "type": f"urn:descent:error:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": 500 if code in {"worker_lost", "stalled", "internal_error"} else 422,
        "code": code,
        "detail": detail,
    } | place


def explain(
    status: int | None, words: str, *, stalled_s: float | None = None, memory_kills: int = 0
) -> Death:
    """Return the cause of a death: a stall, a lack of memory, or any other.

    `stalled_s` is the time without progress after which the supervisor killed the process, and
    `memory_kills` the number of processes that the kernel killed for lack of memory meanwhile.
    """
    how = f"exit status {status}"
    if status is not None and status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    if stalled_s is not None:
        how = f"no sign of progress for {stalled_s:g} s"
    sentence = f"{how}; it said: {words}" if words else how
    if stalled_s is not None:
        return Death(code="stalled", words=sentence)
    if status == -signal.SIGKILL and memory_kills > 0:
        return Death(code="out_of_memory", words=sentence)
    return Death(code="worker_lost", words=sentence)


def memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for lack of memory, in this control group.

    Children are in the group of their supervisor. Without control groups (version 2) the count is
    that of the whole machine.
    """
    lines = _lines(root / "proc/self/cgroup")
    group = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = root / "sys/fs/cgroup" / group.lstrip("/")
    for path in (folder / "memory.events", root / "proc/vmstat"):
        for line in _lines(path):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
