"""Steps of a sweep over members whose ends are written as a worker writes them."""

from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select, update

from descent.codes import ErrorCode
from descent.schemas import SweepRequest
from descent.spec import DatasetRef
from service.errors import Conflict
from service.jobs import life
from service.runs import lifecycle as runs
from service.runs.tables import Run
from service.storage.database import reading, writing
from service.sweeps import lifecycle, representation, steering
from service.sweeps.plan import make_sweep_plan
from service.sweeps.tables import Suggestion, Sweep, SweepEvent, Trial
from tests.service.rows import COLUMNS, add_dataset

pytestmark = pytest.mark.both_databases

RATES = {"optimizer.learning_rate": {"grid": [0.1, 0.01, 0.001, 0.0001]}}


class Bench:
    """A sweep in a database, and a worker that ends members as a test says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.id = ""

    def submit(self, space: dict[str, Any] | None = None, **asked: Any) -> None:
        with writing(self.engine) as session:
            dataset = add_dataset(session)
            base = {"dataset": dataset, "target": "Final", "epochs": 9} | asked.pop("base", {})
            request = SweepRequest.model_validate({"base": base, "space": space or RATES} | asked)
            ref = DatasetRef(id=dataset, version=1)
            plan = make_sweep_plan(request, ref, COLUMNS, 13)
            self.id = lifecycle.submit(session, plan).id

    def claim(self) -> Run:
        """Begin to train the next member."""
        with writing(self.engine) as session:
            run = runs.claim(session, "w1", lease_s=20)
            assert run is not None
            runs.started(session, run.id, run.attempt, {})
            return run

    def end(self, run: Run, value: float) -> None:
        with writing(self.engine) as session:
            self._note(session, run, value)
            runs.succeed(session, run.id, run.attempt, {"evaluation": {}})

    def rest(self, run: Run, value: float) -> None:
        """Let a member reach the end of its rung."""
        with writing(self.engine) as session:
            self._note(session, run, value)
            runs.rest(session, run.id, run.attempt)

    def _note(self, session: Any, run: Run, value: float) -> None:
        best = {"epoch": 1, "split": "validation", "name": "loss", "value": value}
        progress = {"epoch": run.pause_after or 9, "elapsed_s": 1.0}
        session.execute(update(Run).where(Run.id == run.id).values(best=best, progress=progress))

    def fail(self, run: Run, code: ErrorCode = "diverged") -> None:
        with writing(self.engine) as session:
            runs.fail(session, run.id, run.attempt, life.problem(code, "The loss is NaN."))

    def steer(self) -> None:
        """Make steps until nothing is due."""
        for _ in range(10):
            with reading(self.engine) as session:
                found = steering.due(session)
            if not found:
                return
            with writing(self.engine) as session:
                steering.steer(session, found[0])
        pytest.fail("the sweep is always due")

    def body(self) -> dict[str, Any]:
        with reading(self.engine) as session:
            return representation.sweep_body(session, lifecycle.get(session, self.id))

    def states(self) -> list[str]:
        rows = sorted(self.body()["leaderboard"], key=lambda row: row["trial"])
        return [row["state"] for row in rows]

    def events(self, kind: str) -> list[dict[str, Any]]:
        with reading(self.engine) as session:
            query = select(SweepEvent.data).where(SweepEvent.kind == kind)
            return list(session.scalars(query.order_by(SweepEvent.seq)))


@pytest.fixture
def bench(engine: Engine) -> Bench:
    return Bench(engine)


def test_members_wait_in_the_order_of_their_trials(bench: Bench) -> None:
    bench.submit()
    assert [bench.claim().trial for _ in range(4)] == [1, 2, 3, 4]


def test_a_sweep_goes_the_way_of_its_members(bench: Bench) -> None:
    bench.submit()
    for value in (3.0, 1.0, 2.0, 4.0):
        bench.end(bench.claim(), value)
        bench.steer()
    states = [event["state"] for event in bench.events("state")]
    assert states == ["queued", "starting", "running", "succeeded"]
    assert [row["trial"] for row in bench.body()["leaderboard"]] == [2, 3, 1, 4]


def test_equal_values_are_in_the_order_of_their_trials(bench: Bench) -> None:
    bench.submit()
    for _ in range(4):
        bench.end(bench.claim(), 1.0)
    bench.steer()
    assert [row["trial"] for row in bench.body()["leaderboard"]] == [1, 2, 3, 4]
    assert bench.body()["best"]["trial"] == 1


def test_a_step_that_is_repeated_changes_nothing(bench: Bench) -> None:
    bench.submit()
    bench.end(bench.claim(), 1.0)
    bench.steer()
    before = (bench.body(), bench.events("trial"))
    with writing(bench.engine) as session:
        steering.steer(session, bench.id)
    assert (bench.body(), bench.events("trial")) == before


def test_a_sweep_of_which_some_members_fail_succeeds(bench: Bench) -> None:
    bench.submit()
    bench.fail(bench.claim())
    for value in (2.0, 1.0, 3.0):
        bench.end(bench.claim(), value)
    bench.steer()
    body = bench.body()
    assert (body["state"], body["best"]["trial"]) == ("succeeded", 3)
    assert body["leaderboard"][-1]["error"]["code"] == "diverged"


def test_a_sweep_of_which_all_members_fail_fails_and_says_why(bench: Bench) -> None:
    bench.submit()
    for _ in range(4):
        bench.fail(bench.claim())
    bench.steer()
    body = bench.body()
    assert (body["state"], body["error"]["code"]) == ("failed", "no_trial_succeeded")
    assert "The loss is NaN." in body["error"]["detail"]


def test_a_cancelled_sweep_ends_once_its_last_process_has_ended(bench: Bench) -> None:
    bench.submit()
    run = bench.claim()
    bench.steer()
    with writing(bench.engine) as session:
        sweep, is_new = lifecycle.cancel(session, bench.id)
        assert (sweep.state, is_new) == ("cancelling", True)
    assert bench.states() == ["cancelling", "cancelled", "cancelled", "cancelled"]
    with writing(bench.engine) as session:
        life.stopped(session, run.id, run.attempt)
    bench.steer()
    assert bench.body()["state"] == "cancelled"


def test_a_sweep_that_waits_is_cancelled_at_once(bench: Bench) -> None:
    bench.submit()
    with writing(bench.engine) as session:
        assert lifecycle.cancel(session, bench.id)[0].state == "cancelled"
    assert bench.states() == ["cancelled"] * 4


def test_a_paused_sweep_starts_no_member_until_it_is_resumed(bench: Bench) -> None:
    bench.submit()
    run = bench.claim()
    bench.steer()
    with writing(bench.engine) as session:
        assert lifecycle.pause(session, bench.id)[0].state == "pausing"
        assert runs.claim(session, "w1", lease_s=20) is None
        life.stopped(session, run.id, run.attempt)
    bench.steer()
    assert (bench.body()["state"], set(bench.states())) == ("paused", {"paused"})
    with writing(bench.engine) as session:
        assert lifecycle.resume(session, bench.id)[0].state == "queued"
    for value in (1.0, 2.0, 3.0, 4.0):
        bench.end(bench.claim(), value)
    bench.steer()
    assert bench.body()["state"] == "succeeded"


def test_a_member_that_a_person_cancels_does_not_stop_the_sweep(bench: Bench) -> None:
    bench.submit()
    with writing(bench.engine) as session:
        runs.cancel(session, bench.body()["leaderboard"][0]["run"])
    for value in (1.0, 2.0, 3.0):
        bench.end(bench.claim(), value)
    bench.steer()
    assert (bench.body()["state"], bench.states()[0]) == ("succeeded", "cancelled")


def test_a_halving_continues_the_best_and_prunes_the_others(bench: Bench) -> None:
    space = {"optimizer.learning_rate": {"log_uniform": [1e-4, 0.1]}}
    bench.submit(space, strategy="halving", trials=9)
    assert bench.body()["rungs"] == [1, 3]
    for value in (5.0, 4.0, 9.0, 1.0, 7.0, 6.0, 8.0, 3.0):
        bench.rest(bench.claim(), value)
        bench.steer()
    assert bench.body()["trials"]["paused"] == 8  # nothing is decided before the last one
    bench.fail(bench.claim())
    bench.steer()
    assert bench.body()["trials"] | {"total": 0} == {
        "total": 0,
        "queued": 3,
        "running": 0,
        "paused": 0,
        "succeeded": 0,
        "pruned": 5,
        "failed": 1,
        "cancelled": 0,
    }
    winners = [bench.claim() for _ in range(3)]
    assert sorted((run.trial, run.pause_after) for run in winners) == [(2, 3), (4, 3), (8, 3)]
    for run in winners:
        bench.rest(run, float(run.trial or 0))
    bench.steer()
    last = bench.claim()
    assert (last.trial, last.pause_after) == (2, None)
    bench.end(last, 2.0)
    bench.steer()
    body = bench.body()
    assert (body["state"], body["best"]["trial"]) == ("succeeded", 2)


def test_a_member_that_a_person_pauses_is_not_taken_for_one_at_its_rung(bench: Bench) -> None:
    bench.submit({"seed": {"int": [0, 99]}}, strategy="halving", trials=3)
    for value in (1.0, 2.0):
        bench.rest(bench.claim(), value)
    run = bench.claim()
    with writing(bench.engine) as session:
        runs.pause(session, run.id)
        life.stopped(session, run.id, run.attempt)
    bench.steer()
    assert bench.states() == ["paused", "paused", "paused"]
    with writing(bench.engine) as session:
        runs.resume(session, run.id)
    bench.rest(bench.claim(), 0.5)
    bench.steer()
    assert bench.states() == ["cancelled", "cancelled", "queued"]


def test_a_sampler_is_asked_once_all_trials_have_ended(bench: Bench) -> None:
    bench.submit({"seed": {"int": [0, 99]}}, strategy="tpe", trials=16)
    for _ in range(10):
        bench.end(bench.claim(), 1.0)
    bench.steer()
    bench.steer()
    with reading(bench.engine) as session:
        asked = session.scalars(select(Suggestion)).all()
    assert [(each.first, each.count) for each in asked] == [(11, 4)]


def test_a_sampler_that_fails_fails_the_sweep_for_its_reason(bench: Bench) -> None:
    bench.submit({"seed": {"int": [0, 99]}}, strategy="tpe", trials=16)
    for _ in range(10):
        bench.end(bench.claim(), 1.0)
    bench.steer()
    with writing(bench.engine) as session:
        job = life.claim(session, Suggestion, "w1", lease_s=20)
        assert job is not None
        problem = life.problem("sampler_unavailable", "It needs Optuna.")
        life.fail(session, job.id, job.attempt, problem)
    bench.steer()
    body = bench.body()
    assert (body["state"], body["error"]["code"]) == ("failed", "sampler_unavailable")


def test_no_member_starts_after_the_time_of_the_budget(bench: Bench) -> None:
    bench.submit(budget={"time_s": 60})
    run = bench.claim()
    assert run.config["budget"] == {"time_s": 60}
    bench.steer()
    with writing(bench.engine) as session:
        sweep = session.get_one(Sweep, bench.id)
        assert sweep.ends_at is not None
        sweep.ends_at = sweep.started_at
    bench.steer()
    assert bench.states() == ["running", "cancelled", "cancelled", "cancelled"]
    bench.end(run, 1.0)
    bench.steer()
    assert (bench.body()["state"], bench.body()["state_reason"]) == ("succeeded", "budget")


def test_a_member_of_an_unfinished_sweep_cannot_be_deleted(bench: Bench) -> None:
    bench.submit()
    run = bench.claim()
    bench.end(run, 1.0)
    with writing(bench.engine) as session, pytest.raises(Conflict) as caught:
        runs.delete(session, run.id)
    assert caught.value.fields["sweep"] == bench.id


def test_a_deleted_member_leaves_its_row_in_the_leaderboard(bench: Bench) -> None:
    bench.submit()
    for value in (1.0, 2.0, 3.0, 4.0):
        bench.end(bench.claim(), value)
    bench.steer()
    with writing(bench.engine) as session:
        runs.delete(session, bench.body()["leaderboard"][1]["run"])
    row = bench.body()["leaderboard"][1]
    assert (row["run"], row["value"], row["state"]) == (None, 2.0, "succeeded")


def test_a_deleted_sweep_takes_its_members_with_it(bench: Bench) -> None:
    bench.submit()
    with writing(bench.engine) as session:
        lifecycle.cancel(session, bench.id)
        lifecycle.delete(session, bench.id)
        for table in (Sweep, SweepEvent, Trial, Run):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_an_unfinished_sweep_keeps_its_dataset(bench: Bench) -> None:
    bench.submit()
    with writing(bench.engine) as session:
        session.execute(delete(Run))
        dataset = session.get_one(Sweep, bench.id).dataset_id
        assert life.users_of(session, dataset_id=dataset) == {Sweep: [bench.id]}
