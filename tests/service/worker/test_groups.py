"""Runs that train together in one process, as real processes: each ends like alone."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from service.runs.tables import Checkpoint
from service.storage.database import reading
from tests.conftest import MakeDatabase
from tests.service.worker.test_supervisor import (
    ask,
    assert_whole_curve,
    curve,
    has_checkpoint,
    started_epochs,
)
from tests.service.worker.workplace import Workplace, until, workplace_in
from tests.warm import Parent

pytestmark = pytest.mark.slow

EPOCHS = 300
RATES = (0.003, 0.01, 0.03)
DROPOUT = {"type": "mlp", "hidden": [8], "dropout": 0.2}


def config(rate: float, **other: Any) -> dict[str, Any]:
    optimizer = {"type": "adam", "learning_rate": rate}
    model = {"type": "mlp", "hidden": [8]}
    return {"epochs": EPOCHS, "batch_size": 16, "optimizer": optimizer, "model": model} | other


#: members that differ in what the members of a sweep may differ in
CONFIGS = [*map(config, RATES), config(0.01, seed=1), config(0.01, model=DROPOUT)]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)]
)
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    warm: Parent,
) -> Iterator[Workplace]:
    """Return a workplace with one worker, which trains one process at a time."""
    folder = tmp_path_factory.mktemp("workplace")
    # The slowest engine, so that trainings last until they are disturbed.
    settings = {"CHECKPOINT_S": "0.3", "LEASE_S": "300", "ENGINE": "autograd"}
    with workplace_in(make_database, request.param, folder, warm, **settings) as place:
        place.staff(1)
        yield place


@pytest.fixture
def workplace(shared: Workplace) -> Workplace:
    shared.staff(1)
    return shared


@pytest.fixture(scope="module")
def dataset(shared: Workplace) -> str:
    return shared.add_dataset()


@pytest.fixture(scope="module")
def alone(shared: Workplace, dataset: str) -> list[tuple[Any, str]]:
    """Return the curve and the hash of each of `CONFIGS`, trained in a process of its own."""
    return [result(shared, shared.submit(dataset, **each)) for each in CONFIGS]


def result(workplace: Workplace, run_id: str) -> tuple[Any, str]:
    """Wait for the end of a run; return its curve and the hash of its last checkpoint."""
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert run.error is None
    assert_whole_curve(workplace, run_id, EPOCHS)
    return curve(workplace, run_id), last_hash(workplace, run_id)


def last_hash(workplace: Workplace, run_id: str) -> str:
    with reading(workplace.engine) as session:
        return session.get_one(Checkpoint, workplace.run(run_id).best_checkpoint_id).sha256


def attempts_of(workplace: Workplace, runs: list[str]) -> list[int]:
    return [workplace.run(run_id).attempt for run_id in runs]


def train_at_once(workplace: Workplace, runs: list[str]) -> None:
    """Wait until all runs have begun, in one process."""
    until(lambda: all(started_epochs(workplace, run_id) > 0 for run_id in runs))
    assert len(workplace.warm.trainers()) == 1


def test_each_member_ends_like_alone(
    workplace: Workplace, dataset: str, alone: list[tuple[Any, str]]
) -> None:
    runs = workplace.submit_group(dataset, CONFIGS)
    train_at_once(workplace, runs)
    assert [result(workplace, run_id) for run_id in runs] == alone
    assert attempts_of(workplace, runs) == [1] * len(runs)


def test_members_are_cancelled_and_paused_one_by_one(
    workplace: Workplace, dataset: str, alone: list[tuple[Any, str]]
) -> None:
    cancelled, paused, *others = runs = workplace.submit_group(dataset, CONFIGS)
    train_at_once(workplace, runs)
    ask(workplace, cancelled, "cancel")
    ask(workplace, paused, "pause")
    workplace.wait_for(cancelled, "cancelled")
    workplace.wait_for(paused, "paused")
    ask(workplace, paused, "resume")
    assert [result(workplace, run_id) for run_id in [paused, *others]] == alone[1:]
    assert attempts_of(workplace, runs) == [1, 2, *([1] * len(others))]


def test_members_of_a_killed_process_end_like_alone(
    workplace: Workplace, dataset: str, alone: list[tuple[Any, str]]
) -> None:
    runs = workplace.submit_group(dataset, CONFIGS)
    until(lambda: all(has_checkpoint(workplace, run_id) for run_id in runs))
    (trainer,) = workplace.warm.trainers()
    os.kill(trainer, signal.SIGKILL)
    assert [result(workplace, run_id) for run_id in runs] == alone
    assert max(attempts_of(workplace, runs)) == 2


def test_members_of_a_worker_that_stops_go_on_with_another(
    workplace: Workplace, dataset: str, alone: list[tuple[Any, str]]
) -> None:
    runs = workplace.submit_group(dataset, CONFIGS)
    train_at_once(workplace, runs)
    workplace.dismiss()
    workplace.staff(1)
    assert [result(workplace, run_id) for run_id in runs] == alone
    assert max(attempts_of(workplace, runs)) == 2


def test_a_member_that_diverges_ends_alone(
    workplace: Workplace, dataset: str, alone: list[tuple[Any, str]]
) -> None:
    wild = config(0.01, optimizer={"type": "sgd", "learning_rate": 1e5}, model={"type": "linear"})
    diverged, *others = runs = workplace.submit_group(dataset, [wild, *CONFIGS])
    run = workplace.wait_for(diverged, "failed", "succeeded")
    assert run.error is not None
    assert run.error["code"] == "diverged"
    assert [result(workplace, run_id) for run_id in others] == alone
    assert set(attempts_of(workplace, runs)) == {1}
