"""Versions of models as bodies of responses."""

from descent import schemas
from service.registry.proofs import verdict
from service.registry.tables import ModelVersion, Proof


def version_body(
    row: ModelVersion, aliases: dict[str, int], proof: Proof | None
) -> schemas.ModelVersion:
    """Return the body of a version; `aliases` are those of its model."""
    is_trained_here = row.dataset_id is not None and row.dataset_version is not None
    return schemas.ModelVersion(
        model=row.model_name,
        version=row.version,
        aliases=[alias for alias, version in aliases.items() if version == row.version],
        run_id=row.run_id,
        checkpoint_id=row.checkpoint_id,
        dataset=schemas.DatasetVersionRef(id=row.dataset_id, version=row.dataset_version)
        if is_trained_here
        else None,
        imported=None if row.imported is None else schemas.Imported.model_validate(row.imported),
        config=row.config,
        signature=schemas.Signature.model_validate(row.signature),
        metrics={name: value for name, value in row.metrics.items() if name != "importance"},
        importance=row.metrics.get("importance"),
        bytes=row.bytes,
        sha256=row.sha256,
        proof=verdict(proof),
        proof_details=_details(proof),
        proof_error=proof and proof.error,
        created_at=row.created_at,
    )


def _details(proof: Proof | None) -> schemas.ProofDetails | None:
    if proof is None or proof.details is None:
        return None
    return schemas.ProofDetails.model_validate(proof.details | {"finished_at": proof.finished_at})
