"""Simple models of the same data: the baselines that a trained model has to beat.

A constant, a closed-form linear model and a few boosted trees, all fitted to the training rows and
asked for the same held-out rows. Their work is bounded by counts, not by a clock, so that equal
trainings have equal reports.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from descent.spec import Constant, EarlyStopping, RunConfig, Sgd
from models.architectures.trees import Trees
from models.data import Floats, Integers
from models.features.inputs import Matrix
from models.features.targets import ClassTarget
from models.nets.lines import Line
from models.training.cost import size_of
from models.training.dataset import net_of
from models.training.state import Training

RivalName = Literal["constant", "linear", "trees"]
#: Encoded numbers of the evenly spaced training rows that a baseline of classes reads.
MAX_CELLS = 4 * 10**6
MAX_WIDTH = 300
#: The ridge of the closed form for classes, in mean variances.
RIDGE = 1e-3
#: Trees: their shape, the fewest and the most of them, and the fewest rows that tell them anything.
DEPTH, RATE, PATIENCE = 4, 0.15, 10
FEWEST_TREES, MOST_TREES = 20, 60
TREE_ROWS = 200
#: The seconds that trees may take on a usual machine: a share of the training's, between limits.
SHARE, LEAST_S, MOST_S = 0.1, 0.3, 2.0


@dataclass(frozen=True)
class Asked:
    """Rows of the table that the baselines predict, ascending, and encoded."""

    rows: Integers
    x: Matrix


def rivals(training: Training, asked: Asked, constant: Floats) -> dict[RivalName, Floats]:
    """Return the predictions of each baseline for the rows asked for, as `Features.decode`.

    One that does not fit the data or would take too long is left out; `trees` are no baseline of
    trees.
    """
    found: dict[RivalName, Floats] = {"constant": np.tile(constant, (len(asked.rows), 1))}
    line = _line(training)
    if line is not None:
        outputs = asked.x.astype(np.float64) @ line.weights.T + line.biases
        found["linear"] = training.features.decode(outputs)
    if not isinstance(training.config.model, Trees):
        known, most = training.data.trees, _affordable(training)
        key = (training.config.seed, training.given.loss, most)
        if key not in known:
            known[key] = _trees(training, asked, most)
        trees = known[key]
        if trees is not None:
            found["trees"] = trees
    return found


def _line(training: Training) -> Line | None:
    """Return least squares for numbers, and for classes Fisher's discriminant."""
    data, target = training.data, training.features.target
    if not isinstance(target, ClassTarget):
        return data.least_squares
    rows, width = len(data.train), training.features.width
    if width > MAX_WIDTH:
        return None
    places = np.arange(0, rows, -(-rows * width // MAX_CELLS))
    truth = data.truth(data.split.train)[places]
    return discriminant(data.train.rows(places).astype(np.float64), truth, target.outputs)


def discriminant(x: Floats, truth: Floats | Integers, classes: int) -> Line | None:
    """Return the linear discriminant of classes that are normal with one covariance.

    Its outputs are the classes before the softmax. After Fisher, "The Use of Multiple Measurements
    in Taxonomic Problems" (1936). None if it is not finite.
    """
    numbers = truth.astype(np.int64)
    counts = np.bincount(numbers, minlength=classes)
    sums = np.zeros((classes, x.shape[1]))
    np.add.at(sums, numbers, x)
    means = sums / np.maximum(counts, 1)[:, None]
    within = x - means[numbers]
    spread = within.T @ within / max(1, len(x) - classes)
    spread += RIDGE * max(float(np.trace(spread)) / max(1, len(spread)), 1e-9) * np.eye(len(spread))
    with np.errstate(all="ignore"):
        weights: Floats = np.linalg.solve(spread, means.T).T.astype(np.float64)
        biases = -0.5 * (weights * means).sum(axis=1)
    biases += np.log(np.maximum(counts, 0.5) / len(x))
    is_finite = np.isfinite(weights).all() and np.isfinite(biases).all()
    return Line(weights, biases) if is_finite else None


def _trees(training: Training, asked: Asked, epochs: int) -> Floats | None:
    data = training.data
    if data.is_stored or len(data.train) < TREE_ROWS or epochs < FEWEST_TREES:
        return None
    given = replace(training.given, config=_tree_config(training, epochs), resume=None, threads=1)
    rival = Training(given, data)
    while rival.state.epoch < epochs and not rival.stopped_early:
        while not rival.is_epoch_complete:
            rival.advance(RATE, time.monotonic())
        if not rival.end_epoch().is_finite:
            return None
    return training.features.decode(rival.best_net().forward(asked.x.astype(np.float32)))


def _tree_config(training: Training, epochs: int) -> RunConfig:
    changed: dict[str, Any] = {
        "model": Trees(depth=DEPTH),
        "optimizer": Sgd(learning_rate=RATE),
        "schedule": Constant(),
        "batch_size": "full",
        "early_stopping": EarlyStopping(patience=PATIENCE),
        "epochs": epochs,
    }
    return training.given.config.model_copy(update=changed)


def _affordable(training: Training) -> int:
    """Return how many trees may be grown; the machine's clock plays no part."""
    features, config = training.features, _tree_config(training, MOST_TREES)
    rows = sum(map(len, vars(training.split).values()))
    net = net_of(config, features)
    own = size_of(training.config, rows, training.graph).training_s(training.state.epoch)
    budget_s = min(MOST_S, max(LEAST_S, SHARE * own))
    return int(min(MOST_TREES, budget_s / size_of(config, rows, net).training_s(1)))
