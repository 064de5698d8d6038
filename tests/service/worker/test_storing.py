"""A slow or absent store delays the checkpoints of one run, and nothing else."""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Engine

from service.errors import StorageUnavailable
from service.jobs.kind import Site
from service.jobs.pipe import Message, Obeyed
from service.runs import lifecycle
from service.runs.kind import RUNS
from service.runs.messages import CheckpointFile, TrainingBegan, TrainingJob
from service.settings import Settings
from service.storage.blobs import BlobStore, LocalBlobs
from service.storage.database import reading
from service.work import KINDS
from service.worker.launch import NOTHING
from service.worker.supervisor import Supervisor
from tests.service.worker.workplace import Workplace, until
from tests.warm import Parent

pytestmark = pytest.mark.slow

LEASE_S = 1.5


class Told:
    """A child that sends the messages of a test, and ends when it is killed."""

    def __init__(self, *messages: Message) -> None:
        self._read, self._write = os.pipe()
        self._messages: list[Message | None] = []
        self._say(*messages)

    def _say(self, *messages: Message | None) -> None:
        self._messages += messages
        os.write(self._write, b"x" * len(messages))

    def fileno(self) -> int:
        return self._read

    def has_message(self) -> bool:
        return bool(self._messages)

    def receive(self) -> bytes | None:
        os.read(self._read, 1)
        message = self._messages.pop(0)
        return None if message is None else message.model_dump_json().encode()

    def send(self, message: Message) -> None:  # noqa: ARG002  an order to stop is the only one
        self._say(Obeyed(), None)

    def kill(self) -> None:
        self._say(None)

    def show_stack(self) -> None:
        return

    def exit_code(self) -> int | None:
        return 0


class Launcher:
    """Starts children that have a checkpoint immediately."""

    def start(
        self,
        module: str,
        job: BaseModel,
        scratch: Path,
        lock: int | None = None,  # noqa: ARG002  it has no process
        environment: Mapping[str, str] = NOTHING,  # noqa: ARG002
    ) -> Told:
        assert module == RUNS.module
        path = scratch / "checkpoint"
        path.write_text(TrainingJob.model_validate(job).run_id)
        started = TrainingBegan(
            device="cpu", engine="chunked", warnings=[], subject=None, frames=[]
        )
        saved = CheckpointFile(
            path=path,
            sha256=None,
            bytes=path.stat().st_size,
            epoch=0,
            step=0,
            seq=0,
            metrics={},
            metrics_epoch=None,
            is_best=False,
            resumable=True,
            progress=None,
        )
        return Told(started, saved)

    def is_warm(self) -> bool:
        return True


class Slow:
    """A store whose first put blocks until it is released, or fails until then."""

    def __init__(self, store: BlobStore, *, fails: Exception | None = None) -> None:
        self._store, self._fails = store, fails
        self._lock, self._is_first = threading.Lock(), True
        self.is_away = False  # for readers
        self.reached, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def fetch(self, sha256: str, folder: Path) -> Path:
        if self.is_away:
            self.reached.set()
            raise StorageUnavailable
        return self._store.fetch(sha256, folder)

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        if self._fails and not self.go.is_set():
            self.reached.set()
            raise self._fails
        with self._lock:
            is_first, self._is_first = self._is_first, False
        if is_first and not self._fails:
            self.reached.set()
            assert self.go.wait(60)
        return self._store.put(path, sha256)


Work = Callable[[Engine, Slow], None]


@pytest.fixture
def workplace(engine: Engine, tmp_path: Path, warm: Parent) -> Workplace:
    return Workplace(engine, tmp_path / "data", warm)


@pytest.fixture
def work(settings: Settings) -> Iterator[Work]:
    """Return a function that starts a supervisor in a thread."""
    running: list[tuple[Supervisor, threading.Thread]] = []

    def start(engine: Engine, blobs: Slow) -> None:
        times = {"lease_s": LEASE_S, "renew_s": 0.3, "sweep_s": 0.2, "poll_s": 0.05, "grace_s": 2}
        short = settings.model_copy(update={"workers": 2} | times)
        supervisor = Supervisor(Site(short, engine, blobs), KINDS, Launcher())
        thread = threading.Thread(target=supervisor.run, daemon=True)
        thread.start()
        running.append((supervisor, thread))

    yield start
    for supervisor, thread in running:
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()


def checkpointed(workplace: Workplace, run_id: str) -> bool:
    return workplace.run(run_id).resume_checkpoint_id is not None


def lease_of(engine: Engine, run_id: str) -> float:
    with reading(engine) as session:
        return lifecycle.get(session, run_id).lease_expires or 0.0


def test_while_a_checkpoint_is_stored_leases_are_kept_and_other_runs_go_on(
    workplace: Workplace, engine: Engine, work: Work
) -> None:
    slow = Slow(LocalBlobs(workplace.folder / "blobs"))
    dataset = workplace.add_dataset()
    work(engine, slow)
    first = workplace.submit(dataset)
    assert slow.reached.wait(30)
    second = workplace.submit(dataset)
    until(lambda: checkpointed(workplace, second))
    before = lease_of(engine, first)
    until(lambda: lease_of(engine, first) > before + LEASE_S)
    run = workplace.run(first)
    assert (run.state, run.attempt, run.resume_checkpoint_id) == ("running", 1, None)
    slow.go.set()
    until(lambda: checkpointed(workplace, first))
    assert workplace.run(first).attempt == 1


@pytest.mark.parametrize(
    "fault", [StorageUnavailable(), OSError(errno.EIO, "the disk does not answer")], ids=repr
)
def test_an_outage_of_the_store_shorter_or_longer_than_a_lease_costs_no_attempt(
    workplace: Workplace, engine: Engine, work: Work, fault: Exception
) -> None:
    slow = Slow(LocalBlobs(workplace.folder / "blobs"), fails=fault)
    dataset = workplace.add_dataset()
    work(engine, slow)
    runs = [workplace.submit(dataset) for _ in range(2)]
    assert slow.reached.wait(30)
    until(lambda: all(lease_of(engine, run_id) for run_id in runs))
    before = max(lease_of(engine, run_id) for run_id in runs)
    until(lambda: min(lease_of(engine, run_id) for run_id in runs) > before + LEASE_S)
    slow.go.set()
    until(lambda: all(checkpointed(workplace, run_id) for run_id in runs))
    assert [workplace.run(run_id).attempt for run_id in runs] == [1, 1]


def test_a_run_whose_bytes_cannot_be_had_goes_back_to_the_queue_for_a_while(
    workplace: Workplace, engine: Engine, work: Work
) -> None:
    slow = Slow(LocalBlobs(workplace.folder / "blobs"))
    slow.go.set()
    slow.is_away = True
    run_id = workplace.submit(workplace.add_dataset())
    work(engine, slow)
    assert slow.reached.wait(30)
    until(lambda: workplace.run(run_id).state == "queued")
    assert workplace.run(run_id).not_before is not None
    slow.is_away = False
    run = workplace.wait_for(run_id, "running", "failed")
    assert (run.state, run.error) == ("running", None)
