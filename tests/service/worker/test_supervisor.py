import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.jobs.kind import Worker
from service.runs import lifecycle
from service.runs.tables import Checkpoint, Event
from service.storage.database import reading, writing
from tests.chaos.stage import tell
from tests.conftest import MakeDatabase
from tests.service.worker.workplace import Workplace, until, workplace_in
from tests.warm import Forked, Parent, children

pytestmark = pytest.mark.slow

LONG = 200_000  # epochs: tens of seconds
#: a run that is long enough for a disturbance, and that ends
LONG_ENOUGH: dict[str, Any] = {"epochs": 3_000, "batch_size": 16}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    warm: Parent,
) -> Iterator[Workplace]:
    """Return a workplace for all tests of this file: starting a worker takes seconds."""
    folder = tmp_path_factory.mktemp("workplace")
    # Early checkpoints, so that the disturbance is long before the end on a fast machine too.
    # Long leases, for which no test waits: another worker takes over abandoned runs at once.
    # The kernel would be done before a disturbance.
    settings = {"CHECKPOINT_S": "0.2", "LEASE_S": "300", "ENGINE": "chunked"}
    with workplace_in(make_database, request.param, folder, warm, **settings) as place:
        yield place


@pytest.fixture
def workplace(shared: Workplace) -> Workplace:
    """Return the workplace with two warm workers, also after the end of earlier ones."""
    shared.staff(2)
    return shared


@pytest.fixture(scope="module")
def undisturbed(shared: Workplace) -> list[tuple[int, str, float]]:
    """Return the curve of an undisturbed run of `LONG_ENOUGH`."""
    shared.staff(2)
    run_id = shared.submit(shared.add_dataset(), **LONG_ENOUGH)
    run = shared.wait_for(run_id, "succeeded", "failed")
    assert (run.state, run.attempt) == ("succeeded", 1)
    return curve(shared, run_id)


def curve(workplace: Workplace, run_id: str) -> list[tuple[int, str, float]]:
    return [(row["seq"], row["split"], row["value"]) for row in workplace.curve(run_id)]


def assert_whole_curve(workplace: Workplace, run_id: str, epochs: int) -> None:
    rows = workplace.curve(run_id)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    points = Counter((row["epoch"], row["split"], row["name"]) for row in rows)
    assert max(points.values()) == 1
    assert {e for e, split, _ in points if split == "train"} == set(range(1, epochs + 1))


def ask(workplace: Workplace, run_id: str, verb: str) -> None:
    with writing(workplace.engine) as session:
        getattr(lifecycle, verb)(session, run_id)


def started_epochs(workplace: Workplace, run_id: str) -> int:
    return int((workplace.run(run_id).progress or {}).get("epoch", 0))


def has_checkpoint(workplace: Workplace, run_id: str) -> bool:
    return workplace.run(run_id).resume_checkpoint_id is not None


def test_a_run_trains_to_its_end(workplace: Workplace) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=50, register_as="line")
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert run.error is None
    assert (run.model_name, run.model_version) == ("line", 1)
    assert run.evaluation is not None
    assert_whole_curve(workplace, run_id, 50)


def test_cancel_stops_a_trainer_and_keeps_its_best(workplace: Workplace) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=LONG)
    until(lambda: started_epochs(workplace, run_id) > 0)
    ask(workplace, run_id, "cancel")
    run = workplace.wait_for(run_id, "cancelled")
    assert 0 < started_epochs(workplace, run_id) < LONG
    with reading(workplace.engine) as session:
        best = session.get_one(Checkpoint, run.best_checkpoint_id)
    assert best.is_best


def test_a_paused_run_goes_on_where_it_stopped(workplace: Workplace) -> None:
    run_id = workplace.submit(workplace.add_dataset(), **LONG_ENOUGH)
    until(lambda: started_epochs(workplace, run_id) > 0)
    ask(workplace, run_id, "pause")
    workplace.wait_for(run_id, "paused")
    at = started_epochs(workplace, run_id)
    ask(workplace, run_id, "resume")
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert 0 < at < LONG_ENOUGH["epochs"]
    assert_whole_curve(workplace, run_id, LONG_ENOUGH["epochs"])


