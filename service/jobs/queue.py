"""The queue: gives jobs to supervisors, with leases that end unless they are renewed.

A job is a row: a run, a batch prediction, a proof, a parse. The prefix of its id names its table.
`attempt` is the fencing token: each claim adds one, and every durable write starts with `hold`,
which refuses the writes of an earlier owner. Every function takes `now` (seconds, see
`database.clock`), so that tests of leases need not wait; outside tests it is `None`, which means
the clock of leases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Integer,
    String,
    UpdateBase,
    bindparam,
    exists,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from service.errors import Fenced
from service.jobs.kind import JOB_TABLES, Job, JobT
from service.storage.database import boot_id, clock, row_count, time_of_day

#: states in which a supervisor owns the job
OWNED = ("starting", "running", "pausing", "cancelling")
Tables = Sequence[type[Job]]
#: the time of leases and the boot that it belongs to, in statements that are made once
NOW, BOOT = bindparam("now", type_=Float), bindparam("boot", type_=String)
#: the entry of a session for its transaction and the jobs that it has locked
_HELD = "held"


@dataclass(frozen=True)
class ClaimRule:
    """A choice among the waiting jobs of a table.

    Only jobs that meet the conditions `only` may be claimed; `first` orders them before their age.
    At most `most` are claimed at once.
    """

    only: Sequence[ColumnElement[bool]] = ()
    first: Sequence[ColumnElement[Any]] = ()
    most: int = 1


OLDEST = ClaimRule()


def table_of(job_id: str) -> type[Job]:
    return JOB_TABLES[job_id.partition("_")[0]]


def waiting(session: Session, tables: Tables, *, now: float | None = None) -> list[type[Job]]:
    """Return the tables in which a job may start, by one query without a lock."""
    found = session.execute(_looks(tuple(tables)), _time(session, now)).one()
    return [table for table, is_there in zip(tables, found, strict=True) if is_there]


@cache
def _looks(tables: tuple[type[Any], ...]) -> Executable:
    return select(*(exists().where(table.state == "queued", _may_start(table)) for table in tables))


def claim(
    session: Session,
    table: type[JobT],
    owner: str,
    *,
    lease_s: float,
    choice: ClaimRule = OLDEST,
    now: float | None = None,
) -> JobT | None:
    """Give the oldest job that may start to `owner`, as a new attempt; None if there is none.

    `choice` may exclude jobs, and put jobs before the oldest.
    """
    jobs = claim_several(session, table, owner, lease_s=lease_s, choice=choice, now=now)
    return jobs[0] if jobs else None


def claim_several(
    session: Session,
    table: type[JobT],
    owner: str,
    *,
    lease_s: float,
    choice: ClaimRule = OLDEST,
    now: float | None = None,
) -> list[JobT]:
    """Give the oldest jobs that may start to `owner`, at most `choice.most`; see `claim`."""
    time = _time(session, now)
    # SKIP LOCKED lets several supervisors claim at once (PostgreSQL; SQLite has one writer).
    oldest = (
        select(table.id)
        .where(table.state == "queued", _may_start(table))
        .where(*choice.only)
        .order_by(*choice.first, table.queued_at, table.id)
        .limit(choice.most)
        .with_for_update(skip_locked=True)
    )
    if choice.most == 1:
        chosen = table.id == oldest.scalar_subquery()
    else:  # PostgreSQL might evaluate `IN (SELECT … LIMIT …)` more than once and give other rows
        found = session.scalars(oldest, time).all()
        if not found:
            return []
        chosen = table.id.in_(found)
    jobs = session.scalars(
        update(table)
        .where(chosen, table.state == "queued")
        .values(
            state="starting",
            state_reason=None,
            attempt=table.attempt + 1,
            owner=owner,
            lease_expires=NOW + lease_s,
            boot_id=BOOT,
            not_before=None,
            waits_until=None,
            claimed_at=time_of_day(session),
        )
        .returning(table),
        time,
        execution_options={"synchronize_session": False, "populate_existing": True},
    )
    return sorted(jobs, key=lambda job: (job.queued_at, job.id))


def beat(
    session: Session,
    owner: str,
    attempts: dict[str, int],
    *,
    lease_s: float,
    now: float | None = None,
) -> dict[str, str]:
    """Renew the leases of `owner`'s attempts; return the state of each job that it still owns.

    Another supervisor has taken a job that is missing from the answer: its process must be stopped.
    """
    held: dict[str, str] = {}
    for table, group in _by_table(attempts):
        mine = tuple_(table.id, table.attempt).in_(list(group.items()))
        rows = session.execute(
            update(table)
            .where(mine, table.owner == owner, table.state.in_(OWNED))
            .values(lease_expires=clock(session, now) + lease_s, boot_id=boot_id(session))
            .returning(table.id, table.state),
            execution_options={"synchronize_session": False},
        )
        held |= dict(rows.all())
    return held


def states(session: Session, attempts: dict[str, int]) -> dict[str, str]:
    """Return the states of the jobs that are still at the given attempt. Writes nothing."""
    found: dict[str, str] = {}
    for table, group in _by_table(attempts):
        rows = session.execute(
            select(table.id, table.attempt, table.state).where(
                table.id.in_(group), table.state.in_(OWNED)
            )
        )
        found |= {job: state for job, attempt, state in rows if group[job] == attempt}
    return found


def hold(session: Session, table: type[JobT], job_id: str, attempt: int) -> JobT:
    """Lock the job's row for this attempt and return it; raise Fenced if it is not the owner.

    The UPDATE takes the row's lock, so the check and the writes that follow are one step. A second
    call in the same transaction needs no statement, because the lock lasts until its end.
    """
    transaction, held = session.info.get(_HELD, (None, {}))
    if transaction is not session.get_transaction():
        held = {}
    job = held.get(job_id)
    if job is None or job.attempt != attempt or job.state not in OWNED:
        job = session.execute(
            _hold(table.prefix),
            {"held": job_id, "number": attempt},
            execution_options={"synchronize_session": False, "populate_existing": True},
        ).scalar_one_or_none()
    if job is None:
        raise Fenced(f"attempt {attempt} no longer owns {job_id}")
    session.info[_HELD] = session.get_transaction(), held | {job_id: job}
    found: JobT = job
    return found


@cache
def _hold(prefix: str) -> UpdateBase:
    table, number = JOB_TABLES[prefix], bindparam("number", type_=Integer)
    return (
        update(table)
        .where(table.id == bindparam("held"), table.attempt == number, table.state.in_(OWNED))
        .values(attempt=number)
        .returning(table)
    )


def expired(
    session: Session, tables: Tables, *, now: float | None = None
) -> Sequence[tuple[str, int]]:
    """Return id and attempt of each job whose owner has been silent for longer than its lease."""
    rows = session.execute(_expired(tuple(tables)), _time(session, now))
    return [(job, attempt) for job, attempt, _queued_at in rows]


@cache
def _expired(tables: tuple[type[Any], ...]) -> Executable:
    looks = [
        select(table.id, table.attempt, table.queued_at).where(
            table.state.in_(OWNED), _is_expired(table)
        )
        for table in tables
    ]
    return union_all(*looks).order_by("queued_at")


def take_expired(
    session: Session, job_id: str, attempt: int, *, now: float | None = None
) -> Job | None:
    """Lock the job if it still has this attempt and its lease has expired; else return None."""
    table = table_of(job_id)
    return session.execute(
        update(table)
        .where(table.id == job_id, table.attempt == attempt, table.state.in_(OWNED))
        .where(_is_expired(table))
        .values(owner=None, lease_expires=None)
        .returning(table),
        _time(session, now),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).scalar_one_or_none()


def expire_now(session: Session, tables: Tables, owner: str) -> int:
    """End the leases of an owner that is known to be dead; return their number."""
    return sum(
        row_count(
            session.execute(
                update(table)
                .where(table.owner == owner, table.state.in_(OWNED))
                .values(lease_expires=0.0),
                execution_options={"synchronize_session": False},
            )
        )
        for table in tables
    )


def _by_table(attempts: dict[str, int]) -> Iterator[tuple[type[Job], dict[str, int]]]:
    for prefix, table in JOB_TABLES.items():
        group = {job: n for job, n in attempts.items() if job.startswith(f"{prefix}_")}
        if group:
            yield table, group


def _time(session: Session, now: float | None) -> dict[str, Any]:
    """Return the values of `NOW` and `BOOT`."""
    return {"now": clock(session, now), "boot": boot_id(session)}


def _is_expired(table: type[Job]) -> ColumnElement[bool]:
    return or_(table.lease_expires < NOW, table.boot_id != BOOT)


def _may_start(table: type[Job]) -> ColumnElement[bool]:
    # The clock of this boot cannot compare a `not_before` of an earlier boot.
    return or_(table.not_before.is_(None), table.not_before <= NOW, table.boot_id != BOOT)
