"""Real workers and damaged stored bytes, on both kinds of store."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from service.datasets.versions import DatasetVersion
from service.jobs import events
from service.predict.directory import Predictors
from service.registry.serving import ModelDamaged
from service.runs import lifecycle
from service.runs.tables import Checkpoint, Event
from service.storage.database import reading, writing
from service.storage.references import collect
from tests.conftest import MakeDatabase, MakePlace
from tests.service.worker.workplace import Workplace, until, workplace_in
from tests.storage import KINDS, Place
from tests.warm import Parent

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"epochs": 3_000, "batch_size": 16}  # long enough to be paused


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    make_place: MakePlace,
    warm: Parent,
) -> Iterator[tuple[Workplace, Place]]:
    """Return a workplace for all tests of this file, and its blobs."""
    folder = tmp_path_factory.mktemp("workplace")
    place = make_place(request.param, folder)
    # The slowest engine, so that trainings last until they are paused.
    settings = {"CHECKPOINT_S": "0.2", "ENGINE": "autograd"}
    found = workplace_in(make_database, "sqlite", folder, warm, blob_url=place.url, **settings)
    with found as workplace:
        yield workplace, place


@pytest.fixture
def workplace(shared: tuple[Workplace, Place]) -> Workplace:
    shared[0].staff(1)
    return shared[0]


@pytest.fixture
def place(shared: tuple[Workplace, Place]) -> Place:
    return shared[1]


def ask(workplace: Workplace, run_id: str, verb: str) -> None:
    with writing(workplace.engine) as session:
        getattr(lifecycle, verb)(session, run_id)


def checkpoints(workplace: Workplace, run_id: str) -> list[Checkpoint]:
    """Return the checkpoints of a run, the newest first."""
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    with reading(workplace.engine) as session:
        return list(session.scalars(query.order_by(Checkpoint.step.desc())))


def flip_a_bit(place: Place, sha256: str) -> None:
    content = bytearray(place.read(sha256))
    content[len(content) // 2] ^= 1
    place.write(sha256, bytes(content))


def paused(workplace: Workplace) -> str:
    """Return a paused run with several checkpoints."""
    run_id = workplace.submit(workplace.add_dataset(), **LONG)
    until(lambda: workplace.run(run_id).resume_checkpoint_id is not None)
    ask(workplace, run_id, "pause")
    workplace.wait_for(run_id, "paused")
    assert len(checkpoints(workplace, run_id)) >= 2
    return run_id


def values(workplace: Workplace, run_id: str) -> list[tuple[int, str, str, float]]:
    return [(r["seq"], r["split"], r["name"], r["value"]) for r in workplace.curve(run_id)]


def lines(workplace: Workplace, run_id: str) -> list[str]:
    with reading(workplace.engine) as session:
        return [event.data["line"] for event in events.of_kind(session, Event, run_id, "log")]


def test_a_flipped_bit_costs_one_checkpoint_and_changes_no_result(
    workplace: Workplace, place: Place
) -> None:
    run_id = paused(workplace)
    newest, older = checkpoints(workplace, run_id)[:2]
    flip_a_bit(place, newest.sha256)
    ask(workplace, run_id, "resume")
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert (run.state, run.attempt) == ("succeeded", 2)
    (line,) = lines(workplace, run_id)
    assert newest.id in line
    assert f"goes on from step {older.step}" in line
    assert "checkpoint_corrupt" in [warning["code"] for warning in run.warnings]
    undisturbed = workplace.submit(run.dataset_id, **LONG)
    workplace.wait_for(undisturbed, "succeeded")
    assert values(workplace, run_id) == values(workplace, undisturbed)


def test_when_all_checkpoints_are_damaged_the_run_begins_anew(
    workplace: Workplace, place: Place
) -> None:
    run_id = paused(workplace)
    found = checkpoints(workplace, run_id)
    for checkpoint in found:
        flip_a_bit(place, checkpoint.sha256)
    ask(workplace, run_id, "resume")
    run = workplace.wait_for(run_id, "succeeded", "failed")
    assert run.state == "succeeded"
    told = lines(workplace, run_id)
    assert len(told) == len(found)
    assert "starts from the beginning" in told[-1]
    curve = values(workplace, run_id)
    assert [row[0] for row in curve] == list(range(1, len(curve) + 1))


def test_a_damaged_table_fails_the_run_and_says_why(workplace: Workplace, place: Place) -> None:
    dataset = workplace.add_dataset(rows=65)
    with reading(workplace.engine) as session:
        table = session.get_one(DatasetVersion, (dataset, 1)).table_sha256
    assert table is not None
    flip_a_bit(place, table)
    run = workplace.wait_for(workplace.submit(dataset, epochs=5), "succeeded", "failed")
    assert run.state == "failed"
    assert run.error is not None
    assert run.error["code"] == "dataset_unavailable"


def test_a_damaged_checkpoint_predicts_nothing(workplace: Workplace, place: Place) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=20)
    run = workplace.wait_for(run_id, "succeeded")
    best = next(c for c in checkpoints(workplace, run_id) if c.id == run.best_checkpoint_id)
    predictors = Predictors(place.open())
    flip_a_bit(place, best.sha256)
    with pytest.raises(ModelDamaged):
        predictors.get(best.sha256)


def test_a_worker_frees_old_checkpoints_and_those_of_a_deleted_run(
    workplace: Workplace, place: Place
) -> None:
    run_id = workplace.submit(workplace.add_dataset(rows=66), epochs=2_000, register_as="kept")
    run = workplace.wait_for(run_id, "succeeded")
    left = {checkpoint.sha256 for checkpoint in checkpoints(workplace, run_id)}
    others = {c.sha256 for c in all_checkpoints(workplace)} | tables(workplace)
    until(lambda: place.names() <= left | others)
    assert left <= place.names()
    best = next(c for c in checkpoints(workplace, run_id) if c.id == run.best_checkpoint_id)
    ask(workplace, run_id, "delete")
    until(lambda: not (left - {best.sha256}) & place.names())
    assert best.sha256 in place.names(), "the model needs it"
    assert collect(workplace.engine, place.open()) == []


def all_checkpoints(workplace: Workplace) -> list[Checkpoint]:
    with reading(workplace.engine) as session:
        return list(session.scalars(select(Checkpoint)))


def tables(workplace: Workplace) -> set[str]:
    with reading(workplace.engine) as session:
        return set(session.scalars(select(DatasetVersion.table_sha256)))
