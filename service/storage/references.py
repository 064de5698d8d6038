"""Which blobs are needed: a row refers to them, or a pin holds them until such a row exists.

Every object in the store has a row in `blobs`. The lock of that row orders writers and the
collector:

1. A writer commits the row and its own pin before it puts the bytes, always.
2. The transaction that adds a reference locks the row and deletes the pin.
3. `collect` locks the row, checks that no pin and no reference exists, and removes object and row.

So the second one sees the work of the first: a pin stops the collector, and a writer that waits for
the collector makes a new row and puts the bytes again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, ColumnElement, Engine, and_, delete, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.failpoints import reach
from service.errors import Busy, ServiceError
from service.ids import new_id
from service.storage.blobs import BlobStore, check_digest, digest_of
from service.storage.columns import BlobDigest, Table
from service.storage.database import boot_id, clock, is_postgres, row_count, writing
from service.storage.tables import Blob, BlobPin

PIN_S = 24 * 3600.0  # seconds that the pin of a killed writer lasts; far more than any put takes


class PinLost(Busy):
    """Storing the bytes took longer than the service holds them: send them again."""


@dataclass(frozen=True)
class Stored:
    """Bytes in the store with a pin, until a transaction keeps them."""

    sha256: str
    bytes: int
    pin: str


@contextmanager
def stored(
    engine: Engine, blobs: BlobStore, path: Path, sha256: str | None = None
) -> Iterator[Stored]:
    """Put a file into the store and pin it during the block, which must `keep` it.

    If the block fails, the pin is deleted and the collector removes the bytes.
    """
    digest, size = (sha256, path.stat().st_size) if sha256 else digest_of(path)
    check_digest(digest)
    with writing(engine) as session:
        held = pin(session, digest, size)
    reach("blob.pinned")
    try:
        blobs.put(path, digest)
        reach("blob.stored")
        yield held
    except BaseException:
        with suppress(ServiceError), writing(engine) as session:
            session.execute(delete(BlobPin).where(BlobPin.id == held.pin))
        raise


def pin(session: Session, sha256: str, size: int, *, now: float | None = None) -> Stored:
    """Pin a blob before its bytes are put. Waits while the collector removes it."""
    insert = postgresql.insert if is_postgres(session) else sqlite.insert
    session.execute(
        insert(Blob)
        .values(sha256=sha256, bytes=size)
        # Not DO NOTHING, which takes no lock: the collector could miss this pin.
        .on_conflict_do_update(index_elements=[Blob.sha256], set_={"bytes": size})
    )
    expires = clock(session, now) + PIN_S
    held = BlobPin(id=new_id("pin"), sha256=sha256, expires=expires, boot_id=boot_id(session))
    session.add(held)
    session.flush()
    return Stored(sha256, size, held.id)


def keep(session: Session, held: Stored) -> None:
    """Replace the pin by the reference that this transaction adds."""
    is_there = lock(session, held.sha256)
    found = session.execute(delete(BlobPin).where(BlobPin.id == held.pin))
    if not is_there or row_count(found) != 1:
        raise PinLost


def lock(session: Session, sha256: str, *, skip_locked: bool = False) -> bool:
    """Lock the row of a blob; return whether it exists.

    To copy a reference, lock the row and then read the first reference again.
    """
    row = select(Blob.sha256).where(Blob.sha256 == sha256)
    # SQLite has one writer, so its whole transaction is the lock.
    return session.scalar(row.with_for_update(skip_locked=skip_locked)) is not None


def needless(session: Session, limit: int, *, now: float | None = None) -> list[str]:
    """Return blobs that seem not to be needed. Takes no lock, so `is_needed` must confirm it."""
    query = select(Blob.sha256).where(~_is_needed(session, Blob.sha256, now)).limit(limit)
    return list(session.scalars(query))


def is_needed(session: Session, sha256: str, *, now: float | None = None) -> bool:
    """Return whether a blob is needed. The answer is certain if the row is locked."""
    row = select(Blob.sha256).where(Blob.sha256 == sha256)
    return session.scalar(row.where(_is_needed(session, Blob.sha256, now))) is not None


def forget(session: Session, sha256: str) -> None:
    """Remove the row of a blob and the expired pins of killed writers."""
    session.execute(delete(BlobPin).where(BlobPin.sha256 == sha256))
    session.execute(delete(Blob).where(Blob.sha256 == sha256))


def _is_needed(
    session: Session, sha256: InstrumentedAttribute[str], now: float | None
) -> ColumnElement[bool]:
    pinned = and_(BlobPin.boot_id == boot_id(session), BlobPin.expires > clock(session, now))
    return or_(
        exists().where(BlobPin.sha256 == sha256, pinned),
        *(exists().where(column == sha256) for column in referring_columns()),
    )


def referring_columns() -> list[Column[str]]:
    """Return the columns of all loaded tables that refer to blobs."""
    return [
        column
        for table in Table.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, BlobDigest)
    ]
