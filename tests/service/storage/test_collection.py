"""Unreferenced bytes are freed, but never while a writer is about to refer to them."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from service.errors import NotFound, StorageUnavailable
from service.runs import lifecycle
from service.runs.tables import Checkpoint, Run
from service.storage import references
from service.storage.blobs import BlobStore, digest_of, read_blob
from service.storage.columns import SqlTable, new_id
from service.storage.database import reading, writing
from service.storage.references import (
    PIN_S,
    Blob,
    BlobPin,
    PinLost,
    collect,
    collecting,
    needless,
    remove,
)
from tests.engines import statements_of
from tests.service.rows import add_run
from tests.storage import Place

pytestmark = pytest.mark.both_databases

CONTENT = b"what somebody needs"
DOCUMENT: dict[str, Any] = {"signature": {"inputs": [], "outputs": []}}
BLOCKED_S = 0.3  # seconds in which something that is not blocked would have happened


@pytest.fixture
def store(place: Place) -> BlobStore:
    return place.open()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def run_id(engine: Engine) -> str:
    with writing(engine) as session:
        return add_run(session).id


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def checkpoint_of(run_id: str, held: references.HeldBlob) -> Checkpoint:
    return Checkpoint(
        id=new_id("ckpt"),
        run_id=run_id,
        attempt=1,
        epoch=1,
        step=1,
        metric_seq=0,
        metrics={},
        sha256=held.sha256,
        bytes=held.bytes,
        is_best=True,
    )


def add_checkpoint(engine: Engine, store: BlobStore, file: Path, run_id: str) -> Checkpoint:
    with references.stored(engine, store, file) as held:
        return refer(engine, run_id, held)


def refer(engine: Engine, run_id: str, held: references.HeldBlob) -> Checkpoint:
    with writing(engine) as session:
        checkpoint = checkpoint_of(run_id, held)
        session.add(checkpoint)
        references.keep(session, held)
    return checkpoint


def leave_needless(engine: Engine, store: BlobStore, file: Path) -> str:
    """Leave unreferenced bytes in the store."""
    with references.stored(engine, store, file) as held, writing(engine) as session:
        references.keep(session, held)
    return held.sha256


def drop(engine: Engine, checkpoint: Checkpoint) -> None:
    with writing(engine) as session:
        session.execute(delete(Checkpoint).where(Checkpoint.id == checkpoint.id))


class Gate:
    """A store that blocks in each delete until it is released."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.reached, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, sha256: str) -> None:
        self.reached.set()
        assert self.go.wait(30)
        self._store.delete(sha256)


# ---- referenced bytes -----------------------------------------------------------------------


def test_bytes_go_with_their_last_reference(
    engine: Engine, store: BlobStore, place: Place, file: Path, run_id: str
) -> None:
    first, second = (add_checkpoint(engine, store, file, run_id) for _ in range(2))
    assert collect(engine, store) == []
    drop(engine, first)
    assert collect(engine, store) == []
    drop(engine, second)
    assert collect(engine, store) == [first.sha256]
    assert place.names() == set()
    with reading(engine) as session:
        assert session.scalars(select(Blob)).all() == []
        assert session.scalars(select(BlobPin)).all() == []


def test_bytes_of_a_writer_that_is_not_done_stay(
    engine: Engine, store: BlobStore, place: Place, file: Path
) -> None:
    with references.stored(engine, store, file) as held:
        assert collect(engine, store) == []
        assert place.names() == {held.sha256}
        with writing(engine) as session:
            references.keep(session, held)


def test_bytes_of_a_writer_that_failed_go_at_once(
    engine: Engine, store: BlobStore, place: Place, file: Path
) -> None:
    with pytest.raises(RuntimeError), references.stored(engine, store, file):
        raise RuntimeError
    assert collect(engine, store) == [digest_of(file)[0]]
    assert place.names() == set()


def test_a_name_that_is_no_digest_gets_no_row(engine: Engine, store: BlobStore, file: Path) -> None:
    with (
        pytest.raises(ValueError, match="not a SHA-256"),
        references.stored(engine, store, file, "../x"),
    ):
        raise AssertionError
    with reading(engine) as session:
        assert session.scalars(select(Blob)).all() == []


def test_bytes_of_a_writer_that_was_killed_go_after_a_day(
    engine: Engine, store: BlobStore, file: Path
) -> None:
    sha256, size = digest_of(file)
    with writing(engine) as session:
        references.pin(session, sha256, size, now=100.0)
    store.put(file)
    assert collect(engine, store, now=100.0 + PIN_S - 1) == []
    assert collect(engine, store, now=100.0 + PIN_S + 1) == [sha256]


def test_a_pin_of_an_earlier_boot_holds_nothing(
    engine: Engine, store: BlobStore, file: Path
) -> None:
    with references.stored(engine, store, file) as held:
        with writing(engine) as session:
            session.get_one(BlobPin, held.pin).boot_id = "another"
        assert collect(engine, store) == [held.sha256]


def test_every_column_that_names_a_blob_keeps_it(engine: Engine) -> None:
    columns = {
        str(column)
        for table in SqlTable.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("sha256")
    }
    others = {"keys.sha256", "blobs.sha256", "blob_pins.sha256"}
    with statements_of(engine) as asked, reading(engine) as session:
        needless(session, 1)
    missing = {name for name in columns - others if f"{name} = blobs.sha256" not in asked[-1][0]}
    assert missing == set()


# ---- the races ------------------------------------------------------------------------------


