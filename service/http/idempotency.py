"""Idempotency keys: the first request does the work, and its repetitions get the stored response.

The row of the key is committed first, *in flight* with a lease. The transaction of the work also
writes the response, and only if the request still holds the lease, so that work and response exist
both or neither. Leases and expiry follow the database's clock.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, String, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.errors import Conflict, Invalid
from service.storage.columns import Id, Json, Table
from service.storage.database import row_count, time_of_day, writing

LEASE = timedelta(seconds=60)  # enough for every request but an upload
KEPT = timedelta(hours=24)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: headers that are part of a stored response
STORED_HEADERS = ("location", "etag", "content-type", "link")


class IdempotencyKey(Table):
    """A request with an idempotency key: its fingerprint and, after it has ended, its response."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    #: NULL while the first request is in flight
    status: Mapped[int | None]
    headers: Mapped[Json | None]
    body: Mapped[str | None]
    #: when the first request loses the key, and when the response is deleted
    lease_until: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


@dataclass(frozen=True)
class Stored:
    """The stored response of the first request."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Claim:
    """The right to carry out the request of a key until the lease ends."""

    engine: Engine
    caller: str
    key: str
    lease_until: datetime

    def store(self, session: Session | None, stored: Stored) -> None:
        """Store the response, in the transaction of the work if there is one.

        Work that continues after its transaction stores its present state, and its end later.
        """
        if session is None:
            with writing(self.engine) as own:
                self._store(own, stored)
        else:
            self._store(session, stored)

    def release(self) -> None:
        """Free the key: the request failed, so it may be tried again."""
        with writing(self.engine) as session:
            session.execute(delete(IdempotencyKey).where(*self._mine()))

    def _store(self, session: Session, stored: Stored) -> None:
        values = {"status": stored.status, "headers": stored.headers, "body": stored.body}
        result = session.execute(update(IdempotencyKey).where(*self._mine()).values(**values))
        if row_count(result) != 1:
            raise Conflict(
                "The request took so long that its idempotency key was given to another one.",
                code="idempotency_lease_lost",
            )

    def _mine(self) -> tuple[Any, ...]:
        return (
            IdempotencyKey.caller == self.caller,
            IdempotencyKey.key == self.key,
            IdempotencyKey.lease_until == self.lease_until,
        )


def checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise Invalid(
            "Idempotency-Key must have 1 to 255 visible ASCII characters,"
            f" got {len(key)} characters: {key[:40]!r}.",
            code="invalid_idempotency_key",
        )
    return key


def canonical(body: object) -> bytes:
    """Return the canonical form of a body: equal documents give equal bytes."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def begin(
    engine: Engine,
    caller: str,
    key: str,
    fingerprint: str,
    *,
    lease: timedelta = LEASE,
    now: datetime | None = None,
) -> Claim | Stored:
    """Return the stored response, or the right to carry the request out.

    Raises Invalid for another request under the same key and Conflict while it is in flight.
    """
    try:
        with writing(engine) as session:
            time = now or time_of_day(session)
            return _begin(session, Claim(engine, caller, key, time + lease), fingerprint, time)
    except IntegrityError:
        # Another request committed this key between our SELECT and our INSERT.
        raise _in_flight(lease) from None


def _begin(session: Session, claim: Claim, fingerprint: str, time: datetime) -> Claim | Stored:
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= time))
    row = session.scalars(
        select(IdempotencyKey)
        .where(IdempotencyKey.caller == claim.caller, IdempotencyKey.key == claim.key)
        .with_for_update()
    ).one_or_none()
    if row is None:
        session.add(
            IdempotencyKey(
                caller=claim.caller,
                key=claim.key,
                fingerprint=fingerprint,
                lease_until=claim.lease_until,
                expires_at=time + KEPT,
            )
        )
        return claim
    if row.status is None and row.lease_until <= time:
        row.fingerprint, row.lease_until = fingerprint, claim.lease_until
        row.expires_at = time + KEPT
        return claim
    if row.fingerprint != fingerprint:
        raise Invalid(
            f"The Idempotency-Key {claim.key!r} was used for another request: use a new one.",
            code="idempotency_key_reused",
        )
    if row.status is None:
        raise _in_flight(row.lease_until - time)
    return Stored(row.status, dict(row.headers or {}), row.body or "")


def _in_flight(left: timedelta) -> Conflict:
    return Conflict(
        "The first request with this Idempotency-Key is still in flight: wait, then send it again.",
        code="in_flight",
        headers={"Retry-After": "1"},
        lease_left_s=round(left.total_seconds(), 3),
    )
