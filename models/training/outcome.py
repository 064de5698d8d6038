"""The evaluation of a finished training: scores on each split, baselines, importance."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from descent.codes import make_warning
from descent.spec import Sgd
from models.data import Floats, Integers
from models.engine import CHUNK
from models.engine.examples import Examples
from models.features.inputs import Matrix, Numeric
from models.features.targets import ClassTarget, Target
from models.nets.lines import describe_line, predict_line
from models.predict.intervals import LineCalibration, to_json
from models.training.calibration import (
    CHOSEN,
    LEVELS,
    MOST_WIDTH,
    MOST_WORK,
    Predicted,
    calibrate,
    calibrate_line,
    describe,
    measure_line,
)
from models.training.interface import Frame, SplitName
from models.training.report import make_report
from models.training.scores import Scores, evaluate_baseline, permutation_importance, tally
from models.training.scratch import StoredExamples
from models.training.state import Learner, Training

#: Numbers of the predictions of a split that are kept for the calibration.
MAX_PREDICTED = 10**6
#: The work for the importance of columns, as a share of the training's work.
SHARE = 0.02
#: The work of a training step in forward passes: one forward, and backward about two.
PASSES = 3


def evaluate_best(training: Training) -> dict[str, Any]:
    """Evaluate the best parameters on every split that has rows, and the baselines on the last.

    The result holds scores by split. `baseline` holds the name of its split, `constant` (the
    training rows' mean, or their classes' shares) and for a regression `linear` (least squares).
    `calibration` holds what is known of the model's intervals or sets; `training.calibration` is
    the calibration itself.
    `importance` holds the importance of each column on the same split; it is absent if it would
    take too long to compute.
    """
    split = training.split
    parts: dict[SplitName, Integers] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    figures: dict[str, Any] = {}
    predicted: dict[SplitName, Predicted] = {}
    with training.best_parameters():
        for name, rows in parts.items():
            examples = training.data.examples(name)
            found = _evaluate(training, rows, training.predictions(examples))
            figures[name], predicted[name] = found
    if calibrated := _calibrate(training, predicted):
        figures["calibration"] = calibrated
    held_out = next(reversed(parts))
    training.warnings += never_predicted(training.features.target, held_out, figures[held_out])
    if importance := importance_of(training, parts[held_out], examples):
        figures["importance"] = {"split": held_out} | importance
    del examples
    if training.data.baseline is None:
        training.data.baseline = _baseline(training, parts[held_out])
    figures["baseline"] = {"split": held_out} | training.data.baseline
    training.report = make_report(training, predicted, figures)
    return figures


def never_predicted(target: Target, split: SplitName, figures: Scores) -> Iterator[dict[str, Any]]:
    """Yield a warning if rows of a class are there, but none is predicted to be of it."""
    if not isinstance(target, ClassTarget):
        return
    predicted = np.sum(figures["confusion"]["matrix"], axis=0)
    supports = {label: each["support"] for label, each in figures["classes"].items()}
    found = [
        label
        for label, count in zip(target.labels, predicted, strict=True)
        if supports[label] and not count
    ]
    if found:
        shown = ", ".join(repr(label) for label in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        rows = sum(supports[label] for label in found)
        detail = (
            f"no {split} row is predicted to be {shown}{more}, though {rows} are: class_weight"
            " 'balanced' makes rare classes count as much as frequent ones"
        )
        yield make_warning("never_predicted", detail, target.name)


def scalar_scores(figures: Scores) -> dict[str, float]:
    """Return the single numbers among the scores of a split."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def _evaluate(
    training: Training, rows: Integers, predictions: Iterator[Floats]
) -> tuple[Scores, Predicted]:
    """Return the scores of all rows, and evenly spread ones of them with their predictions."""
    target = training.features.target
    compared, truth, start = tally(target), training.data.truth(rows), 0
    step = -(-len(rows) * target.outputs // MAX_PREDICTED)
    kept = []
    for decoded in predictions:
        compared.add(truth[start : start + len(decoded)], decoded)
        kept.append(decoded[-start % step :: step])
        start += len(decoded)
    return compared.scores(), Predicted(truth[::step], np.concatenate(kept))


def _calibrate(
    training: Training, predicted: Mapping[SplitName, Predicted]
) -> dict[str, Any] | None:
    """Calibrate the model and return what is known of it; None if its rows do not allow it.

    The validation rows calibrate and the test rows, if there are any, measure the coverage. A line
    of least squares without enough held-out rows has exact intervals from its training rows.
    """
    target = training.features.target
    split: SplitName = "validation" if "validation" in predicted else "test"
    held_out = predicted.get(split)
    margin = CHOSEN if split == "validation" else 0.0
    found = calibrate(target, predicted["train"], held_out, margin=margin) if held_out else None
    if found is None or found.most_level < LEVELS[-1]:
        exact = _calibrate_line(training, predicted["train"])
        if exact is not None:
            training.calibration = to_json(exact[0])
            return {"method": "exact", "split": "train", "coverage": exact[1]}
    if held_out is None:
        return None
    training.calibration = None if found is None else to_json(found)
    fresh = predicted.get("test") if split == "validation" else None
    return describe(target, found, split, held_out, fresh) or None


def _calibrate_line(
    training: Training, train: Predicted
) -> tuple[LineCalibration, list[dict[str, Any]]] | None:
    """Return the exact intervals of a line of least squares, and the coverage that they reach."""
    features, data, rows = training.features, training.data, training.split.train
    is_exact = training.graph.is_linear and training.given.loss in {"mse", "sse"}
    best = data.least_squares
    if not is_exact or data.weights is not None or best is None or train.rows < len(rows):
        return None
    if features.width > MOST_WIDTH or len(rows) * features.width**2 > MOST_WORK:
        return None
    parts = [part for part in training.given.table.parts(rows, CHUNK) if part.rows]
    x = np.concatenate([features.encode(part, dtype=np.float64) for part in parts])
    closed = np.concatenate(list(predict_line(features, best, training.given.table, rows)))
    truth = train.truth.astype(np.float64)
    found = calibrate_line(x, truth, train.decoded, closed)
    return None if found is None else (found, measure_line(found, x, truth, train.decoded))


def _baseline(training: Training, rows: Integers) -> dict[str, Scores]:
    target, train = training.features.target, training.split.train
    truths = (blocks_of(training.data.truth(part)) for part in (train, rows))
    found = {"constant": evaluate_baseline(target, *truths)}
    line = training.data.least_squares
    if line is not None:
        predictions = predict_line(training.features, line, training.given.table, rows)
        found["linear"], _ = _evaluate(training, rows, predictions)
    return found


def blocks_of(values: Floats | Integers) -> Iterator[Floats | Integers]:
    """Yield parts of the values."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def importance_of(
    training: Training, rows: Integers, examples: Examples | StoredExamples
) -> dict[str, Any] | None:
    """Return the importance of each column over these rows; see `permutation_importance`."""
    spent = training.state.step * training.batch_size * training.parameters * PASSES

    def read(drawn: Integers) -> tuple[Matrix, Floats | Integers]:
        return examples.rows(np.searchsorted(rows, drawn)), training.data.truth(drawn)

    return permutation_importance(
        training.features,
        training.best_net(),
        read,
        rows,
        seed=training.config.seed,
        work=int(SHARE * spent),
    )


#: A net with more parameters has no trajectory; the default net for a few columns has fewer.
MAX_PARAMETERS = 5_000
#: Numbers in all frames of a run: 1 MB.
MAX_NUMBERS = 2**18
MAX_FRAMES = 1_000
#: Epochs at the start that always have a frame, because parameters move most there.
FIRST = 10
#: Rows that are shown, and the numbers in them, at most.
MAX_ROWS = 500
MAX_CELLS = 20_000
#: Multiplications that an exact solution may take before the first step, so that it starts soon.
MAX_WORK = 10**7


def is_small(training: Training) -> bool:
    """Return whether the training has a trajectory: the steps of trees have no picture."""
    return training.parameters <= MAX_PARAMETERS and training.graph.is_smooth


def frame(training: Learner) -> Frame | None:
    """Return the frame of the epoch that just ended; None if that epoch has no frame."""
    state = training.state
    if (
        not isinstance(training, Training)
        or not is_small(training)
        or state.batch
        or not _is_due(training)
    ):
        return None
    values = training.flat.values.cpu().numpy().astype("<f4").tobytes()
    return Frame(state.epoch, state.step, values)


def _is_due(training: Training) -> bool:
    epoch, epochs = training.state.epoch, training.config.epochs
    most = min(training.given.frames or MAX_FRAMES, MAX_NUMBERS // training.parameters)
    is_early = epoch <= FIRST < most
    return is_early or epoch in {0, epochs} or epoch % math.ceil(epochs / most) == 0


def subject(training: Learner) -> dict[str, Any] | None:
    """Return the description that the frames need, ready for JSON; None if there are no frames.

    It holds the net, the scaling between its numbers and the columns' values, some encoded rows
    and, for a line, the exact solution. It takes a few milliseconds at most.
    """
    if not isinstance(training, Training) or not is_small(training):
        return None
    features = training.features
    centers, scales = features.centers_and_scales()
    shapes = training.flat.shapes.items()
    return {
        "net": training.graph.to_json(),
        "parameters": [{"name": name, "shape": list(shape)} for name, shape in shapes],
        "labels": features.labels,
        "centers": centers.tolist(),
        "scales": scales.tolist(),
        "axes": _axes(training),
        "outputs": features.target.output_names,
        "target": _units(features.target),
        "loss": training.given.loss,
        "steps_per_epoch": training.steps_per_epoch,
        "rows": {"train": len(training.data.train), "validation": len(training.data.validation)},
        "sample": _sample(training),
        "line": _line(training),
    }


def _units(target: Target) -> dict[str, Any]:
    """Return how outputs become values: classes by softmax, numbers by center and scale."""
    if isinstance(target, ClassTarget):
        return {"classes": target.labels, "center": [], "scale": []}
    return {"classes": None, "center": list(target.center), "scale": list(target.scale)}


def _axes(training: Training) -> list[dict[str, Any]]:
    """Return the columns that can be an axis of a picture: the columns of numbers."""
    axes, place = [], 0
    for column in training.features.inputs:
        if isinstance(column, Numeric) and column.min is not None:
            limits = {"min": column.min, "max": column.max}
            axes.append({"column": column.name, "place": place} | limits)
        place += column.width
    return axes


def _sample(training: Training) -> dict[str, Any]:
    """Return encoded rows of both splits with their true targets."""
    split, features = training.split, training.features
    most = max(1, min(MAX_ROWS, MAX_CELLS // features.width))
    held_out = len(split.validation)
    share = most * held_out // max(1, held_out + len(split.train))
    train, validation = _spread(len(split.train), most - share), _spread(held_out, share)
    data = training.data
    x = np.concatenate([data.train.rows(train), data.validation.rows(validation)])
    truth = np.concatenate(
        [data.truth(split.train[train]), data.truth(split.validation[validation])]
    )
    names = np.repeat(["train", "validation"], [len(train), len(validation)])
    finite = np.isfinite(x).all(axis=1)
    return {
        "x": x[finite].tolist(),
        "truth": truth[finite].tolist(),
        "split": names[finite].tolist(),
    }


def _spread(count: int, most: int) -> Integers:
    """Return at most `most` places of so many, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64) if most else np.arange(0)


def _line(training: Training) -> dict[str, Any] | None:
    """Return the closed form and the largest learning rate of a line; None for other models."""
    features = training.features
    work = len(training.data.train) * features.width**2
    if not training.graph.is_linear or work > MAX_WORK:
        return None
    best = training.data.least_squares
    rate = training.data.largest_learning_rate(training.given.loss, Sgd())
    return {
        "closed_form": describe_line(features, best) if best else None,
        "largest_learning_rate": rate if rate and math.isfinite(rate) else None,
    }
