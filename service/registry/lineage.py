"""The origin of a version, for its exported files and its proofs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.datasets.tables import Dataset, DatasetVersion
from service.registry.tables import ModelVersion


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
