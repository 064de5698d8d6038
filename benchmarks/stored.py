"""Untrained models of 8-64-64-1 in a fresh data folder, stored as training stores them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from models.data import Table
from models.features.encoding import Features
from service.access import keys
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database, migrate, writing
from tests.service import trained

COLUMNS = [f"column_{number}" for number in range(1, 9)]
WIDTHS = (8, 64, 64, 1)
TRAINING_ROWS = 1000


@contextmanager
def database(data_dir: Path) -> Iterator[Engine]:
    """Create the database of a service in this folder."""
    data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_database(f"sqlite:///{data_dir}/descent.sqlite3")
    migrate(engine)
    yield engine
    engine.dispose()


def publish(engine: Engine, data_dir: Path, names: Sequence[str]) -> list[str]:
    """Publish a different net under each name; return the SHA-256 of their checkpoints."""
    blobs = LocalBlobs(data_dir / "blobs")
    found = []
    for number, name in enumerate(names):
        run = trained.store(engine, blobs, data_dir, checkpoint_of(number))
        trained.publish(engine, run, name)
        found.append(run.sha256)
    return found


def new_key(engine: Engine) -> str:
    with writing(engine) as session:
        _key, secret = keys.create(session, "benchmark")
    return secret


def checkpoint_of(seed: int, widths: Sequence[int] = WIDTHS) -> dict[str, dict[str, object]]:
    """Return the tensors and the document of a net with random weights."""
    source = np.random.default_rng(seed)
    names = [f"column_{number}" for number in range(1, widths[0] + 1)]
    columns = {name: source.normal(size=TRAINING_ROWS) for name in [*names, "y"]}
    table = Table(dict.fromkeys(columns, "number"), columns, TRAINING_ROWS)
    features = Features.fit(
        table,
        np.arange(TRAINING_ROWS),
        features=names,
        targets=["y"],
        task="regression",
        standardize=True,
    )
    layers: list[object] = []
    tensors = {}
    for width, following in pairwise(widths):
        weight = source.normal(size=(following, width)) / np.sqrt(width)
        tensors[f"net.{len(layers)}.weight"] = weight.astype(np.float32)
        tensors[f"net.{len(layers)}.bias"] = np.zeros(following, np.float32)
        layers += [{"linear": following}, "relu"]
    net = {"inputs": widths[0], "outputs": widths[-1], "layers": layers[:-1]}
    return {"tensors": tensors, "document": {"features": features.to_json(), "net": net}}
