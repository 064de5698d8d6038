"""A model trained on every kind of column, and its verification job, without a service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from descent.spec import ColumnType
from models import checkpoint
from models.data import read_table
from models.predict.predictor import Predictor
from models.predict.reference import Reference
from service.proofs.messages import ProofJob, StoredTable
from service.proofs.prove import prove
from service.proofs.ways import WAYS, Sample, Subject, Way, read_sample
from tests.models.samples import learn

ROWS = 80
TYPES: dict[str, ColumnType] = {
    "size": "number",
    "count": "integer",
    "is new": "boolean",
    "sold": "datetime",
    "größe, port": "category",
    "price": "number",
    "cost": "number",
    "kind": "category",
    "part": "category",
}
FEATURES = ["size", "count", "is new", "sold", "größe, port"]
PORTS = ["S", "a,b", 'q"uote', "two\nlines", "=1+1", " NA ", "💥", "true", "3"]
CONFIG: dict[str, Any] = {
    "dataset": "ds_1",
    "target": "price",
    "features": FEATURES,
    "task": "regression",
    "loss": "mse",
    "model": {"type": "mlp", "hidden": [8]},
    "epochs": 3,
    "split": {"validation": 0.2, "test": 0.1},
}
CLASSES: dict[str, Any] = {"target": "kind", "task": "multiclass", "loss": "cross_entropy"}
SAYS = {
    "model": "houses",
    "version": 1,
    "created_at": "2025-01-01T00:00:00+00:00",
    "run": None,
    "dataset": None,
    "config": {},
    "metrics": {},
}


def houses(**others: list[Any]) -> dict[str, list[Any]]:
    """Return rows of every kind of column, with a gap in some of them."""
    random = np.random.default_rng(5)
    size = random.uniform(20, 200, ROWS)
    first = datetime(2020, 1, 1, tzinfo=UTC)
    columns: dict[str, list[Any]] = {
        "size": size.tolist(),
        "count": random.integers(-3, 9, ROWS).tolist(),
        "is new": (random.random(ROWS) < 0.5).tolist(),
        "sold": [first + timedelta(seconds=float(s)) for s in random.uniform(0, 9e7, ROWS)],
        "größe, port": [PORTS[place] for place in random.integers(0, len(PORTS), ROWS)],
        "price": (3 * size + random.normal(0, 9, ROWS)).tolist(),
        "cost": (1e6 - size).tolist(),
        "kind": [["=no", "a,b", "yes"][int(value) % 3] for value in size],
        "part": [["train", "train", "validation"][place % 3] for place in range(ROWS)],
    }
    for name in FEATURES:
        for place in random.choice(ROWS, 8, replace=False):
            columns[name][place] = None
    return columns | others


@dataclass(frozen=True)
class Proved:
    """A trained model, and the input of its export verification."""

    job: ProofJob

    @property
    def predictor(self) -> Predictor:
        return Predictor.load(self.job.model)

    def sample(self, **others: Any) -> Sample:
        """Return the sample of the verification; `others` replace fields of the job."""
        job = self.job.model_copy(update=others)
        predictor = Predictor.load(job.model)
        return read_sample(job, predictor, Reference.of(predictor.model))

    def prove(
        self, ways: Mapping[str, Way] = WAYS, **others: Any
    ) -> tuple[dict[str, Any], str | None]:
        """Compare the answers of these ways with the predictions of training."""
        path = self.job.model_copy(update=others).model
        subject = Subject(Predictor.load(path), path, SAYS, self.job.scratch)
        return prove(subject, self.sample(**others), ways, lambda: None)

    def with_document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return new fields of the job: the same tensors with another document."""
        tensors, _own = checkpoint.read(self.job.model)
        path = self.job.scratch / "other.safetensors"
        checkpoint.write(path, tensors, document)
        return {"model": path}


def train(folder: Path, columns: dict[str, list[Any]] | None = None, **config: Any) -> Proved:
    """Train on rows in a file, as a run does."""
    asked = CONFIG | config
    path = folder / "table.parquet"
    pq.write_table(pa.table(houses() if columns is None else columns), path, row_group_size=33)
    outcome = learn(read_table(path, TYPES, list(TYPES)), folder / "run", asked)
    if outcome.error:
        raise outcome.error
    (folder / "scratch").mkdir()
    return Proved(
        ProofJob(
            run_id="proof_1",
            attempt=1,
            model=outcome.saved[-1].path,
            config=asked,
            training=SAYS,
            table=StoredTable(path=path, types=TYPES),
            scratch=folder / "scratch",
        )
    )
