"""A kind of job that exists only in these tests: a worker needs only its declaration."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter
from sqlalchemy import Engine, MetaData, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from service.errors import Fenced
from service.jobs import life, queue
from service.jobs.kind import JOB_TABLES, MOST, SENTENCES, Job, Kind, Site, Tenure
from service.jobs.pipe import Failure, Heartbeat, Obeyed
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.columns import Json, SqlTable, new_id
from service.storage.database import reading, writing
from service.storage.references import HeldBlob
from service.worker.launch import LocalLauncher, WarmProcess
from service.worker.machine import Gpu
from service.worker.supervisor import Supervisor
from tests.service.worker.toy import Counted, Done, ToyInput
from tests.service.worker.workplace import until

pytestmark = pytest.mark.slow

MANY = 1_000_000  # counts; a toy takes hours for them
LAST_DEATH = MOST["worker_lost"] - 1  # deaths; the next one ends a job


# ---- the declaration ----------------------------------------------------------------------------


class ToyTable(DeclarativeBase):
    """Keeps toys out of the metadata with which the migrations are compared."""

    metadata = MetaData()
    type_annotation_map = SqlTable.type_annotation_map


class ToyJob(Job, ToyTable):
    """A number to count to."""

    prefix = "toy"
    noun = "toy"
    plural = "toys"
    deaths = SENTENCES | {"worker_lost": "The toy broke {streak} times ({words})."}

    __tablename__ = "toys"

    until: Mapped[int]
    then: Mapped[str] = mapped_column(default="end")
    count: Mapped[int] = mapped_column(default=0)
    #: the first message of each attempt
    begun: Mapped[Json] = mapped_column(default=dict)


del JOB_TABLES[ToyJob.prefix]  # only for these tests, see `toys`


def prepare(_site: Site, toy: ToyJob, _scratch: Path) -> ToyInput:
    return ToyInput(start=toy.count, until=toy.until, then=toy.then)


def write(
    session: Session, tenure: Tenure, message: Counted | Done, _held: HeldBlob | None
) -> None:
    toy = queue.hold(session, ToyJob, tenure.job_id, tenure.attempt)
    match message:
        case Counted():
            if toy.then == "cannot be written":
                raise KeyError(message.count)
            if toy.state == "starting":
                life.started(session, toy.id, tenure.attempt, {})
            first = {str(tenure.attempt): message.model_dump()}
            session.execute(
                update(ToyJob)
                .where(ToyJob.id == toy.id)
                .values(count=message.count, begun=first | toy.begun)
            )
        case Done():
            life.succeed(session, toy.id, tenure.attempt, {})


Messages = Annotated[Counted | Done | Heartbeat | Obeyed | Failure, Field(discriminator="type")]
TOYS = Kind(
    table=ToyJob,
    module="tests.service.worker.toy",
    slots=lambda settings: settings.workers,
    claim=lambda session, owner, lease_s: life.claim(session, ToyJob, owner, lease_s=lease_s),
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
    device=lambda _toy: "auto",
)


# ---- a worker for toys --------------------------------------------------------------------------


class Toys:
    """The toys of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, until: int, then: str = "end", crash_streak: int = 0) -> str:
        toy = ToyJob(id=new_id("toy"), until=until, then=then, crash_streak=crash_streak)
        with writing(self._engine) as session:
            return life.enqueue(session, toy).id

    def get(self, toy_id: str) -> ToyJob:
        with reading(self._engine) as session:
            return life.get(session, ToyJob, toy_id)

    def wait_for(self, toy_id: str, *states: str) -> ToyJob:
        until(lambda: self.get(toy_id).state in states)
        return self.get(toy_id)

    def wait_for_count(self, toy_id: str, count: int, attempt: int = 1) -> ToyJob:
        until(lambda: self.get(toy_id).count >= count and self.get(toy_id).attempt >= attempt)
        return self.get(toy_id)

    def pid(self, toy_id: str, attempt: int) -> int:
        pid: int = self.get(toy_id).begun[str(attempt)]["pid"]
        return pid