def test_a_diverged_run_keeps_its_curve_and_says_why(workplace: Workplace) -> None:
    optimizer = {"type": "sgd", "learning_rate": 5.0}
    run_id = workplace.submit(
        workplace.add_dataset(), epochs=5000, optimizer=optimizer, standardize=False
    )
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert run.state == "failed"
    assert run.error is not None
    assert (run.error["code"], "5" in run.error["detail"]) == ("diverged", True)
    assert run.best is not None
    with reading(workplace.engine) as session:
        kept = session.get_one(Checkpoint, run.best_checkpoint_id)
    assert kept.is_best
    assert (kept.epoch, kept.metrics_epoch) == (run.best["epoch"], run.best["epoch"])
    assert {"NaN", "Infinity"} & {row["value"] for row in workplace.curve(run_id)[-2:]}


def test_a_trainer_that_is_killed_is_started_again(workplace: Workplace) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=LONG)
    until(lambda: has_checkpoint(workplace, run_id))
    tell(workplace.warm.trainers(), signal.SIGKILL)
    until(lambda: workplace.run(run_id).attempt == 2 and workplace.run(run_id).state == "running")
    ask(workplace, run_id, "cancel")
    assert workplace.wait_for(run_id, "cancelled").attempt == 2


def test_twenty_runs_on_two_workers_are_each_trained_once(workplace: Workplace) -> None:
    dataset = workplace.add_dataset()
    runs = [workplace.submit(dataset, epochs=5, seed=seed) for seed in range(20)]
    for run_id in runs:
        run = workplace.wait_for(run_id, "succeeded", "failed")
        assert (run.state, run.attempt) == ("succeeded", 1)
    with reading(workplace.engine) as session:
        ends = select(Event.job_id).where(Event.kind == "end", Event.job_id.in_(runs))
        assert sorted(session.scalars(ends)) == sorted(runs)


def test_the_run_of_a_killed_worker_ends_like_an_undisturbed_one(
    workplace: Workplace, undisturbed: list[tuple[int, str, float]]
) -> None:
    disturbed = workplace.submit(workplace.add_dataset(), **LONG_ENOUGH)
    until(lambda: has_checkpoint(workplace, disturbed))
    assert workplace.run(disturbed).state == "running"
    owner_of(workplace, disturbed).kill()
    assert_second_attempt_gave(workplace, disturbed, undisturbed)


def test_a_worker_told_to_stop_hands_its_run_to_another(
    workplace: Workplace, undisturbed: list[tuple[int, str, float]]
) -> None:
    run_id = workplace.submit(workplace.add_dataset(), **LONG_ENOUGH)
    until(lambda: started_epochs(workplace, run_id) > 0)
    worker = owner_of(workplace, run_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    until(lambda: workplace.run(run_id).attempt == 2)
    assert_second_attempt_gave(workplace, run_id, undisturbed)
    with reading(workplace.engine) as session:
        rewound = select(Event).where(Event.job_id == run_id, Event.kind == "rewind")
        assert session.scalars(rewound).all() == [], "a step was lost"


def assert_second_attempt_gave(
    workplace: Workplace, run_id: str, undisturbed: list[tuple[int, str, float]]
) -> None:
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert_whole_curve(workplace, run_id, LONG_ENOUGH["epochs"])
    assert curve(workplace, run_id) == undisturbed


def test_a_trainer_holds_no_credentials(workplace: Workplace) -> None:
    workplace.dismiss()
    workplace.workers = [workplace.start_worker()]
    run_id = workplace.submit(workplace.add_dataset(), epochs=LONG)
    until(lambda: started_epochs(workplace, run_id) > 0)
    processes = below(workplace.workers[0].pid)
    environments = [(Path("/proc") / str(pid) / "environ").read_bytes() for pid in processes]
    ask(workplace, run_id, "cancel")
    workplace.wait_for(run_id, "cancelled")
    workplace.dismiss()  # its trainers are not among those of `warm`, which other tests count
    assert environments
    assert not any(b"DESCENT_" in environment for environment in environments)


def owner_of(workplace: Workplace, run_id: str) -> subprocess.Popen[bytes] | Forked:
    """Return the worker that trains the run."""
    with reading(workplace.engine) as session:
        pid = session.get_one(Worker, workplace.run(run_id).owner).pid
    return next(worker for worker in workplace.workers if worker.pid == pid)


def below(pid: int) -> list[int]:
    """Return all descendants of `pid`."""
    started = children(pid)
    return [*started, *(grandchild for child in started for grandchild in below(child))]
