"""Small trained nets for these tests, written without torch, and the runs that produced them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from models import checkpoint
from models.data import Categories, Table
from models.features.encoding import Features
from models.predict.intervals import Calibration, to_json
from service.registry import versions
from service.runs import lifecycle
from service.runs.tables import Checkpoint
from service.storage.blobs import BlobStore
from service.storage.columns import new_id
from service.storage.database import writing
from tests.service.rows import add_run

QUIZ = [2.5, 5.0, 7.5, 10.0, 12.5]
ROWS = np.arange(len(QUIZ))
SCORES_PARAMETERS = {
    "weights": {"Quiz": 1.25},
    "bias": 0.5,
    "sse": 0.0,
    "closed_form": {"weights": {"Quiz": 1.25}, "bias": 0.5, "sse": 0.0},
}


@dataclass(frozen=True)
class Trained:
    """A run in the database whose best checkpoint is in the store."""

    run_id: str
    checkpoint_id: str
    sha256: str


#: stores the rows and files of a succeeded run
Store = Callable[[dict[str, Any]], Trained]


def scores() -> dict[str, Any]:
    """`Final = 1.25 · Quiz + 0.5`."""
    table = Table(
        types={"Quiz": "number", "Final": "number"},
        columns={"Quiz": np.array(QUIZ), "Final": 1.25 * np.array(QUIZ) + 0.5},
        rows=len(QUIZ),
    )
    features = Features.fit(
        table, ROWS, features=["Quiz"], targets=["Final"], task="regression", standardize=False
    )
    return saved(features, [[1.25]], [0.5])


def numbers(names: list[str]) -> Features:
    """Return the preprocessing of these columns of numbers between -1 and 1, to predict `y`."""
    values = np.linspace(-1, 1, len(QUIZ))
    table = Table(
        types=dict.fromkeys([*names, "y"], "number"),
        columns={name: values.copy() for name in [*names, "y"]},
        rows=len(QUIZ),
    )
    return Features.fit(
        table, ROWS, features=names, targets=["y"], task="regression", standardize=True
    )


def steep() -> dict[str, Any]:
    """`Final = 1e36 · Quiz`, which float32 cannot hold for a thousand points."""
    flat = scores()
    flat["tensors"]["net.0.weight"] *= np.float32(8e35)
    return flat


def large() -> dict[str, Any]:
    """A net of half a million parameters that predicts `Final` from `Quiz`."""
    width, random = 700, np.random.default_rng(0)
    found = scores()
    shapes = {"0": (width, 1), "2": (width, width), "4": (1, width)}
    found["tensors"] = {
        f"net.{place}.{name}": random.normal(size=size).astype(np.float32) / width
        for place, shape in shapes.items()
        for name, size in (("weight", shape), ("bias", shape[:1]))
    }
    layers = [{"linear": width}, "relu", {"linear": width}, "tanh", {"linear": 1}]
    found["document"]["net"]["layers"] = layers
    return found


def steeper() -> dict[str, Any]:
    """`Final = 2 · Quiz`, from the same columns as `scores`."""
    found = scores()
    found["tensors"]["net.0.weight"] = np.array([[2.0]], dtype=np.float32)
    found["tensors"]["net.0.bias"] = np.array([0.0], dtype=np.float32)
    return found


def both() -> dict[str, Any]:
    """`A = Quiz` and `B = 2 · Quiz`."""
    quiz = np.array(QUIZ)
    table = Table(
        types={"Quiz": "number", "A": "number", "B": "number"},
        columns={"Quiz": quiz, "A": quiz, "B": 2 * quiz},
        rows=len(QUIZ),
    )
    features = Features.fit(
        table, ROWS, features=["Quiz"], targets=["A", "B"], task="regression", standardize=False
    )
    return saved(features, [[1.0], [2.0]], [0.0, 0.0])


def boats() -> dict[str, Any]:
    """Whether a passenger of some age from some port survived; one class is called `=no`."""
    table = Table(
        types={"Age": "number", "Port": "category", "Survived": "category"},
        columns={
            "Age": np.array([22.0, 38.0, np.nan, 35.0, 54.0]),
            "Port": Categories(
                np.array([0, 1, 0, 2, 0], dtype=np.int32), ["Southampton", "Cherbourg", "NA"]
            ),
            "Survived": Categories(np.array([0, 1, 1, 1, 0], dtype=np.int32), ["=no", "yes"]),
        },
        rows=5,
    )
    features = Features.fit(
        table,
        ROWS,
        features=["Age", "Port"],
        targets=["Survived"],
        task="binary",
        standardize=True,
    )
    weights = np.linspace(-1, 1, 2 * features.width).reshape(2, features.width)
    return saved(features, weights.tolist(), [0.1, -0.1])


def flags() -> dict[str, Any]:
    """Reads `Paid`, a boolean, and the month of a bill, a datetime; predicts the flag `Late`."""
    months = np.array([0.0, 30.0, 60.0, 90.0, 120.0]) * 86_400
    table = Table(
        types={"Paid": "boolean", "Month": "datetime", "Late": "boolean"},
        columns={
            "Paid": np.array([0.0, 1.0, 1.0, 0.0, 1.0]),
            "Month": months,
            "Late": np.array([1.0, 0.0, 0.0, 1.0, 0.0]),
        },
        rows=5,
    )
    features = Features.fit(
        table,
        ROWS,
        features=["Paid", "Month"],
        targets=["Late"],
        task="binary",
        standardize=False,
    )
    weights = np.zeros((2, features.width))
    weights[0, 0] = 4.0
    return saved(features, weights.tolist(), [-2.0, 0.0])


def sure(found: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    """Return one of the models above with a calibration."""
    found["document"]["calibration"] = to_json(calibration)
    return found


def saved(features: Features, weights: list[list[float]], bias: list[float]) -> dict[str, Any]:
    net = {"inputs": features.width, "outputs": features.outputs}
    return {
        "tensors": {
            "net.0.weight": np.array(weights, dtype=np.float32),
            "net.0.bias": np.array(bias, dtype=np.float32),
        },
        "document": {
            "features": features.to_json(),
            "net": net | {"layers": [{"linear": features.outputs}]},
        },
    }


MODELS = {"scores": scores, "steep": steep, "both": both, "boats": boats, "flags": flags}


def store(engine: Engine, blobs: BlobStore, folder: Path, saved: dict[str, Any]) -> Trained:
    """Store the rows and files of a succeeded run."""
    file = folder / "trained.safetensors"
    checkpoint.write(file, saved["tensors"], saved["document"])
    outputs = Features.from_json(saved["document"]["features"]).signature()["outputs"]
    target = [output["name"] for output in outputs]
    return store_best(engine, blobs, file, target=target, model={"type": "linear"})


def store_best(engine: Engine, blobs: BlobStore, file: Path, **config: Any) -> Trained:
    """Store a checkpoint as the best one of a run that has succeeded, with this configuration."""
    sha256, size = blobs.put(file)
    with writing(engine) as session:
        run = add_run(session, **config)
        run.state = "succeeded"
        best = Checkpoint(
            id=new_id("ckpt"),
            run_id=run.id,
            attempt=1,
            epoch=1,
            step=1,
            metric_seq=1,
            metrics={"train": {"loss": 1.0}},
            metrics_epoch=1,
            sha256=sha256,
            bytes=size,
            is_best=True,
        )
        session.add(best)
        run.best_checkpoint_id = best.id
    return Trained(run.id, best.id, sha256)


def publish(
    engine: Engine, trained: Trained, model: str, *, is_proved: bool = True, **document: Any
) -> int:
    """Register a run's checkpoint; returns the number of the version.

    It counts as verified, since without a worker it would stay pending.
    """
    with writing(engine) as session:
        run = lifecycle.get(session, trained.run_id)
        number = lifecycle.register(
            session,
            run,
            lifecycle.find_checkpoint(session, run, trained.checkpoint_id),
            model,
            {"signature": {"inputs": [], "outputs": []}, **document},
        ).version
        if is_proved:
            (proof,) = versions.of_versions(session, model, [number]).values()
            proof.state = "succeeded"
    return number
