"""Sweeps whose supervisors and processes are killed end like undisturbed ones."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from descent.schemas import SweepRequest
from descent.spec import DatasetRef
from service.datasets.versions import DatasetVersion
from service.runs.tables import Run
from service.storage.database import reading, writing
from service.sweeps import lifecycle, representation
from service.sweeps.plan import make_sweep_plan
from tests.chaos import points
from tests.conftest import MakeDatabase
from tests.service.batch.test_kills import Arm
from tests.service.worker.workplace import Workplace, until, workplace_in
from tests.warm import Parent

pytestmark = pytest.mark.slow

ENDED = ("succeeded", "failed", "cancelled")
#: the points that every test run kills at; the others are for the night
DAILY = ("sweep.steered",)
HALVING = {"strategy": {"type": "halving", "factor": 2}, "trials": 4}
TPE = {"strategy": "tpe", "trials": 12}

Rows = list[tuple[Any, ...]]


class SweepBench:
    """Sweeps of a workplace."""

    def __init__(self, workplace: Workplace, dataset: str) -> None:
        self.workplace, self.dataset = workplace, dataset

    def submit(self, **asked: Any) -> str:
        base = {
            "dataset": self.dataset,
            "target": "y",
            "model": {"type": "linear"},
            "optimizer": {"type": "sgd"},
            "batch_size": "full",
            "epochs": 4,
        }
        space = {"optimizer.learning_rate": {"log_uniform": [0.001, 0.1]}}
        request = SweepRequest.model_validate({"base": base, "space": space} | asked)
        with writing(self.workplace.engine) as session:
            version = session.get_one(DatasetVersion, (self.dataset, 1))
            ref = DatasetRef(id=self.dataset, version=1)
            plan = make_sweep_plan(request, ref, version.columns, version.rows)
            return lifecycle.submit(session, plan).id

    def ended(self, sweep_id: str) -> Rows:
        """Return what the leaderboard of a sweep says once it has ended."""
        until(lambda: self.body(sweep_id)["state"] in ENDED)
        body = self.body(sweep_id)
        assert (body["state"], body["error"]) == ("succeeded", None)
        names = ("trial", "parameters", "value", "epochs", "state_reason")
        return [tuple(row[name] for name in names) for row in body["leaderboard"]]

    def body(self, sweep_id: str) -> dict[str, Any]:
        with reading(self.workplace.engine) as session:
            return representation.sweep_body(session, lifecycle.get(session, sweep_id))

    def runs(self, sweep_id: str) -> int:
        with reading(self.workplace.engine) as session:
            query = select(func.count()).select_from(Run).where(Run.sweep_id == sweep_id)
            return session.scalar(query) or 0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def bench(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    breakable: Parent,
) -> Iterator[SweepBench]:
    folder = tmp_path_factory.mktemp("workplace")
    with workplace_in(make_database, request.param, folder, breakable, GRACE_S="3") as workplace:
        yield SweepBench(workplace, workplace.add_dataset())


@pytest.fixture(scope="module")
def undisturbed(bench: SweepBench) -> Callable[[bool], Rows]:
    """Return the leaderboard of an undisturbed halving, or of a sampler's sweep."""
    bench.workplace.staff(2)

    @functools.cache
    def ended(is_halving: bool) -> Rows:  # noqa: FBT001
        return bench.ended(bench.submit(**(HALVING if is_halving else TPE)))

    return ended


@pytest.fixture
def arm(failpoints: Path) -> Iterator[Arm]:
    arm = Arm(failpoints)
    yield arm
    arm.clear()


@pytest.mark.parametrize(
    "point",
    [
        point if point in DAILY else pytest.param(point, marks=pytest.mark.nightly)
        for point in points.SWEEP
    ],
)
def test_a_kill_loses_and_doubles_no_trial(
    bench: SweepBench, undisturbed: Callable[[bool], Rows], arm: Arm, point: str
) -> None:
    is_open = point.endswith((".written", ".steered"))  # a transaction
    if bench.workplace.engine.dialect.name == "postgresql" and not is_open:
        pytest.skip("the database has no part in it")
    is_halving = not point.startswith(("suggest", "sampler"))
    bench.workplace.staff(2)
    expected = undisturbed(is_halving)
    time = 1 if "suggest" in point or "sampler" in point else 2
    arm.order(point, f"kill {time}")
    asked = HALVING if is_halving else TPE
    sweep = bench.submit(**asked)
    assert bench.ended(sweep) == expected
    assert arm.times(point) >= time
    assert bench.runs(sweep) == asked["trials"]
