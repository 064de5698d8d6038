"""What becomes of a file when the process that parses it is gone."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from service.datasets.ingest import MAX_ATTEMPTS, Ingester
from service.datasets.tables import Dataset, DatasetVersion
from service.datasets.upload import remove_leftovers
from service.datasets.versions import ready_version as ready
from service.errors import Conflict, Invalid, NotFound, StorageUnavailable
from service.ids import new_id
from service.settings import Settings
from service.storage.blobs import BlobStore, LocalBlobs
from service.storage.database import clock, reading, writing
from service.storage.scratch import Scratch


@pytest.fixture
def ingester(settings: Settings, engine: Engine, blobs: LocalBlobs) -> Iterator[Ingester]:
    ingester = Ingester(settings, engine, blobs, Scratch(settings.scratch_dir))
    yield ingester
    ingester.close()


@pytest.fixture
def left_behind(engine: Engine, blobs: LocalBlobs, tmp_path: Path) -> str:
    """Return a dataset whose lease ran out."""
    return leave(engine, blobs, tmp_path, b"x,y\n1,2\n3,4\n")


def leave(engine: Engine, blobs: LocalBlobs, folder: Path, data: bytes, attempt: int = 1) -> str:
    path = folder / "bytes"
    path.write_bytes(data)
    digest, size = blobs.put(path)
    dataset_id = new_id("ds")
    with writing(engine) as session:
        session.add(
            Dataset(
                id=dataset_id,
                name="left",
                state="ingesting",
                media_type="text/csv",
                sha256=digest,
                bytes=size,
                attempt=attempt,
                lease_expires=clock(session) - 1,
                boot_id=None,
            )
        )
    return dataset_id


class Away:
    """A store that does not answer until it is back."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.reached, self.is_back = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        self.reached.set()
        if not self.is_back.is_set():
            raise StorageUnavailable
        return self._store.put(path, sha256)


def state_of(engine: Engine, dataset_id: str) -> Dataset:
    with reading(engine) as session:
        return session.get_one(Dataset, dataset_id)


def test_an_abandoned_file_is_taken_over(
    ingester: Ingester, engine: Engine, left_behind: str
) -> None:
    (ticket,) = ingester.resume_abandoned()
    assert ticket.done.result(60) is None
    dataset = state_of(engine, left_behind)
    assert (dataset.state, dataset.attempt, dataset.version) == ("ready", 2, 1)
    assert dataset.lease_expires is None


def test_a_file_that_is_being_parsed_is_left_alone(
    ingester: Ingester, engine: Engine, left_behind: str
) -> None:
    with writing(engine) as session:
        early = clock(session) - 100
    assert [t.dataset_id for t in ingester.resume_abandoned()] == [left_behind]
    assert ingester.resume_abandoned(now=early) == []


def test_an_attempt_that_lost_its_lease_writes_nothing(
    ingester: Ingester, engine: Engine, left_behind: str
) -> None:
    dataset = state_of(engine, left_behind)
    with writing(engine) as session:
        session.get_one(Dataset, left_behind).attempt = 7
    dataset.attempt = 6
    ticket = ingester.begin(dataset, is_waited_for=False)
    assert ticket.done.exception(60) is not None
    assert state_of(engine, left_behind).state == "ingesting"
    with reading(engine) as session:
        assert session.get(DatasetVersion, (left_behind, 1)) is None


def test_a_file_that_never_comes_to_an_end_is_refused(
    ingester: Ingester, engine: Engine, blobs: LocalBlobs, tmp_path: Path
) -> None:
    dataset_id = leave(engine, blobs, tmp_path, b"x\n1\n", attempt=MAX_ATTEMPTS)
    (ticket,) = ingester.resume_abandoned()
    refused = ticket.done.result(60)
    assert refused is not None
    assert refused.code == "dataset_unparseable"
    assert state_of(engine, dataset_id).state == "rejected"


def test_an_outage_of_the_storage_is_waited_for_and_costs_no_attempt(
    settings: Settings, engine: Engine, blobs: LocalBlobs, left_behind: str
) -> None:
    away = Away(blobs)
    ingester = Ingester(settings, engine, away, Scratch(settings.scratch_dir))
    (ticket,) = ingester.resume_abandoned()
    assert away.reached.wait(30)
    away.is_back.set()
    assert ticket.done.result(60) is None
    dataset = state_of(engine, left_behind)
    assert (dataset.state, dataset.attempt) == ("ready", 2)
    ingester.close()


def test_a_dataset_whose_bytes_are_lost_is_refused(
    ingester: Ingester, engine: Engine, left_behind: str
) -> None:
    with writing(engine) as session:
        session.get_one(Dataset, left_behind).sha256 = "0" * 64
    (ticket,) = ingester.resume_abandoned()
    ticket.done.result(60)
    dataset = state_of(engine, left_behind)
    assert (dataset.state, (dataset.error or {})["code"]) == ("rejected", "bytes_lost")


def test_only_a_ready_version_is_given_out(
    ingester: Ingester, engine: Engine, left_behind: str
) -> None:
    with writing(engine) as session, pytest.raises(Conflict, match="ingesting"):
        ready(session, left_behind, None)
    (ticket,) = ingester.resume_abandoned()
    ticket.done.result(60)
    with writing(engine) as session:
        assert ready(session, left_behind, None).version == ready(session, left_behind, 1).version
        with pytest.raises(Invalid, match="no version 2") as refused:
            ready(session, left_behind, 2)
        assert refused.value.errors[0]["pointer"] == "/dataset/version"
        with pytest.raises(NotFound):
            ready(session, "ds_nothing", None)


def test_only_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "received").write_bytes(b"x")
    remove_leftovers(tmp_path, older_than_s=3600)
    assert (tmp_path / "old").exists()
    remove_leftovers(tmp_path, older_than_s=-1)
    assert list(tmp_path.iterdir()) == []
