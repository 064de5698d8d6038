"""Batch predictions whose processes are killed, stopped or terminated give the same results."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from service.datasets.versions import Dataset
from service.jobs.kind import Worker
from service.storage import references
from service.storage.database import reading
from tests.chaos import points
from tests.conftest import MakeDatabase
from tests.service.batch.desk import ENDED, Desk
from tests.service.worker.workplace import clear_orders, until, workplace_in
from tests.warm import Parent

pytestmark = pytest.mark.slow

ROWS = 250_000  # three chunks
CHUNKS = 3
SLEEPERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction'
AND state_change < now() - interval '5 seconds'
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    breakable: Parent,
) -> Iterator[tuple[Desk, str, str]]:
    """Return a desk, a dataset, and the digest of its undisturbed predictions."""
    folder = tmp_path_factory.mktemp("workplace")
    # A stopping worker does not wait long for a stalled process.
    with workplace_in(make_database, request.param, folder, breakable, GRACE_S="3") as workplace:
        desk = Desk(workplace)
        workplace.staff(2)
        desk.train()
        dataset = workplace.add_dataset(ROWS)
        yield desk, dataset, desk.result(desk.submit(dataset))


@pytest.fixture
def any_database(shared: tuple[Desk, str, str]) -> None:
    """Run a test once."""
    if shared[0].workplace.engine.dialect.name != "sqlite":
        pytest.skip("the database has no part in it")


@pytest.fixture
def desk(shared: tuple[Desk, str, str]) -> Desk:
    shared[0].workplace.staff(2)
    return shared[0]


@pytest.fixture
def dataset(shared: tuple[Desk, str, str]) -> str:
    return shared[1]


@pytest.fixture
def undisturbed(shared: tuple[Desk, str, str]) -> str:
    return shared[2]


@pytest.fixture
def arm(desk: Desk, failpoints: Path) -> Iterator["Arm"]:
    arm = Arm(failpoints)
    yield arm
    arm.clear()


class Arm:
    """Orders for failpoints, which the workers of the desk read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def order(self, point: str, action: str) -> None:
        self.clear()
        (self._folder / point).write_text(action)

    def clear(self) -> None:
        clear_orders(self._folder)

    def times(self, point: str) -> int:
        path = self._folder / f"{point}.times"
        return path.stat().st_size if path.exists() else 0


def results(desk: Desk) -> int:
    with reading(desk.workplace.engine) as session:
        return session.scalar(select(func.count()).select_from(Dataset)) or 0


@pytest.mark.parametrize("point", [*points.PREDICTOR, *points.BATCH])
def test_a_kill_changes_no_byte_of_the_result(
    desk: Desk, dataset: str, undisturbed: str, arm: Arm, point: str
) -> None:
    is_open = point.endswith((".written", ".made"))  # a transaction
    if desk.workplace.engine.dialect.name == "postgresql" and not is_open:
        pytest.skip("the database has no part in it")
    time = 2 if "chunk" in point or point == "predictor.predicted" else 1
    before = results(desk)
    arm.order(point, f"kill {time}")
    job = desk.submit(dataset)
    assert desk.result(job) == undisturbed
    until(lambda: arm.times(point) >= time)
    if point in points.BATCH:
        until(lambda: any(worker.poll() is not None for worker in desk.workplace.workers))
    ended = desk.job(job)
    assert ended.attempt == (1 if point == "batch.finished.committed" else 2)
    assert ended.counts == {"errors": 0, "warnings": {}}
    assert results(desk) == before + 1
    assert desk.chunks(job) == 0


@pytest.mark.usefixtures("any_database")
def test_the_next_attempt_predicts_only_what_is_not_done(
    desk: Desk, dataset: str, undisturbed: str, arm: Arm
) -> None:
    arm.order("predictor.predicted", "kill 3")
    job = desk.submit(dataset)
    until(lambda: desk.job(job).attempt == 2)
    done = desk.chunks(job)
    assert desk.result(job) == undisturbed
    assert arm.times("predictor.predicted") == 3 + CHUNKS - done
    assert done > 0