def test_a_writer_that_comes_first_stops_the_collector(
    engine: Engine, store: BlobStore, file: Path, run_id: str
) -> None:
    sha256 = leave_needless(engine, store, file)
    with reading(engine) as session:
        assert needless(session, 10) == [sha256]  # the collector has chosen them
    add_checkpoint(engine, store, file, run_id)
    assert not remove(engine, store, sha256)
    assert read_blob(store, sha256) == CONTENT


def test_a_writer_that_meets_the_collector_waits_and_puts_the_bytes_again(
    engine: Engine, store: BlobStore, file: Path, run_id: str, pool: ThreadPoolExecutor
) -> None:
    sha256 = leave_needless(engine, store, file)
    gate = Gate(store)
    removed: Future[bool] = pool.submit(remove, engine, gate, sha256)
    assert gate.reached.wait(30)
    written = pool.submit(add_checkpoint, engine, store, file, run_id)
    with pytest.raises(TimeoutError):
        written.result(BLOCKED_S)
    gate.go.set()
    assert removed.result(30)
    assert written.result(30).sha256 == sha256
    assert read_blob(store, sha256) == CONTENT
    assert collect(engine, store) == []


def test_a_writer_whose_pin_is_not_committed_yet_stops_the_collector(
    engine: Engine, store: BlobStore, file: Path, pool: ThreadPoolExecutor
) -> None:
    sha256 = leave_needless(engine, store, file)
    with writing(engine) as session:
        references.pin(session, sha256, len(CONTENT))
        removed = pool.submit(remove, engine, store, sha256)
        wait([removed], BLOCKED_S)  # SQLite: it waits; PostgreSQL: it leaves the row alone
    assert not removed.result(30)
    assert read_blob(store, sha256) == CONTENT


def test_a_reference_that_is_not_committed_yet_stops_the_collector(
    engine: Engine, store: BlobStore, file: Path, run_id: str, pool: ThreadPoolExecutor
) -> None:
    with references.stored(engine, store, file) as held:
        with writing(engine) as session:
            session.add(checkpoint_of(run_id, held))
            references.keep(session, held)
            removed = pool.submit(remove, engine, store, held.sha256)
            wait([removed], BLOCKED_S)  # SQLite: it waits; PostgreSQL: it leaves the row alone
        assert not removed.result(30)
    assert read_blob(store, held.sha256) == CONTENT


def test_who_took_longer_than_a_pin_lasts_refers_to_nothing(
    engine: Engine, store: BlobStore, file: Path, run_id: str
) -> None:
    sha256, size = digest_of(file)
    with writing(engine) as session:
        held = references.pin(session, sha256, size)
    assert collect(engine, store, now=1e12) == [sha256]
    with pytest.raises(PinLost):
        refer(engine, run_id, held)
    with reading(engine) as session:
        assert session.scalars(select(Checkpoint)).all() == []


def test_a_pin_of_somebody_else_is_no_pin_of_mine(
    engine: Engine, store: BlobStore, file: Path, run_id: str
) -> None:
    with writing(engine) as session:
        late = references.pin(session, *digest_of(file))
    collect(engine, store, now=1e12)
    with writing(engine) as session:
        references.pin(session, *digest_of(file))
    with pytest.raises(PinLost):
        refer(engine, run_id, late)


def test_a_model_is_not_made_from_a_checkpoint_that_has_just_gone(
    engine: Engine, store: BlobStore, file: Path, run_id: str
) -> None:
    checkpoint = add_checkpoint(engine, store, file, run_id)
    drop(engine, checkpoint)
    with writing(engine) as session:
        run = session.get_one(Run, run_id)
    with writing(engine) as session, pytest.raises(NotFound):
        lifecycle.register(session, run, checkpoint, "m", DOCUMENT)


def test_a_model_outlives_its_checkpoint_whoever_comes_first(
    engine: Engine, store: BlobStore, file: Path, run_id: str, pool: ThreadPoolExecutor
) -> None:
    checkpoint = add_checkpoint(engine, store, file, run_id)

    def drop_and_collect() -> list[str]:
        drop(engine, checkpoint)
        return collect(engine, store)

    with writing(engine) as session:
        run = session.get_one(Run, run_id)
        lifecycle.register(session, run, checkpoint, "m", DOCUMENT)
        collected = pool.submit(drop_and_collect)
        wait([collected], BLOCKED_S)
    assert collected.result(30) == []
    assert read_blob(store, checkpoint.sha256) == CONTENT


# ---- failures -------------------------------------------------------------------------------


class Away:
    """A store that does not answer."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, _sha256: str) -> None:
        raise StorageUnavailable


def test_what_cannot_be_removed_now_is_removed_later(
    engine: Engine, store: BlobStore, place: Place, file: Path
) -> None:
    sha256 = leave_needless(engine, store, file)
    with pytest.raises(StorageUnavailable):
        collect(engine, Away(store))
    assert place.names() == {sha256}
    assert collect(engine, store) == [sha256]


def test_a_row_whose_object_is_gone_is_mended_by_a_put_and_removed_by_a_look(
    engine: Engine, store: BlobStore, place: Place, file: Path, run_id: str
) -> None:
    sha256 = leave_needless(engine, store, file)
    store.delete(sha256)  # the collector was killed before its commit
    checkpoint = add_checkpoint(engine, store, file, run_id)
    assert read_blob(store, sha256) == CONTENT
    drop(engine, checkpoint)
    store.delete(sha256)
    assert collect(engine, store) == [sha256]
    assert collect(engine, store) == []


def test_the_collector_works_beside_everything_else(
    engine: Engine, store: BlobStore, file: Path
) -> None:
    leave_needless(engine, store, file)
    gate = Gate(store)
    gate.go.set()
    with collecting(engine, gate, every_s=0.01):
        assert gate.reached.wait(30)