@pytest.fixture
def toys(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Toys:
    monkeypatch.setitem(JOB_TABLES, ToyJob.prefix, ToyJob)
    ToyTable.metadata.create_all(engine)
    return Toys(engine)


@pytest.fixture(scope="module")
def parent() -> Iterator[WarmProcess]:
    parent = WarmProcess([TOYS.module])
    yield parent
    parent.close()


Work = Callable[..., Supervisor]


@pytest.fixture
def work(engine: Engine, settings: Settings, parent: WarmProcess) -> Iterator[Work]:
    """Return a function that starts a worker for toys in a thread."""
    times = {"lease_s": 30, "renew_s": 0.2, "poll_s": 0.05, "grace_s": 2}
    running: list[tuple[Supervisor, LocalLauncher, threading.Thread]] = []

    def start(*gpus: Gpu, workers: int = 1) -> Supervisor:
        own = settings.model_copy(update=times | {"workers": workers})
        site = Site(own, engine, LocalBlobs(settings.data_dir / "blobs"))
        launcher = LocalLauncher([TOYS.module], parent.orders)
        supervisor = Supervisor(site, [TOYS], launcher, gpus)
        thread = threading.Thread(target=supervisor.run, daemon=True)
        thread.start()
        running.append((supervisor, launcher, thread))
        return supervisor

    yield start
    for supervisor, launcher, thread in running:
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()
        launcher.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- its properties -----------------------------------------------------------------------------


def test_a_toy_is_queued_claimed_and_done_by_a_process_of_its_own(toys: Toys, work: Work) -> None:
    toy_id = toys.add(until=5)
    assert toys.get(toy_id).state == "queued"
    work()
    toy = toys.wait_for(toy_id, "succeeded", "failed")
    assert (toy.state, toy.attempt, toy.count) == ("succeeded", 1, 5)
    assert toys.pid(toy_id, 1) != os.getpid()
    until(lambda: not is_alive(toys.pid(toy_id, 1)))


def test_a_toy_whose_process_is_killed_goes_on_from_what_is_stored(toys: Toys, work: Work) -> None:
    toy_id = toys.add(until=MANY)
    work()
    toys.wait_for_count(toy_id, 3)
    os.kill(toys.pid(toy_id, 1), signal.SIGKILL)
    until(lambda: "2" in toys.get(toy_id).begun)
    first = toys.get(toy_id).begun["2"]
    assert first["count"] > 3
    assert first["pid"] != toys.pid(toy_id, 1)


def test_a_late_write_for_a_toy_is_refused_and_changes_nothing(
    toys: Toys, engine: Engine, work: Work
) -> None:
    toy_id = toys.add(until=MANY)
    supervisor = work()
    toys.wait_for_count(toy_id, 1)
    with writing(engine) as session:  # as if another worker had taken it over
        other = {"attempt": 2, "owner": "other"}
        session.execute(update(ToyJob).where(ToyJob.id == toy_id).values(**other))
    before = toys.get(toy_id)
    until(lambda: not is_alive(toys.pid(toy_id, 1)))
    supervisor.stop()
    late = Counted(count=MANY, pid=1, gpu=None)
    with pytest.raises(Fenced), writing(engine) as session:
        TOYS.write(session, Tenure(toy_id, 1), late, None)
    after = toys.get(toy_id)
    assert (after.count, after.state, after.owner) == (before.count, "running", "other")


def test_the_deaths_of_a_toy_end_it_with_a_sentence_of_its_own(toys: Toys, work: Work) -> None:
    toy_id = toys.add(until=1, then="die", crash_streak=LAST_DEATH)
    work()
    toy = toys.wait_for(toy_id, "failed")
    assert toy.error is not None
    assert toy.error["code"] == "worker_lost"
    assert toy.error["detail"] == "The toy broke 3 times (killed by SIGKILL)."


def test_a_toy_that_dies_seldom_waits_before_its_next_attempt(toys: Toys, work: Work) -> None:
    toy_id = toys.add(until=1, then="die")
    work()
    until(lambda: toys.get(toy_id).state_reason == "crashed")
    toy = toys.get(toy_id)
    assert (toy.state, toy.crash_streak, toy.error) == ("queued", 1, None)
    assert toy.not_before is not None


def test_a_toy_is_cancelled(toys: Toys, engine: Engine, work: Work) -> None:
    toy_id = toys.add(until=MANY)
    work()
    toys.wait_for_count(toy_id, 1)
    with writing(engine) as session:
        life.cancel(session, ToyJob, toy_id)
    toy = toys.wait_for(toy_id, "cancelled")
    assert 0 < toy.count < MANY
    until(lambda: not is_alive(toys.pid(toy_id, 1)))


def test_a_worker_that_stops_hands_its_toy_back(toys: Toys, work: Work) -> None:
    toy_id = toys.add(until=MANY)
    supervisor = work()
    toys.wait_for_count(toy_id, 1)
    supervisor.stop()
    toy = toys.wait_for(toy_id, "queued")
    assert (toy.state_reason, toy.crash_streak, toy.owner) == ("handed_back", 0, None)


def test_a_message_that_is_none_of_a_toys_is_the_death_of_its_process(
    toys: Toys, work: Work
) -> None:
    work()
    broken = toys.add(until=1, then="babble", crash_streak=LAST_DEATH)
    toy = toys.wait_for(broken, "failed")
    assert toy.error is not None
    assert "it sent a message 'nonsense' that is not valid: " in toy.error["detail"]
    assert "'counted', 'done'" in toy.error["detail"]
    until(lambda: not is_alive(toys.pid(broken, 1)))
    assert toys.wait_for(toys.add(until=1), "succeeded", "failed").state == "succeeded"


def test_a_message_that_cannot_be_written_ends_its_toy_and_not_the_worker(
    toys: Toys, work: Work
) -> None:
    work()
    broken = toys.add(until=MANY, then="cannot be written", crash_streak=LAST_DEATH)
    toy = toys.wait_for(broken, "failed")
    assert toy.error is not None
    assert "its message 'counted' could not be written: KeyError" in toy.error["detail"]
    assert toys.wait_for(toys.add(until=1), "succeeded", "failed").state == "succeeded"


def test_each_toy_at_work_sees_a_gpu_of_its_own(toys: Toys, work: Work) -> None:
    ids = [toys.add(until=MANY) for _ in range(4)]
    gpus = [Gpu(f"cuda:{i}", "A", {"CUDA_VISIBLE_DEVICES": str(i)}) for i in range(4)]
    work(*gpus, workers=4)
    for toy_id in ids:
        toys.wait_for_count(toy_id, 1)
    seen = [toys.get(toy_id).begun["1"]["gpu"] for toy_id in ids]
    assert sorted(seen) == ["0", "1", "2", "3"]
