"""Removes the blobs that no row refers to; `references` says why that is safe."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import Engine

from models.failpoints import reach
from service.errors import ServiceError
from service.storage import references
from service.storage.blobs import BlobStore
from service.storage.database import reading, writing

BATCH = 100  # blobs of one query
SHARE = 20  # seconds of rest after each second of a query that found nothing
SWEEP_S = 3600.0  # seconds between two sweeps of the temporary files of killed writers
LEAVE_S = 2.0  # seconds that a stop waits for the removal in progress

log = structlog.get_logger("collect")


def collect(engine: Engine, blobs: BlobStore, *, now: float | None = None) -> list[str]:
    """Remove blobs that are not needed; return their digests."""
    with reading(engine) as session:
        found = references.needless(session, BATCH, now=now)
    return [sha256 for sha256 in found if remove(engine, blobs, sha256, now=now)]


def remove(engine: Engine, blobs: BlobStore, sha256: str, *, now: float | None = None) -> bool:
    """Remove one blob unless it is needed; return whether it was removed."""
    with writing(engine) as session:
        if not references.lock(session, sha256, skip_locked=True):
            return False
        # A separate statement: it sees every commit from before the lock.
        if references.is_needed(session, sha256, now=now):
            return False
        references.forget(session, sha256)
        reach("collect.forgotten")
        # While the lock is held. If the commit fails, a row without an object remains: the next
        # put of these bytes repairs it, or the next collection removes it.
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
