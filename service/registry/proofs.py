"""The export verification ("proof") of a version: every way of predicting gives the same answers.

A job like others (`jobs.life`), made and deleted with its version. A proof that succeeded is
passed; one that ended otherwise is failed, also if it could not be carried out.
"""

from collections.abc import Collection
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import Conflict
from service.ids import new_id
from service.jobs import life
from service.registry.tables import Proof

Verdict = Literal["pending", "passed", "failed"]

RETRY_S = "1"  # seconds after which a caller may ask for a pending proof again


def submit(session: Session, model: str, version: int) -> Proof:
    """Queue the proof of a version that this transaction makes."""
    proof = Proof(id=new_id("proof"), model_name=model, model_version=version)
    return life.enqueue(session, proof)


def of_versions(session: Session, model: str, numbers: Collection[int]) -> dict[int, Proof]:
    """Return the proofs of these versions of a model by their numbers."""
    query = select(Proof).where(Proof.model_name == model, Proof.model_version.in_(numbers))
    return {proof.model_version: proof for proof in session.scalars(query)}


def verdict(proof: Proof | None) -> Verdict:
    if proof is None or proof.state not in life.TERMINAL:
        return "pending"
    return "passed" if proof.state == "succeeded" else "failed"


def pending(session: Session, model: str, numbers: Collection[int]) -> Proof | None:
    """Return a proof of one of these versions that has not ended."""
    found = of_versions(session, model, numbers).values()
    return next((proof for proof in found if verdict(proof) == "pending"), None)


def check_passed(session: Session, model: str, numbers: Collection[int]) -> None:
    """Raise Conflict if one of these versions is not verified."""
    found = of_versions(session, model, numbers)
    for number in sorted(numbers):
        proof = found.get(number)
        said = verdict(proof)
        if said == "passed":
            continue
        version = f"version {number} of {model!r}"
        detail = (
            f"It is not proved yet that {version} answers the same whichever way it is asked: try"
            " again in a moment. A worker has to run."
        )
        if said == "failed":
            why = proof.error["detail"] if proof and proof.error else ""
            detail = (
                f"The proof of {version} has failed, so no alias may point to it. {why} To have it"
                " proved once more, register its checkpoint, or import its bundle, again."
            )
        headers = {"Retry-After": RETRY_S} if said == "pending" else None
        raise Conflict(detail, code="proof_not_passed", headers=headers, version=number, proof=said)
