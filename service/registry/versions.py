"""Models and their versions, the proofs of versions, and their lineage.

Finds the stored checkpoint of a version or an alias; opens none. A proof is the export verification
of a version: every way of predicting gives the same answers. It is a job like others (`jobs.life`),
made and deleted with its version. A proof that succeeded is passed; a proof that ended in any other
way is failed, also if it could not be carried out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.datasets.versions import Dataset, DatasetVersion
from service.errors import BlobCorrupt, Conflict, NotFound
from service.jobs import life
from service.jobs.kind import InputUnavailable, Site
from service.registry.tables import Alias, Model, ModelChange, ModelVersion, Proof
from service.storage import references
from service.storage.columns import SqlTable, new_id
from service.storage.database import is_postgres

RETRY_S = "1"  # seconds after which a client may try again while a proof is pending

Verdict = Literal["pending", "passed", "failed"]
#: live: the requested version; canary: answers in its place; shadow: is compared with it
Role = Literal["live", "canary", "shadow"]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Target:
    """A checkpoint that predicts, and its names in the answers."""

    #: the blob of the checkpoint
    sha256: str
    #: the names in the answers: model and version; run and checkpoint if a run predicts
    named: dict[str, Any]
    role: Role = "live"
    #: the version that gets a copy of the requests; its answers are discarded
    shadow: "Target | None" = None


def target(name: str, number: int, sha256: str) -> Target:
    return Target(sha256, {"model": name, "version": number})


# ---- making versions -----------------------------------------------------------------------------


def adopt(
    session: Session, held: references.HeldBlob, model: str, document: Mapping[str, Any]
) -> ModelVersion:
    """Publish an imported checkpoint, whose bytes this transaction keeps, as the next version.

    `document` holds `signature`, `metrics`, `config`, `parameters` and, in `imported`, the origin.
    """
    version = ModelVersion(
        model_name=model,
        sha256=held.sha256,
        bytes=held.bytes,
        **{
            name: document[name]
            for name in ("signature", "metrics", "config", "parameters", "imported")
        },
    )
    return add(session, version)


def add(session: Session, version: ModelVersion) -> ModelVersion:
    """Add a version under the next number of its model, with the job that verifies it."""
    version.version = _next_version(session, version.model_name)
    session.add(version)
    session.flush()
    submit(session, version.model_name, version.version)
    changed(session, version.model_name)
    return version


def _next_version(session: Session, model: str) -> int:
    # One statement inserts the model or increments its number, and locks the row until the
    # transaction ends: two runs that end at the same moment get different numbers.
    statement = (
        _insert(session, Model)
        .values(name=model, last_version=1)
        .on_conflict_do_update(
            index_elements=[Model.name], set_={"last_version": Model.last_version + 1}
        )
        .returning(Model.last_version)
    )
    return session.execute(statement).scalar_one()


# ---- reading -------------------------------------------------------------------------------------


def find_model(session: Session, name: str, *, lock: bool = False) -> Model:
    """Return a model; with `lock`, other writers of its versions and aliases wait."""
    query = select(Model).where(Model.name == name)
    model = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if model is None:
        raise NotFound(f"There is no model {name!r}.")
    return model


def find_version(session: Session, name: str, number: int) -> ModelVersion:
    version = session.get(ModelVersion, (name, number))
    if version is None:
        raise _no_version(session, name, number)
    return version


def version_of_checkpoint(session: Session, checkpoint_id: str) -> ModelVersion | None:
    """Return a version of this checkpoint, of any model."""
    query = select(ModelVersion).where(ModelVersion.checkpoint_id == checkpoint_id).limit(1)
    return session.scalars(query).one_or_none()


def find_alias(session: Session, name: str, alias: str) -> Alias:
    found = session.get(Alias, (name, alias))
    if found is None:
        find_model(session, name)
        raise NotFound(f"The model {name!r} has no alias {alias!r}.")
    return found


def version_numbers(session: Session, name: str) -> list[int]:
    """Return the numbers of all versions of a model, oldest first."""
    query = select(ModelVersion.version).where(ModelVersion.model_name == name)
    return list(session.scalars(query.order_by(ModelVersion.version)))


def newest_versions(session: Session, names: list[str]) -> dict[str, int]:
    """Return the latest version of each of these models that has any."""
    # One search in the index for each model, because GROUP BY would read all their versions.
    newest = select(func.max(ModelVersion.version)).where(ModelVersion.model_name == Model.name)
    query = select(Model.name, newest.scalar_subquery()).where(Model.name.in_(names))
    return {name: version for name, version in session.execute(query) if version is not None}


def aliases_of(session: Session, names: list[str]) -> dict[str, dict[str, int]]:
    """Return for each of these models its aliases and the versions that they point to."""
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    query = select(Alias).where(Alias.model_name.in_(names))
    query = query.order_by(Alias.model_name, Alias.alias)  # the order of the primary key
    for alias in session.scalars(query):
        found[alias.model_name][alias.alias] = alias.version
    return found


# ---- targets of predictions ----------------------------------------------------------------------


def target_of_model(session: Session, name: str) -> Target:
    """Return the latest version of a model."""
    query = (
        select(ModelVersion.version, ModelVersion.sha256)
        .where(ModelVersion.model_name == name)
        .order_by(ModelVersion.version.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        find_model(session, name)
        raise NotFound(f"The model {name!r} has no version: train a run with register_as.")
    return target(name, row.version, row.sha256)


def target_of_version(session: Session, name: str, number: int) -> Target:
    query = select(ModelVersion.sha256).where(
        ModelVersion.model_name == name, ModelVersion.version == number
    )
    sha256 = session.scalar(query)
    if sha256 is None:
        raise _no_version(session, name, number)
    return target(name, number, sha256)


def target_of_alias(session: Session, name: str, alias: str) -> Target:
    return target_of_version(session, name, find_alias(session, name, alias).version)


class ModelUnavailable(InputUnavailable):
    """The stored model is damaged: predict with another model or train again."""

    code = "checkpoint_corrupt"


def fetch_model(site: Site, sha256: str, scratch: Path) -> Path:
    """Return the checkpoint of a version as a local file. Raises ModelUnavailable."""
    try:
        return site.blobs.fetch(sha256, scratch)
    except BlobCorrupt as error:
        logger.error("checkpoint_corrupt", reason=str(error))  # noqa: TRY400  the reason is enough
        raise ModelUnavailable from error


# ---- proofs --------------------------------------------------------------------------------------


def submit(session: Session, model: str, version: int) -> Proof:
    """Queue the proof of a version that this transaction adds."""
    proof = Proof(id=new_id("proof"), model_name=model, model_version=version)
    return life.enqueue(session, proof)


def of_versions(session: Session, model: str, numbers: Collection[int]) -> dict[int, Proof]:
    """Return the proofs of these versions of a model, by number."""
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
        found_verdict = verdict(proof)
        if found_verdict == "passed":
            continue
        version = f"version {number} of {model!r}"
        detail = (
            f"The export of {version} is not verified yet: try again in a moment. The verification"
            " needs a running worker."
        )
        if found_verdict == "failed":
            reason = proof.error["detail"] if proof and proof.error else ""
            detail = (
                f"The export verification of {version} has failed, so no alias may point to it."
                f" {reason} To verify it again, register its checkpoint or import its bundle again."
            )
        headers = {"Retry-After": RETRY_S} if found_verdict == "pending" else None
        raise Conflict(
            detail, code="proof_not_passed", headers=headers, version=number, proof=found_verdict
        )


# ---- lineage -------------------------------------------------------------------------------------


def training_of(session: Session, row: ModelVersion) -> dict[str, Any]:
    """Return the run, the dataset and the configuration of a version as JSON."""
    return {
        "model": row.model_name,
        "version": row.version,
        "created_at": row.created_at.isoformat(),
        "config": row.config,
        "metrics": row.metrics,
        "parameters": row.parameters,
        **(_origin(session, row) if row.imported is None else _former(row.imported)),
    }


def _origin(session: Session, row: ModelVersion) -> dict[str, Any]:
    if row.dataset_id is None:
        return {"run": row.run_id, "dataset": None}
    dataset = session.get(Dataset, row.dataset_id)
    read = session.get(DatasetVersion, (row.dataset_id, row.dataset_version))
    source = {
        "id": row.dataset_id,
        "version": row.dataset_version,
        "name": dataset and dataset.name,
        "rows": read and read.rows,
        "sha256": dataset and dataset.sha256,
    }
    return {"run": row.run_id, "dataset": source}


def _former(imported: Mapping[str, Any]) -> dict[str, Any]:
    """Return the earlier origin of an imported model."""
    return {"run": imported.get("run"), "dataset": imported.get("dataset")}


# ---- deleting ------------------------------------------------------------------------------------


def unregister(session: Session, name: str, number: int) -> None:
    """Delete a version that no alias names. Its number is never used again."""
    find_model(session, name, lock=True)
    find_version(session, name, number)
    aliases = list(
        session.scalars(
            select(Alias.alias)
            .where(Alias.model_name == name, _names(number))
            .order_by(Alias.alias)
        )
    )
    if aliases:
        raise Conflict(
            f"Version {number} of {name!r} is in use by the alias {', '.join(aliases)}: "
            "move or delete the alias first.",
            code="in_use",
            aliases=aliases,
        )
    _check_unused(session, model_name=name, model_version=number)
    session.execute(
        delete(ModelVersion).where(ModelVersion.model_name == name, ModelVersion.version == number)
    )
    changed(session, name)


def unregister_model(session: Session, name: str) -> None:
    """Delete a model with its versions and aliases."""
    find_model(session, name, lock=True)
    _check_unused(session, model_name=name)
    session.execute(delete(Alias).where(Alias.model_name == name))
    session.execute(delete(ModelVersion).where(ModelVersion.model_name == name))
    session.execute(delete(Model).where(Model.name == name))
    changed(session, name)


def _check_unused(session: Session, **reads: str | int) -> None:
    """Raise Conflict if an unfinished job reads the model, or this version of it."""
    if users := life.users_of(session, **reads):
        raise life.in_use(users, "it")


# ---- changes of models ---------------------------------------------------------------------------


def changed(session: Session, name: str) -> None:
    """Make every process read this model again. Each transaction that changes a model calls this.

    The row with an empty name is a global lock: writers commit one at a time, so revisions become
    visible in order.
    """
    revision = _counted_up(session)
    session.execute(
        _insert(session, ModelChange)
        .values(model_name=name, revision=revision)
        .on_conflict_do_update(index_elements=[ModelChange.model_name], set_={"revision": revision})
    )


def _counted_up(session: Session) -> int:
    statement = (
        _insert(session, ModelChange)
        .values(model_name="", revision=1)
        .on_conflict_do_update(
            index_elements=[ModelChange.model_name], set_={"revision": ModelChange.revision + 1}
        )
        .returning(ModelChange.revision)
    )
    return session.execute(statement).scalar_one()


# ---- private -------------------------------------------------------------------------------------


def _names(number: int) -> ColumnElement[bool]:
    """Return the condition that an alias points to this version."""
    columns = (Alias.version, Alias.canary_version, Alias.shadow_version)
    return or_(*(column == number for column in columns))


def _insert(session: Session, table: type[SqlTable]) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if is_postgres(session) else sqlite.insert(table)


def _no_version(session: Session, name: str, number: int) -> NotFound:
    find_model(session, name)
    return NotFound(f"The model {name!r} has no version {number}.")
