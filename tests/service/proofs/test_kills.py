"""Export verifications whose processes are killed start again and end with the same verdict."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.proofs.ways import WAYS
from service.registry import versions
from service.registry.tables import Proof
from service.storage.database import reading
from tests.chaos import points
from tests.conftest import MakeDatabase
from tests.service.batch.test_kills import Arm
from tests.service.worker.workplace import Workplace, until, workplace_in
from tests.warm import Parent

pytestmark = pytest.mark.slow

ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    breakable: Parent,
) -> Iterator[tuple[Workplace, str]]:
    """Return a workplace and a dataset in it."""
    folder = tmp_path_factory.mktemp("workplace")
    # A stopping worker does not wait long for a stalled process.
    with workplace_in(make_database, request.param, folder, breakable, GRACE_S="3") as workplace:
        yield workplace, workplace.add_dataset()


@pytest.fixture
def any_database(shared: tuple[Workplace, str]) -> None:
    """Run a test once."""
    if shared[0].engine.dialect.name != "sqlite":
        pytest.skip("the database has no part in it")


@pytest.fixture(scope="module")
def undisturbed(shared: tuple[Workplace, str]) -> dict[str, Any]:
    """Return the result of an undisturbed export verification."""
    workplace, dataset = shared
    workplace.staff(2)
    return compared(ended(workplace, trained(workplace, dataset)))


@pytest.fixture
def workplace(shared: tuple[Workplace, str]) -> Workplace:
    shared[0].staff(2)
    return shared[0]


@pytest.fixture
def arm(workplace: Workplace, failpoints: Path) -> Iterator[Arm]:
    arm = Arm(failpoints)
    yield arm
    arm.clear()


def trained(workplace: Workplace, dataset: str) -> int:
    """Return the number of a new version."""
    run = workplace.wait_for(
        workplace.submit(dataset, epochs=5, split={"validation": 0.25}, register_as="line"), *ENDED
    )
    assert (run.state, run.error) == ("succeeded", None)
    assert run.model_version is not None
    return run.model_version


def proof_of(workplace: Workplace, version: int) -> Proof:
    with reading(workplace.engine) as session:
        return versions.of_versions(session, "line", [version])[version]


def ended(workplace: Workplace, version: int) -> Proof:
    until(lambda: proof_of(workplace, version).state in ENDED)
    return proof_of(workplace, version)


def compared(proof: Proof) -> dict[str, Any]:
    """Return the result of an export verification without its duration."""
    assert (proof.state, proof.error) == ("succeeded", None)
    assert proof.details is not None
    return {name: value for name, value in proof.details.items() if name != "seconds"}


@pytest.mark.parametrize("point", [*points.PROVER, *points.PROOF])
def test_a_proof_that_is_killed_is_made_again(
    shared: tuple[Workplace, str],
    workplace: Workplace,
    undisturbed: dict[str, Any],
    arm: Arm,
    point: str,
) -> None:
    is_open = point.endswith(".written")  # a transaction
    if workplace.engine.dialect.name == "postgresql" and not is_open:
        pytest.skip("the database has no part in it")
    time = 5 if point == "prover.way" else 1
    arm.order(point, f"kill {time}")
    version = trained(workplace, shared[1])
    proof = ended(workplace, version)
    until(lambda: arm.times(point) >= time)
    if point in points.PROOF:
        until(lambda: any(worker.poll() is not None for worker in workplace.workers))
    assert compared(proof) == undisturbed
    assert set(undisturbed["ways"]) == set(WAYS)
    assert (undisturbed["source"], undisturbed["rows"]) == ("held_out", 16)
    assert proof.attempt == (1 if point == "proof.compared.committed" else 2)
    scratch = workplace.folder / "scratch"
    until(lambda: list(scratch.glob("proof_*")) == [])


@pytest.mark.usefixtures("any_database")
def test_one_that_kills_its_process_again_and_again_fails_with_a_sentence(
    shared: tuple[Workplace, str], workplace: Workplace, arm: Arm
) -> None:
    arm.order("prover.begin", "kill 1")
    version = trained(workplace, shared[1])
    for _ in range(2):
        until(lambda: arm.times("prover.begin") > 0)
        arm.order("prover.begin", "kill 1")
    proof = ended(workplace, version)
    assert (proof.state, proof.attempt) == ("failed", 3)
    assert proof.error is not None
    assert (proof.error["code"], "SIGKILL" in proof.error["detail"]) == ("worker_lost", True)


@pytest.mark.usefixtures("any_database")
def test_a_full_disk_is_no_verdict(
    shared: tuple[Workplace, str], workplace: Workplace, arm: Arm
) -> None:
    arm.order("prover.way", "full 2")
    proof = ended(workplace, trained(workplace, shared[1]))
    assert (proof.state, proof.attempt, proof.crash_streak) == ("succeeded", 2, 1)


@pytest.mark.usefixtures("any_database")
def test_a_worker_told_to_stop_hands_its_proof_to_another(
    shared: tuple[Workplace, str], workplace: Workplace, arm: Arm
) -> None:
    arm.order("prover.way", "stop 3")
    version = trained(workplace, shared[1])
    until(lambda: arm.times("prover.way") >= 3)
    owner = proof_of(workplace, version).owner
    assert owner is not None
    worker = next(each for each in workplace.workers if str(each.pid) in owner.split("-"))
    worker.terminate()
    proof = ended(workplace, version)
    assert (proof.state, proof.attempt, proof.crash_streak) == ("succeeded", 2, 0)
    assert worker.wait(20) == 0
