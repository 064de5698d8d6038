"""The way of a small net's parameters through training, and what a picture of it needs.

A frame is all parameters after an epoch. Frames are numbered by their epochs and are a function of
the configuration and the data, so that a resumed training gives the same ones again.
"""

import math
from typing import Any

import numpy as np

from descent.spec import Sgd
from models.closed_form import describe_line, largest_learning_rate
from models.data import Rows
from models.events import Frame
from models.inputs import Scalar
from models.nets import describe
from models.targets import ClassTarget, Target
from models.training import Training

#: Nets with more parameters have no trajectory; the default net for a few columns has one.
MAX_PARAMETERS = 5_000
#: Numbers that all frames of a run may hold: 1 MB.
MAX_NUMBERS = 2**18
MAX_FRAMES = 1_000
#: Epochs that have a frame in any case: most of the way is made at the beginning.
FIRST = 10
#: Rows that are shown, and how many numbers they may hold.
MAX_ROWS = 500
MAX_CELLS = 20_000
#: Multiplications that an exact solution may take before the first step.
MAX_WORK = 10**7


def is_small(training: Training) -> bool:
    """Whether the training has a trajectory."""
    return training.parameters <= MAX_PARAMETERS


def frame(training: Training) -> Frame | None:
    """Return the parameters as they are after an epoch; None where that epoch has no frame."""
    state = training.state
    if not is_small(training) or state.batch or not _is_due(training):
        return None
    values = training.flat.values.cpu().numpy().astype("<f4").tobytes()
    return Frame(state.epoch, state.step, values)


def _is_due(training: Training) -> bool:
    epoch, epochs = training.state.epoch, training.config.epochs
    most = min(MAX_FRAMES, MAX_NUMBERS // training.parameters)
    return epoch <= FIRST or epoch == epochs or epoch % math.ceil(epochs / most) == 0


def subject(training: Training) -> dict[str, Any] | None:
    """Return what the frames are frames of, in JSON; None where there are none.

    That is the net, how its numbers become values of the columns, some rows as the net sees them
    and, for a line, what needs no training. It takes a few milliseconds at most.
    """
    if not is_small(training):
        return None
    features, config = training.features, training.config
    centers, scales = features.centers_and_scales()
    shapes = training.flat.shapes.items()
    return {
        "net": describe(config.model, features.width, features.outputs),
        "parameters": [{"name": name, "shape": list(shape)} for name, shape in shapes],
        "labels": features.labels,
        "centers": centers.tolist(),
        "scales": scales.tolist(),
        "axes": _axes(training),
        "outputs": features.target.output_names,
        "target": _units(features.target),
        "loss": training.job.loss,
        "steps_per_epoch": training.steps_per_epoch,
        "rows": {"train": len(training.train), "validation": len(training.validation)},
        "sample": _sample(training),
        "line": _line(training),
    }


def _units(target: Target) -> dict[str, Any]:
    """Return how outputs become values: classes by softmax, numbers by these two."""
    if isinstance(target, ClassTarget):
        return {"classes": target.labels, "center": [], "scale": []}
    return {"classes": None, "center": list(target.center), "scale": list(target.scale)}


def _axes(training: Training) -> list[dict[str, Any]]:
    """Return the columns that a picture may have as an axis: those that are numbers."""
    axes, place = [], 0
    for column in training.features.inputs:
        if isinstance(column, Scalar) and column.min is not None:
            limits = {"min": column.min, "max": column.max}
            axes.append({"column": column.name, "place": place} | limits)
        place += column.width
    return axes


def _sample(training: Training) -> dict[str, Any]:
    """Return rows of both splits, as the net sees them, with what is to be predicted."""
    split, features = training.split, training.features
    most = max(1, min(MAX_ROWS, MAX_CELLS // features.width))
    held_out = len(split.validation)
    share = most * held_out // max(1, held_out + len(split.train))
    parts = {
        "train": _spread(split.train, most - share),
        "validation": _spread(split.validation, share),
    }
    rows = np.concatenate(list(parts.values()))
    x = features.encode(training.job.table, rows)
    truth = features.truth(training.job.table, rows)
    names = np.repeat(list(parts), [len(part) for part in parts.values()])
    finite = np.isfinite(x).all(axis=1)
    return {
        "x": x[finite].tolist(),
        "truth": truth[finite].tolist(),
        "split": names[finite].tolist(),
    }


def _spread(rows: Rows, most: int) -> Rows:
    """Return at most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)] if most else rows[:0]


def _line(training: Training) -> dict[str, Any] | None:
    """Return where gradient descent on a line ends, and how long its steps may be."""
    features, config = training.features, training.config
    work = len(training.train) * features.width**2
    if config.model.hidden_layers() or work > MAX_WORK:
        return None
    best = training.least_squares
    x = features.encode(training.job.table, training.split.train, dtype=np.float64)
    rate = largest_learning_rate(x, training.job.loss, Sgd(), features.outputs)
    return {
        "closed_form": describe_line(features, best) if best else None,
        "largest_learning_rate": rate if rate and math.isfinite(rate) else None,
    }
