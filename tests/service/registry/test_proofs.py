"""The export verification of a version in the database: created, fenced and deleted with it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from service.errors import Conflict, Fenced
from service.jobs import life, queue
from service.jobs.kind import Tenure
from service.proofs.kind import PROOFS
from service.proofs.messages import Compared
from service.registry import aliases, versions
from service.registry.aliases import Pointer, Pointing
from service.registry.tables import Alias, Proof
from service.registry.versions import verdict
from service.runs import lifecycle
from service.storage.database import reading, writing
from tests.service import trained
from tests.service.trained import Trained

pytestmark = pytest.mark.both_databases

LEASE = 20.0
DETAILS: dict[str, Any] = {
    "rows": 13,
    "source": "training",
    "ways": {"csv": 0.5},
    "largest": 0.5,
    "tolerance": 1e-5,
    "seconds": 0.1,
}
WRONG = life.problem("proof_failed", "By csv row 2 of the dataset is answered 1: 0.5 apart.")
CHAMPION = Pointer("scores", "champion")


@pytest.fixture
def pending(engine: Engine, scores: Trained) -> int:
    """The number of a pending version of `scores`; version 1 is verified."""
    return trained.publish(engine, scores, "scores", is_proved=False)


def claimed(session: Session, owner: str = "w1", now: float = 0.0) -> Proof:
    proof = queue.claim(session, Proof, owner, lease_s=LEASE, now=now)
    assert proof is not None
    return proof


def end(engine: Engine, problem: dict[str, Any] | None) -> None:
    with writing(engine) as session:
        proof = claimed(session)
        conclude(session, proof.id, proof.attempt, problem)


def conclude(session: Session, proof_id: str, attempt: int, problem: dict[str, Any] | None) -> None:
    compared = Compared(details=DETAILS, failure=problem and problem["detail"])
    PROOFS.write(session, Tenure(proof_id, attempt), compared, None)


def all_proofs(engine: Engine) -> list[list[str]]:
    with reading(engine) as session:
        return [sorted(map(str, session.execute(select(*Proof.__table__.c))))]


def point(engine: Engine, version: int, **others: Any) -> None:
    with writing(engine) as session:
        aliases.point(session, CHAMPION, Pointing(version, **others), lambda _found: None)


def refusal(engine: Engine, version: int, **others: Any) -> Conflict:
    with pytest.raises(Conflict) as refused:
        point(engine, version, **others)
    assert refused.value.code == "proof_not_passed"
    return refused.value


# ---- the life cycle ------------------------------------------------------------------------------


def test_a_proof_is_made_in_the_transaction_that_makes_the_version(
    engine: Engine, scores: Trained
) -> None:
    before = all_proofs(engine)
    with Session(engine) as session:  # the transaction is not committed
        run = lifecycle.get(session, scores.run_id)
        stored = lifecycle.find_checkpoint(session, run, scores.checkpoint_id)
        made = lifecycle.register(session, run, stored, "scores", {"signature": {}})
        found = versions.of_versions(session, "scores", [made.version])
        assert verdict(found[made.version]) == "pending"
    assert all_proofs(engine) == before


def test_a_comparison_ends_a_proof_and_is_kept(engine: Engine, pending: int) -> None:
    end(engine, None)
    with reading(engine) as session:
        proof = versions.of_versions(session, "scores", [pending])[pending]
        assert (verdict(proof), proof.details, proof.error) == ("passed", DETAILS, None)
        assert versions.pending(session, "scores", [1, pending]) is None


def test_a_difference_ends_it_with_a_sentence(engine: Engine, pending: int) -> None:
    end(engine, WRONG)
    with reading(engine) as session:
        proof = versions.of_versions(session, "scores", [pending])[pending]
        assert (verdict(proof), proof.details, proof.error) == ("failed", DETAILS, WRONG)


def test_one_that_kills_its_process_thrice_fails(engine: Engine, pending: int) -> None:
    for now in (0.0, 100.0, 200.0):
        with writing(engine) as session:
            proof = claimed(session, now=now)
            life.crashed(session, proof.id, proof.attempt, "killed by SIGSEGV", now=now)
    with reading(engine) as session:
        proof = versions.of_versions(session, "scores", [pending])[pending]
        assert (verdict(proof), proof.attempt) == ("failed", 3)
        assert proof.error is not None
        assert "SIGSEGV" in proof.error["detail"]


def test_one_whose_worker_is_gone_is_made_by_another(engine: Engine, pending: int) -> None:
    with writing(engine) as session:
        proof = claimed(session)
        assert life.rescue(session, proof.id, 1, now=LEASE + 1)
        assert verdict(versions.of_versions(session, "scores", [pending])[pending]) == "pending"
        assert claimed(session, "w2", now=LEASE + 2).attempt == 2


STALE: dict[str, Callable[[Session, str], object]] = {
    "a pass": lambda s, proof: conclude(s, proof, 1, None),
    "a failure": lambda s, proof: conclude(s, proof, 1, WRONG),
    "an error": lambda s, proof: life.fail(s, proof, 1, WRONG),
    "a stop": lambda s, proof: life.stopped(s, proof, 1),
    "a crash": lambda s, proof: life.crashed(s, proof, 1, "x"),
}


@pytest.mark.parametrize("what", STALE)
def test_a_late_write_is_refused_and_changes_nothing(
    engine: Engine, pending: int, what: str
) -> None:
    with writing(engine) as session:
        proof = claimed(session)
        life.rescue(session, proof.id, 1, now=LEASE + 1)
        claimed(session, "w2", now=LEASE + 2)
    before = all_proofs(engine)
    with pytest.raises(Fenced), writing(engine) as session:
        STALE[what](session, proof.id)
    assert all_proofs(engine) == before


def test_a_verdict_stands(engine: Engine, pending: int) -> None:
    end(engine, WRONG)
    with reading(engine) as session:
        proof = versions.of_versions(session, "scores", [pending])[pending]
    with pytest.raises(Fenced), writing(engine) as session:
        conclude(session, proof.id, 1, None)


@pytest.mark.parametrize("is_begun", [False, True])
def test_it_goes_with_its_version(engine: Engine, pending: int, *, is_begun: bool) -> None:
    with writing(engine) as session:
        proof = claimed(session) if is_begun else versions.pending(session, "scores", [pending])
        assert proof is not None
        versions.unregister(session, "scores", pending)
    with reading(engine) as session:
        assert session.get(Proof, proof.id) is None
        assert queue.states(session, {proof.id: 1}) == {}
    with pytest.raises(Fenced), writing(engine) as session:
        conclude(session, proof.id, 1, None)


def test_it_goes_with_its_model(engine: Engine, pending: int) -> None:
    with writing(engine) as session:
        claimed(session)
        versions.unregister_model(session, "scores")
    assert all_proofs(engine) == [[]]


# ---- aliases -------------------------------------------------------------------------------------


def test_an_alias_points_to_what_has_passed(engine: Engine, pending: int) -> None:
    end(engine, None)
    point(engine, pending)
    with reading(engine) as session:
        assert session.get_one(Alias, CHAMPION).version == pending


def test_no_alias_points_to_what_is_not_proved_yet(engine: Engine, pending: int) -> None:
    refused = refusal(engine, pending)
    assert (refused.fields["proof"], refused.fields["version"]) == ("pending", pending)
    assert refused.headers == {"Retry-After": "1"}
    with reading(engine) as session:
        assert session.get(Alias, CHAMPION) is None


def test_no_alias_points_to_what_has_failed(engine: Engine, pending: int) -> None:
    end(engine, WRONG)
    refused = refusal(engine, pending)
    assert (refused.fields["proof"], refused.headers) == ("failed", {})
    assert WRONG["detail"] in refused.detail


def test_a_canary_must_be_proved_and_a_shadow_need_not(engine: Engine, pending: int) -> None:
    share = {"canary_version": pending, "canary_percent": 5.0}
    assert refusal(engine, 1, **share).fields["version"] == pending
    point(engine, 1, shadow_version=pending)
    end(engine, WRONG)
    assert refusal(engine, 1, **share).fields["proof"] == "failed"
    point(engine, 1, shadow_version=pending)


def test_a_shadow_that_is_not_proved_is_no_champion(engine: Engine, pending: int) -> None:
    point(engine, 1, shadow_version=pending)
    assert refusal(engine, pending, shadow_version=1).fields["version"] == pending
    with reading(engine) as session:
        assert session.get_one(Alias, CHAMPION).version == 1


def test_a_rollback_goes_to_no_version_that_is_not_proved(
    engine: Engine, scores: Trained, pending: int
) -> None:
    end(engine, None)
    point(engine, pending)
    point(engine, 1)
    with writing(engine) as session:  # as after a restore of an older database
        versions.of_versions(session, "scores", [pending])[pending].state = "failed"
    with pytest.raises(Conflict) as refused, writing(engine) as session:
        aliases.rollback(session, CHAMPION, pending, lambda _found: None)
    assert refused.value.code == "proof_not_passed"
