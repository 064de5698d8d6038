"""Which blobs are needed: by rows that refer to them, or by a pin until such a row is there.

Every object in the store has a row in `blobs`, whose lock decides between those who need the
object and who removes it:

1. A writer commits the row and a pin of its own, and only then puts the bytes, always.
2. The transaction that refers to the bytes locks the row, finds the pin and takes it away.
3. `collect` locks the row, looks whether anybody needs it, and removes object and row.

So whoever comes second sees what the first one did: a pin stops the collector, and a writer that
waits for the collector makes a new row and puts the bytes again.
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

PIN_S = 24 * 3600.0  # seconds that the bytes of a killed writer stay; far more than any put takes


class PinLost(Busy):
    """Storing the bytes took longer than they are held: send them again."""


@dataclass(frozen=True)
class Stored:
    """Bytes in the store that are held until a transaction keeps them."""

    sha256: str
    bytes: int
    pin: str


@contextmanager
def stored(
    engine: Engine, blobs: BlobStore, path: Path, sha256: str | None = None
) -> Iterator[Stored]:
    """Put a file into the store and hold it for the block, which must `keep` it.

    Where the block fails the bytes are let go, and the collector finds them.
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
    """Hold a blob that is about to be put. Waits where it is just being removed."""
    insert = postgresql.insert if is_postgres(session) else sqlite.insert
    session.execute(
        insert(Blob)
        .values(sha256=sha256, bytes=size)
        # Not DO NOTHING: the row must be locked, or the collector could pass this pin by.
        .on_conflict_do_update(index_elements=[Blob.sha256], set_={"bytes": size})
    )
    expires = clock(session, now) + PIN_S
    held = BlobPin(id=new_id("pin"), sha256=sha256, expires=expires, boot_id=boot_id(session))
    session.add(held)
    session.flush()
    return Stored(sha256, size, held.id)


def keep(session: Session, held: Stored) -> None:
    """Say that this transaction refers to the bytes from now on."""
    is_there = lock(session, held.sha256)
    found = session.execute(delete(BlobPin).where(BlobPin.id == held.pin))
    if not is_there or row_count(found) != 1:
        raise PinLost


def lock(session: Session, sha256: str, *, skip_locked: bool = False) -> bool:
    """Lock the row of a blob; return whether there was one to lock.

    A second reference is made from a first one as follows: lock, then read the first one afresh.
    """
    row = select(Blob.sha256).where(Blob.sha256 == sha256)
    # SQLite has one writer, so its whole transaction is the lock.
    return session.scalar(row.with_for_update(skip_locked=skip_locked)) is not None


def needless(session: Session, limit: int, *, now: float | None = None) -> list[str]:
    """Return blobs that nobody needs, as far as a look without a lock can tell."""
    query = select(Blob.sha256).where(~_is_needed(session, Blob.sha256, now)).limit(limit)
    return list(session.scalars(query))


def is_needed(session: Session, sha256: str, *, now: float | None = None) -> bool:
    """Return whether somebody needs a blob, for certain where its row is locked."""
    row = select(Blob.sha256).where(Blob.sha256 == sha256)
    return session.scalar(row.where(_is_needed(session, Blob.sha256, now))) is not None


def forget(session: Session, sha256: str) -> None:
    """Remove the row of a blob and the pins of writers that never came back."""
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
    """Return the columns, of all tables that are loaded, that refer to blobs."""
    return [
        column
        for table in Table.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, BlobDigest)
    ]
