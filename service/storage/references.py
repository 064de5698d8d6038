"""The references to blobs, and the collector that removes the blobs without one.

A blob is needed while a row refers to it, or while a pin holds it until such a row exists.

Every object in the store has a row in `blobs`. The lock of that row orders writers and the
collector:

1. A writer commits the row and its own pin before it puts the bytes, always.
2. The transaction that adds a reference locks the row and deletes the pin.
3. `collect` locks the row, checks that no pin and no reference exists, and removes object and row.

The second to lock the row sees the work of the first: a pin stops the collector, and a writer that
waits for the collector makes a new row and puts the bytes again.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Column, ColumnElement, Engine, String, and_, delete, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column

from models.failpoints import reach
from service.errors import Busy, ServiceError
from service.storage.blobs import BlobStore, check_digest, digest_of
from service.storage.columns import BlobDigest, Id, SqlTable, new_id, utc_now
from service.storage.database import boot_id, clock, is_postgres, reading, row_count, writing

PIN_S = 24 * 3600.0  # seconds that the pin of a killed writer lasts; far more than any put takes
BATCH = 100  # blobs of one query of the collector
SHARE = 20  # seconds of rest after each second of a query that found nothing
SWEEP_S = 3600.0  # seconds between two sweeps of the temporary files of killed writers
LEAVE_S = 2.0  # seconds that a stop waits for the removal in progress

log = structlog.get_logger("collect")


class Blob(SqlTable):
    """An object in the blob store, or one that a writer is about to put."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class BlobPin(SqlTable):
    """A writer's hold on a blob until a row refers to it."""

    __tablename__ = "blob_pins"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    #: when the pin ends, by `database.clock`
    expires: Mapped[float]
    boot_id: Mapped[str] = mapped_column(String(40))


class PinLost(Busy):
    """The bytes were stored too slowly, so the service has released them: send them again."""


@dataclass(frozen=True)
class HeldBlob:
    """Bytes in the store with a pin, until a transaction keeps them."""

    sha256: str
    bytes: int
    pin: str


@contextmanager
def stored(
    engine: Engine, blobs: BlobStore, path: Path, sha256: str | None = None
) -> Iterator[HeldBlob]:
    """Put a copy of a file into the store and pin it during the block, which must `keep` it.

    If the block fails, the pin is deleted and the collector removes the bytes.
    """
    digest, size = (sha256, path.stat().st_size) if sha256 else digest_of(path)
    with _pinned(engine, digest, size) as held:
        blobs.put(path, digest)
        reach("blob.stored")
        yield held


@contextmanager
def taken(engine: Engine, blobs: BlobStore, path: Path, sha256: str) -> Iterator[HeldBlob]:
    """Do as `stored` with a file that this process has written and hashed; it may be gone then."""
    with _pinned(engine, sha256, path.stat().st_size) as held:
        blobs.take(path, sha256)
        reach("blob.stored")
        yield held


@contextmanager
def _pinned(engine: Engine, sha256: str, size: int) -> Iterator[HeldBlob]:
    check_digest(sha256)
    with writing(engine) as session:
        held = pin(session, sha256, size)
    reach("blob.pinned")
    try:
        yield held
    except BaseException:
        unpin(engine, held)
        raise


def unpin(engine: Engine, held: HeldBlob) -> None:
    """Delete a pin that no transaction will keep, if the database answers; else it expires."""
    with suppress(ServiceError), writing(engine) as session:
        session.execute(delete(BlobPin).where(BlobPin.id == held.pin))


def pin(session: Session, sha256: str, size: int, *, now: float | None = None) -> HeldBlob:
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
    return HeldBlob(sha256, size, held.id)


def keep(session: Session, held: HeldBlob) -> None:
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
        for table in SqlTable.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, BlobDigest)
    ]


# ---- collection ---------------------------------------------------------------------------------


def collect(engine: Engine, blobs: BlobStore, *, now: float | None = None) -> list[str]:
    """Remove blobs that are not needed; return their digests."""
    with reading(engine) as session:
        found = needless(session, BATCH, now=now)
    return [sha256 for sha256 in found if remove(engine, blobs, sha256, now=now)]


def remove(engine: Engine, blobs: BlobStore, sha256: str, *, now: float | None = None) -> bool:
    """Remove one blob unless it is needed; return whether it was removed."""
    with writing(engine) as session:
        if not lock(session, sha256, skip_locked=True):
            return False
        # A separate statement: it sees every commit from before the lock.
        if is_needed(session, sha256, now=now):
            return False
        forget(session, sha256)
        reach("collect.forgotten")
        # The lock is still held. If the commit fails, a row without an object remains: the next put
        # of these bytes repairs it, or the next collection removes it.
        blobs.delete(sha256)
        reach("collect.deleted")
    return True


@contextmanager
def collecting(engine: Engine, blobs: BlobStore, every_s: float) -> Iterator[None]:
    """Collect in a thread during the block, because storage may be slow."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_work, args=(engine, blobs, every_s, stop), name="collector", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LEAVE_S)


def _work(engine: Engine, blobs: BlobStore, every_s: float, stop: threading.Event) -> None:
    swept, took = -SWEEP_S, 0.0
    while not stop.wait(max(every_s, SHARE * took)):
        began = time.monotonic()
        try:
            if began - swept >= SWEEP_S:
                swept = began
                blobs.sweep()
            removed = collect(engine, blobs)
        except (ServiceError, OSError) as error:
            log.warning("cannot collect", error=str(error))
            removed = []
        if removed:
            log.info("bytes freed", blobs=len(removed))
        # After a removal the next query follows soon: there may be more to remove.
        took = 0.0 if removed else time.monotonic() - began
