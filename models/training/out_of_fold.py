"""The evaluation of a cross-validation: each row by the members that did not train with it."""

from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.codes import make_warning
from models.data import Floats, Integers
from models.features.targets import ClassTarget, Target
from models.nets.lines import predict_line
from models.predict.intervals import to_json
from models.training.bag import Bag, OutOfFold
from models.training.calibration import Predicted, calibrate, describe
from models.training.outcome import (
    MAX_PREDICTED,
    blocks_of,
    importance_of,
    never_predicted,
    scalar_scores,
)
from models.training.report import report_of_folds
from models.training.scores import Scores, constant_of, evaluate, tally
from models.training.state import Training

#: A probability below this is taken for it, as its logarithm is stored.
LEAST = float(np.finfo(np.float32).tiny)


def evaluate_bag(bag: Bag) -> dict[str, Any]:
    """Evaluate the best parameters of each member, and note the out-of-fold predictions.

    `validation` has the scores of the out-of-fold predictions, `train` those of the whole model on
    its own training rows, `folds` those of each member on its fold with their mean and standard
    deviation. `baseline` and `importance` are as in `evaluate_best`, on the out-of-fold rows, whose
    errors calibrate the model.
    """
    rows, target = bag.split.train, bag.features.target
    held_out, whole = (np.zeros((len(rows), target.outputs)) for _ in range(2))
    scores = []
    for member in bag.members:
        with member.best_parameters():
            for part, examples in (
                (member.split.train, member.data.train),
                (member.split.validation, member.data.validation),
            ):
                found = np.concatenate(list(member.predictions(examples)))
                places = np.searchsorted(rows, part)
                whole[places] += found
                if part is member.split.validation:
                    held_out[places] += found
                    scores.append(evaluate(target, member.data.truth(part), found))
    held_out /= len(bag.members) // bag.folds
    whole /= len(bag.members)
    bag.out_of_fold = OutOfFold(rows.astype(np.int64), _outputs(target, held_out))
    truth = bag.members[0].data.truth(rows)
    figures: dict[str, Any] = {
        "train": evaluate(target, truth, whole),
        "validation": evaluate(target, truth, held_out),
        "folds": _spread(bag, scores),
    }
    bag.warnings += [make_warning("diverged", why) for why in bag.diverged.values()]
    bag.warnings += never_predicted(target, "validation", figures["validation"])
    if importance := _importance(bag):
        figures["importance"] = {"split": "validation"} | importance
    figures["baseline"] = {"split": "validation"} | _baseline(bag)
    _judge(bag, Predicted(truth, whole), Predicted(truth, held_out), figures)
    return figures


def _judge(bag: Bag, whole: Predicted, held_out: Predicted, figures: dict[str, Any]) -> None:
    """Calibrate the model by its out-of-fold predictions, and make its report."""
    target = bag.features.target
    step = -(-held_out.rows * target.outputs // MAX_PREDICTED)
    train = Predicted(whole.truth[::step], whole.decoded[::step])
    judged = Predicted(held_out.truth[::step], held_out.decoded[::step])
    # These are the errors of single members; those of their mean are a little smaller.
    calibration = calibrate(target, train, judged)
    if calibrated := describe(target, calibration, "validation", judged):
        figures["calibration"] = calibrated
    bag.calibration = None if calibration is None else to_json(calibration)
    rows = bag.split.train[::step]
    bag.report = report_of_folds(_first_repeat(bag), rows, judged, figures)


def _outputs(target: Target, decoded: Floats) -> NDArray[np.float32]:
    """Return what `decode` turns into these predictions, float32 (rows, outputs)."""
    if isinstance(target, ClassTarget):
        return np.log(np.maximum(decoded, LEAST)).astype(np.float32)
    scaled: Floats = (decoded - np.array(target.center)) / np.array(target.scale)
    return scaled.astype(np.float32)


def _spread(bag: Bag, scores: Sequence[Scores]) -> dict[str, Any]:
    """Return the scores of each member on its fold, their means and standard deviations."""
    single = [scalar_scores(each) for each in scores]
    names = [name for name in single[0] if all(name in each for each in single)]
    listed = []
    for number, (member, each) in enumerate(zip(bag.members, single, strict=True)):
        repeat, fold = divmod(number, bag.folds)
        place = {"repeat": repeat + 1, "fold": fold + 1, "rows": len(member.split.validation)}
        listed.append(place | {"epoch": member.best_place()[0]} | each)
    return {
        "folds": bag.folds,
        "repeats": len(bag.members) // bag.folds,
        "scores": listed,
        "mean": {name: fmean(each[name] for each in single) for name in names},
        "std": {name: pstdev([each[name] for each in single]) for name in names},
    }


def _first_repeat(bag: Bag) -> list[Training]:
    """Return the members of the first repeat: their folds hold each row once."""
    return bag.members[: bag.folds]


def _baseline(bag: Bag) -> dict[str, Scores]:
    """Score predictions of each fold that learned from the other folds only."""
    target, members = bag.features.target, _first_repeat(bag)
    constant, line = tally(target), tally(target)
    for member in members:
        data, rows = member.data, member.split.validation
        truth, start = data.truth(rows), 0
        known = constant_of(target, blocks_of(data.truth(member.split.train)))
        for block in blocks_of(truth):
            constant.add(block, np.tile(known, (len(block), 1)))
        for decoded in _line_of(member, rows):
            line.add(truth[start : start + len(decoded)], decoded)
            start += len(decoded)
    found = {"constant": constant.scores()}
    if all(member.data.least_squares is not None for member in members):
        found["linear"] = line.scores()
    return found


def _line_of(member: Training, rows: Integers) -> Iterator[Floats]:
    line = member.data.least_squares
    if line is not None:
        yield from predict_line(member.features, line, member.given.table, rows)


def _importance(bag: Bag) -> dict[str, Any] | None:
    """Return the mean importance over the folds of the first repeat, each by its own member."""
    found = []
    for member in _first_repeat(bag):
        each = importance_of(member, member.split.validation, member.data.validation)
        if each is None:
            return None
        found.append({entry["column"]: entry for entry in each["columns"]} | {"": each})
    first = found[0][""]
    columns = [
        {
            "column": name,
            "mean": fmean(each[name]["mean"] for each in found),
            "std": fmean(each[name]["std"] for each in found),
        }
        for name in (entry["column"] for entry in first["columns"])
    ]
    columns.sort(key=lambda entry: -entry["mean"])
    return {
        "metric": first["metric"],
        "rows": sum(each[""]["rows"] for each in found),
        "shuffles": min(each[""]["shuffles"] for each in found),
        "columns": columns,
    }