def test_a_worker_that_slept_through_its_lease_writes_nothing(
    desk: Desk, dataset: str, undisturbed: str, arm: Arm
) -> None:
    if desk.workplace.engine.dialect.name == "sqlite":
        pytest.skip("another thread of the sleeper may hold SQLite's one lock")
    arm.order("batch.finished", "stop 1")
    before = results(desk)
    job = desk.submit(dataset)
    until(lambda: arm.times("batch.finished") > 0)
    sleeper = owner_of(desk, job)
    try:
        until(lambda: has_ended(desk, job))
        assert desk.result(job) == undisturbed
    finally:
        os.kill(sleeper, signal.SIGCONT)
        os.kill(sleeper, signal.SIGTERM)
    worker = next(each for each in desk.workplace.workers if each.pid == sleeper)
    assert worker.wait(20) == 0
    assert results(desk) == before + 1
    assert desk.job(job).attempt == 2


@pytest.mark.usefixtures("any_database")
def test_a_worker_told_to_stop_hands_its_table_to_another(
    desk: Desk, dataset: str, undisturbed: str, arm: Arm
) -> None:
    arm.order("predictor.predicted", "stop 2")
    job = desk.submit(dataset)
    until(lambda: desk.chunks(job) == 1 and arm.times("predictor.predicted") == 2)
    pid = owner_of(desk, job)
    os.kill(pid, signal.SIGTERM)
    assert desk.result(job) == undisturbed
    assert next(each for each in desk.workplace.workers if each.pid == pid).wait(20) == 0
    ended = desk.job(job)
    assert (ended.attempt, ended.crash_streak) == (2, 0)


@pytest.mark.usefixtures("any_database")
def test_one_that_kills_its_process_again_and_again_fails_with_a_sentence(
    desk: Desk, dataset: str, arm: Arm
) -> None:
    job = desk.submit(dataset)
    for _ in range(3):
        arm.order("predictor.begin", "kill 1")
        until(lambda: arm.times("predictor.begin") > 0)
    ended = desk.wait_for(job, *ENDED)
    assert (ended.state, ended.attempt) == ("failed", 3)
    assert ended.error is not None
    assert (ended.error["code"], "SIGKILL" in ended.error["detail"]) == ("worker_lost", True)


@pytest.mark.usefixtures("any_database")
def test_a_cancel_ends_it_soon_and_leaves_nothing(desk: Desk, dataset: str, arm: Arm) -> None:
    arm.order("predictor.chunk", "stop 2")
    before = results(desk)
    job = desk.submit(dataset)
    until(lambda: desk.chunks(job) == 1 and arm.times("predictor.chunk") == 2)
    desk.cancel(job)
    ended = desk.wait_for(job, *ENDED)
    assert (ended.state, ended.state_reason, ended.result_id) == ("cancelled", "cancel", None)
    assert results(desk) == before


def test_nothing_is_left_of_a_job_but_its_result(desk: Desk, dataset: str, arm: Arm) -> None:
    arm.clear()
    engine, store = desk.workplace.engine, desk.workplace.blobs()
    digest = desk.result(desk.submit(dataset))

    def needless() -> list[str]:
        with reading(engine) as session:
            return references.needless(session, 100)

    until(lambda: not needless())
    scratch = desk.workplace.folder / "scratch"
    until(lambda: list(scratch.glob("batch_*")) == [])
    assert sum(map(len, store.open(digest))) > 0


def has_ended(desk: Desk, job_id: str) -> bool:
    """Return whether a job has ended; end idle transactions, as the server does after a minute."""
    with reading(desk.workplace.engine) as session:
        session.execute(text(SLEEPERS))
    return desk.job(job_id).state in ENDED


def owner_of(desk: Desk, job_id: str) -> int:
    with reading(desk.workplace.engine) as session:
        return session.get_one(Worker, desk.job(job_id).owner).pid
