"""The queue: which supervisor may work on which run, and until when.

A run's row is its job. `attempt` is the fencing token: it grows by one with each claim, and every
durable write starts with `fence`, so whatever an earlier owner still sends is refused.
Every function takes `now` (seconds, see `database.clock`) so that leases are tested without
waiting; `None`, the only value outside tests, means the database's own clock.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from service.database import boot_id, clock, row_count
from service.errors import Fenced
from service.tables import Run, utc_now

#: states in which a supervisor owns the run
OWNED = ("starting", "running", "pausing", "cancelling")


def has_waiting(session: Session, *, now: float | None = None) -> bool:
    """Return whether a run may start; a look that takes no lock."""
    may_start = _may_start(clock(session, now), boot_id(session))
    query = select(Run.id).where(Run.state == "queued", may_start).limit(1)
    return session.execute(query).first() is not None


def claim(session: Session, owner: str, *, lease_s: float, now: float | None = None) -> Run | None:
    """Give the oldest run that may start to `owner`, as a new attempt; None if there is none."""
    time, boot = clock(session, now), boot_id(session)
    # SKIP LOCKED lets several supervisors claim at once (PostgreSQL; SQLite has one writer).
    oldest = (
        select(Run.id)
        .where(Run.state == "queued", _may_start(time, boot))
        .order_by(Run.queued_at, Run.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.execute(
        update(Run)
        .where(Run.id == oldest.scalar_subquery(), Run.state == "queued")
        .values(
            state="starting",
            state_reason=None,
            attempt=Run.attempt + 1,
            owner=owner,
            lease_expires=time + lease_s,
            boot_id=boot,
            not_before=None,
            waits_until=None,
            claimed_at=utc_now(),
        )
        .returning(Run),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).scalar_one_or_none()


def beat(
    session: Session,
    owner: str,
    attempts: dict[str, int],
    *,
    lease_s: float,
    now: float | None = None,
) -> dict[str, str]:
    """Renew the leases of `owner`'s attempts; return the state of each run that is still its own.

    A run that is missing from the answer was taken over: its trainer must be stopped.
    """
    if not attempts:
        return {}
    mine = or_(*(and_(Run.id == run, Run.attempt == n) for run, n in attempts.items()))
    rows = session.execute(
        update(Run)
        .where(mine, Run.owner == owner, Run.state.in_(OWNED))
        .values(lease_expires=clock(session, now) + lease_s, boot_id=boot_id(session))
        .returning(Run.id, Run.state),
        execution_options={"synchronize_session": False},
    )
    return dict(rows.all())


def states(session: Session, attempts: dict[str, int]) -> dict[str, str]:
    """Return the states of the runs that are still at the given attempt, without a write."""
    if not attempts:
        return {}
    rows = session.execute(
        select(Run.id, Run.attempt, Run.state).where(Run.id.in_(attempts), Run.state.in_(OWNED))
    )
    return {run: state for run, attempt, state in rows if attempts[run] == attempt}


def fence(session: Session, run_id: str, attempt: int) -> Run:
    """Lock the run's row for this attempt and return it; raise Fenced where it is not the owner.

    The UPDATE takes the row's lock, so the check and the writes that follow are one step.
    """
    run = session.execute(
        update(Run)
        .where(Run.id == run_id, Run.attempt == attempt, Run.state.in_(OWNED))
        .values(attempt=attempt)
        .returning(Run),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).scalar_one_or_none()
    if run is None:
        raise Fenced(f"attempt {attempt} no longer owns {run_id}")
    return run


def expired(session: Session, *, now: float | None = None) -> Sequence[tuple[str, int]]:
    """Return id and attempt of each run whose owner has been silent for longer than its lease."""
    rows = session.execute(
        select(Run.id, Run.attempt)
        .where(Run.state.in_(OWNED), _is_expired(session, now))
        .order_by(Run.queued_at)
    )
    return [(run, attempt) for run, attempt in rows]


def take_expired(
    session: Session, run_id: str, attempt: int, *, now: float | None = None
) -> Run | None:
    """Lock the run if it is still at this attempt and still expired; else return None."""
    return session.execute(
        update(Run)
        .where(Run.id == run_id, Run.attempt == attempt, Run.state.in_(OWNED))
        .where(_is_expired(session, now))
        .values(owner=None, lease_expires=None)
        .returning(Run),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).scalar_one_or_none()


def expire_now(session: Session, owner: str) -> int:
    """Void the leases of an owner that is known to be dead; return how many there were."""
    result = session.execute(
        update(Run).where(Run.owner == owner, Run.state.in_(OWNED)).values(lease_expires=0.0),
        execution_options={"synchronize_session": False},
    )
    return row_count(result)


def _is_expired(session: Session, now: float | None) -> ColumnElement[bool]:
    return or_(Run.lease_expires < clock(session, now), Run.boot_id != boot_id(session))


def _may_start(time: float, boot: str) -> ColumnElement[bool]:
    # A `not_before` of an earlier boot means nothing to this one's clock.
    return or_(Run.not_before.is_(None), Run.not_before <= time, Run.boot_id != boot)
